"""Failures on request, for the next N requests: error statuses, lost or refused answers, delays."""

from dataclasses import dataclass

from local.stripe.core.errors import Refusal
from local.stripe.engine import Answer

KINDS = ("status", "refuse", "lose", "slow")


@dataclass
class Fault:
    """What happens to the next `times` requests of a method under a path.

    `status` answers it instead of Stripe; `refuse` hangs up before the request is done and `lose`
    after it; `slow` waits for `seconds` before it is done.
    """

    kind: str
    times: int = 1
    status: int = 500
    path: str = "/v1/"
    method: str = ""
    seconds: float = 0


def strike(pending: list[Fault], method: str, path: str) -> Fault | None:
    """Return the fault for this request, and count it."""
    for fault in pending:
        if path.startswith(fault.path) and fault.method in ("", method):
            fault.times -= 1
            if fault.times <= 0:
                pending.remove(fault)
            return fault
    return None


def before(fault: Fault) -> Answer | None:
    """Return the answer that a fault gives instead of Stripe's."""
    if fault.kind != "status":
        return None
    if fault.status == 429:
        refusal = Refusal(
            429,
            "Request rate limit exceeded. Learn more about rate limits here "
            "https://stripe.com/docs/rate-limits.",
            code="rate_limit",
        )
    else:
        refusal = Refusal(fault.status, "Something went wrong on Stripe's end.", kind="api_error")
    return Answer(fault.status, refusal.body)
