"""When a message is tried again, and when no more.

    attempts   an answer in doubt (5xx, 408, 425, a locked resource) is the last from attempt
               MAX_ATTEMPTS on; the others end nothing, though they count
    back-off   2, 4, 8 … seconds, at most LONGEST_BACKOFF, less a jitter over the whole range;
               never less than the provider's Retry-After
    breaker    no key, no quota: nothing is sent through this provider for a time, and no
               attempt is counted
    window     the provider forgets an idempotency key after 24 hours: nothing is repeated
               under one that is 23 hours old

The queue plays no part: a message that waits is put back uncounted. The queue's own limit of 8
deliveries (template.yaml) is for workers that died or found no database.

Answers are distinguished by status and name, never by an SDK's class. Source: Resend's error
reference, and what the API was seen to do (names are an open list).
"""

import secrets
from datetime import timedelta
from enum import Enum
from typing import NamedTuple

from kyora.email.message import Refusal
from kyora.postgres import Transaction

MAX_ATTEMPTS = 8
LONGEST_BACKOFF = 900.0  # seconds
WINDOW = timedelta(hours=23)
# How long the webhook may take to report a message whose send was in doubt; and how long an
# exhausted message rests before its event may start it again.
RECHECK_AFTER = timedelta(minutes=15)
_QUARTER, _HOUR = 900, 3600  # seconds


class Do(Enum):
    """What becomes of a message that was not accepted."""

    RETRY = "retry"  # under the same key
    WAIT = "wait"  # open the breaker: nothing is sent, and no attempt is counted
    DIE = "die"
    ASSUME = "assume"  # an earlier attempt was accepted; the webhook will say so


class Action(NamedTuple):
    """What to do after an answer, and what the answer says about the attempt."""

    do: Do
    counted: bool = True
    refused: bool = False  # this attempt was certainly not accepted
    limited: bool = False  # given up after MAX_ATTEMPTS
    exhausted: bool = False  # given up because of that
    breaker: int = 0  # seconds for which it stays open
    kind: str = ""


_DIE = Action(Do.DIE, refused=True)
_LOST = Action(Do.RETRY)  # accepted or not: a retry under the same key is safe either way
_DOWN = Action(Do.RETRY, limited=True)
_SLOWER = Action(Do.RETRY, refused=True)
_BUSY = Action(Do.RETRY, counted=False)  # another attempt of ours is in flight
_REFUSED = Action(Do.WAIT, counted=False, refused=True, breaker=_QUARTER, kind="access")
_DAY = Action(Do.WAIT, counted=False, refused=True, breaker=_HOUR, kind="quota")
_MONTH = Action(Do.WAIT, counted=False, refused=True, breaker=6 * _HOUR, kind="quota")

# An empty name stands for every other one. Not listed: 5xx as 500, 3xx as 404, other 4xx dies.
_TABLE = {
    (0, ""): _LOST,
    (401, ""): _REFUSED,  # no key, or one that may not send
    (403, ""): _REFUSED,  # a wrong or suspended key, a domain that is not verified
    (404, ""): _REFUSED,  # a wrong base URL, as 405
    (405, ""): _REFUSED,
    (408, ""): _DOWN,
    (409, "concurrent_idempotent_requests"): _BUSY,
    (409, "resource_locked"): _DOWN,
    (425, ""): _DOWN,
    (429, ""): _SLOWER,
    (429, "daily_quota_exceeded"): _DAY,
    (429, "monthly_quota_exceeded"): _MONTH,
}


def action(refusal: Refusal, attempts: int) -> Action:
    """Return what to do after the refusal of attempt number `attempts`."""
    if (refusal.status, refusal.name) == (409, "invalid_idempotent_request"):
        # The key is bound to other bytes. That happens when a template changed between two
        # attempts; then the first was accepted. On a first attempt another message has our key.
        return Action(Do.ASSUME) if attempts > 1 else _DIE
    found = _TABLE.get((refusal.status, refusal.name)) or _TABLE.get((refusal.status, ""))
    if found is None:
        found = _DOWN if refusal.status >= 500 else _DIE
        found = _REFUSED if refusal.status < 400 else found
    if found.limited and attempts >= MAX_ATTEMPTS:
        return Action(Do.DIE, exhausted=True)
    return found


def backoff(action: Action, attempts: int, retry_after: float | None) -> float:
    """Return the seconds until the next attempt after attempt number `attempts`."""
    # Jitter over the whole range, so that what failed together does not come back together.
    low, high = (0.0, min(LONGEST_BACKOFF, 2.0**attempts)) if action.counted else (2.0, 5.0)
    return max(secrets.SystemRandom().uniform(low, high), retry_after or 0.0)


def open_breaker(tx: Transaction, provider: str, seconds: int, reason: str) -> None:
    """Send nothing through this provider for so many seconds."""
    tx.run(
        "INSERT INTO email_provider_state AS p (provider, open_until, reason)"
        " VALUES (:provider, now() + CAST(:seconds AS integer) * interval '1 second', :reason)"
        " ON CONFLICT (provider) DO UPDATE SET reason = excluded.reason, opened_at = now(),"
        " open_until = greatest(p.open_until, excluded.open_until)",
        provider=provider,
        seconds=seconds,
        reason=reason,
    )
