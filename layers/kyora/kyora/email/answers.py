"""What to do with each of Resend's answers, by status and name (never by an SDK's class).

Source: Resend's error reference, and what the API was seen to do (names are an open list).
"""

from dataclasses import dataclass
from enum import Enum

from kyora.email import Refusal

MAX_ATTEMPTS = 8
_QUARTER, _HOUR = 900, 3600  # seconds


class Do(Enum):
    """What becomes of a message that was not taken."""

    RETRY = "retry"  # under the same key
    WAIT = "wait"  # the breaker is open: nothing is sent, no attempt counted
    DIE = "die"
    ASSUME = "assume"  # an earlier attempt was taken; the webhook will tell


@dataclass(frozen=True, slots=True)
class Action:
    """What to do, and what the answer says about the attempt."""

    do: Do
    counted: bool = True
    refused: bool = False  # this attempt was certainly not taken
    limited: bool = False  # given up after MAX_ATTEMPTS
    exhausted: bool = False  # given up because of that
    breaker: int = 0  # seconds
    kind: str = ""


_DIE = Action(Do.DIE, refused=True)
_LOST = Action(Do.RETRY)  # taken or not: only the key knows
_DOWN = Action(Do.RETRY, limited=True)
_SLOWER = Action(Do.RETRY, refused=True)
_BUSY = Action(Do.RETRY, counted=False)  # our other attempt is under way this moment
_REFUSED = Action(Do.WAIT, counted=False, refused=True, breaker=_QUARTER, kind="access")
_DAY = Action(Do.WAIT, counted=False, refused=True, breaker=_HOUR, kind="quota")
_MONTH = Action(Do.WAIT, counted=False, refused=True, breaker=6 * _HOUR, kind="quota")

# An empty name is every other one. What is not here: 5xx as 500, 3xx as 404, other 4xx dies.
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
    """Return what to do about a refusal of the message's attempt number `attempts`."""
    if (refusal.status, refusal.name) == (409, "invalid_idempotent_request"):
        # The key stands for other bytes. A template that changed between two attempts does that,
        # and then the first was taken; on a first attempt somebody else's message has our key.
        return Action(Do.ASSUME) if attempts > 1 else _DIE
    found = _TABLE.get((refusal.status, refusal.name)) or _TABLE.get((refusal.status, ""))
    if found is None:
        found = _DOWN if refusal.status >= 500 else _DIE
        found = _REFUSED if refusal.status < 400 else found
    if found.limited and attempts >= MAX_ATTEMPTS:
        return Action(Do.DIE, exhausted=True)
    return found
