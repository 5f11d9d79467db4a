"""The provider `resend`: Resend's SDK behind our own rules for keys, pace and answers.

Measured beside the SDK's own HTTP client (bench/email.py; two shared cores, so read the ratios):

                   a send    connections for 100 messages
    its own        1.2 ms    100
    ours           0.5 ms    1

Importing it takes 184 ms, of which 175 are `requests`, which its own client uses. An environment
pays that at its first send; no HTTP request does, because mail goes through a queue.
"""

import math
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kyora import clock, config
from kyora.config import Email
from kyora.email.message import Held, Message, Refusal, Sent, check, params
from kyora.errors import KyoraError

if TYPE_CHECKING:
    from kyora.email.resend_http import Answer

DEADLINE = 10.0  # seconds for a send, from our first byte to the last byte of the answer
LONGEST_PAUSE = 1.0  # seconds before a send; Resend's rate limit is per second
_TRIES = 5
_NAME = re.compile(r"[a-z0-9_]{1,60}")

_paused_until: dict[str, float] = {}


class Resend:
    """The provider `resend`."""

    name = "resend"

    def __init__(self, settings: Email) -> None:
        self._url, self._key = settings.resend_base_url, settings.resend_api_key

    def send(self, message: Message, idempotency_key: str) -> Sent:
        """Post the message. Raises Refusal for every answer without an id."""
        check(message, idempotency_key)
        time.sleep(max(0.0, _paused_until.get(self._url, 0.0) - time.monotonic()))
        deadline = time.monotonic() + DEADLINE
        answer = self._post(message, idempotency_key, deadline)
        if answer.status in (401, 403) and self._renewed():
            answer = self._post(message, idempotency_key, deadline)
        if not answer.status:
            raise Refusal(0, "no_answer")
        retry_after = _seconds(answer.headers.get("retry-after", ""))
        self._pace(answer, retry_after)
        if 200 <= answer.status < 300:
            found = answer.body.get("id")
            if isinstance(found, str) and found:
                return Sent(found)
            raise Refusal(0, "no_id")
        raise Refusal(
            *_named(answer),
            str(answer.body.get("message", ""))[:300],
            retry_after=retry_after,
        )

    def lift(self, address: str) -> str:
        """Remove an address from Resend's suppression list; return what that did.

        `removed`, `absent`, `restricted` when the key may only send, else Resend's own words.
        """
        from kyora.email import resend_http

        account = resend_http.Account(self._url, self._key)
        answer = resend_http.lift(account, address, time.monotonic() + DEADLINE)
        if answer.status == 200:
            return "removed"
        if _named(answer) == (404, "not_found"):
            return "absent"
        return _why_not(answer)

    def suppressed(self, deadline: float) -> Held:
        """Read Resend's suppression list until `deadline`, a reading of `time.monotonic`."""
        from kyora.email import resend_http

        account = resend_http.Account(self._url, self._key)
        found: dict[str, tuple[str, str]] = {}
        after, tries = "", 0
        while True:
            if time.monotonic() > deadline - 1:
                return Held(found, whole=False)
            limit = min(deadline, time.monotonic() + DEADLINE)
            answer = resend_http.suppressed(account, after, limit)
            entries = answer.body.get("data")
            if answer.status != 200 or not isinstance(entries, list):
                tries += 1
                if answer.status in (0, 429, 500, 502, 503) and tries < _TRIES:
                    time.sleep(LONGEST_PAUSE)
                    continue
                return Held(found, whole=False, refused=_why_not(answer))
            for entry in entries:
                found[str(entry["email"])] = str(entry["origin"]), str(entry["created_at"])
            if not (entries and answer.body.get("has_more")):
                return Held(found, whole=True)
            after = str(entries[-1]["id"])

    def _post(self, message: Message, idempotency_key: str, deadline: float) -> "Answer":
        from kyora.email import resend_http  # at the first send, because it imports the SDK

        account = resend_http.Account(self._url, self._key)
        return resend_http.send(account, params(message), idempotency_key, deadline)

    def _renewed(self) -> bool:
        """Read the settings again; True when the key that was refused has been rotated."""
        config.forget()
        with suppress(KyoraError):  # then the refusal stands, and the message waits
            if (key := config.email().resend_api_key) != self._key:
                self._key = key
                return True
        return False

    def _pace(self, answer: "Answer", retry_after: float | None) -> None:
        """Delay the next send until Resend's rate limit resets, by at most a second."""
        pause = 0.0
        if answer.status == 429:
            pause = retry_after or LONGEST_PAUSE
        elif _seconds(answer.headers.get("ratelimit-remaining", "")) == 0:
            pause = _seconds(answer.headers.get("ratelimit-reset", "")) or LONGEST_PAUSE
        _paused_until[self._url] = time.monotonic() + min(pause, LONGEST_PAUSE)


def _named(answer: "Answer") -> tuple[int, str]:
    name = str(answer.body.get("name", ""))
    return answer.status, name if _NAME.fullmatch(name) else ""


def _why_not(answer: "Answer") -> str:
    """Return why the suppression list cannot be read, for a person."""
    status, name = _named(answer)
    if name == "restricted_api_key":
        return "restricted"
    return f"{status} {name}".strip() if status else "no answer"


def _seconds(text: Any) -> float | None:
    """Return the seconds of a Retry-After header, which is a number or a date."""
    try:
        found = float(text)
    except ValueError:
        if not text:
            return None
        from email.utils import parsedate_to_datetime

        try:
            found = parsedate_to_datetime(text).timestamp() - clock.timestamp()
        except ValueError:
            return None
    return None if math.isnan(found) else min(max(found, 0.0), 86_400.0)
