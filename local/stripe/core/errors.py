"""Refusals as Stripe words them: `{"error": {type, code, message, param …}}`."""

from typing import Any


class Refusal(Exception):
    """An answer that is an error: an HTTP status and the body that goes with it."""

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", **more: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "message": message} | _given(more)}


def _given(more: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in more.items() if value is not None}
    if code := found.get("code"):
        found["doc_url"] = f"https://stripe.com/docs/error-codes/{str(code).replace('_', '-')}"
    return found


def missing(kind: str, name: str, param: str | None = None) -> Refusal:
    """Return the refusal of an unknown id: 404 in a path, 400 in a parameter."""
    noun = kind.replace("payment_method", "PaymentMethod")
    return Refusal(
        404 if param is None else 400,
        f"No such {noun}: '{name}'",
        code="resource_missing",
        param=param or "id",
    )


def required(param: str, message: str = "") -> Refusal:
    """Return the refusal of a request without a parameter it needs."""
    message = message or f"Missing required param: {param}."
    return Refusal(400, message, code="parameter_missing", param=param)


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refusal:
    """Return the refusal of an invalid value."""
    return Refusal(400, message, param=param, code=code)
