"""Every error that Kyora answers with.

    KyoraError
    ├── Invalid              422  the request is well-formed and wrong
    │   ├── BadSignature     400  a webhook whose sender is not proven
    │   └── BadPayload       400  a signed webhook that is not an event
    ├── Unauthenticated      401  the caller is not known
    ├── PaymentRequired      402  a payment is required or was declined
    ├── Forbidden            403  the caller is known and not allowed
    ├── NotFound             404  unknown, or another workspace's
    ├── MethodNotAllowed     405
    ├── Conflict             409  not possible in this state
    ├── Gone                 410
    ├── TooLarge             413
    ├── UnsupportedType      415
    ├── TooMany              429
    ├── Unavailable          503  a dependency is down; the same request may work later
    └── ConfigError          500  the deployment is wrong

`code` is stable and dotted; `members` become further members of the problem document.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class KyoraError(Exception):
    """An error with a stable code, rendered as RFC 9457 by `kyora.http`."""

    status = 500
    code = "internal.error"
    title = "Internal error"

    def __init__(
        self,
        detail: str = "",
        *,
        code: str | None = None,
        errors: Sequence[Mapping[str, str]] = (),
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        **members: object,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.code = code or self.code
        self.errors = list(errors)
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        self.members = members

    def document(self) -> dict[str, object]:
        """Return the members of the problem document, without `instance`."""
        found: dict[str, object] = {
            "type": f"urn:kyora:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail or self.title,
            "code": self.code,
        }
        if self.errors:
            found["errors"] = self.errors
        return found | self.members


class Invalid(KyoraError):
    """The request is well-formed and wrong."""

    status, code, title = 422, "request.validation_failed", "The request is not valid"


def field_errors(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Turn pydantic's errors into `{field, message}`; a field is named as it was written."""
    found = []
    for error in errors:
        place = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]
        # The client chose the name of an unknown field: it has any length, and may hold a NUL.
        field = "".join(letter for letter in ".".join(place)[:100] if letter.isprintable())
        message = str(error["msg"]).removeprefix("Value error, ")
        found.append({"field": field or "body", "message": message[:200]})
    return found[:50]


class BadSignature(Invalid):
    """The sender of a webhook's request is not proven, or the request is too old."""

    status, code, title = 400, "webhook.signature_invalid", "The signature is not valid"


class BadPayload(Invalid):
    """A webhook's request is signed but is not an event."""

    status, code, title = 400, "webhook.payload_invalid", "The payload cannot be read"


class Unauthenticated(KyoraError):
    """The caller is not known."""

    status, code, title = 401, "auth.token_invalid", "Authentication is required"


class PaymentRequired(KyoraError):
    """A payment is required, or was declined."""

    status, code, title = 402, "billing.payment_required", "Payment required"


class Forbidden(KyoraError):
    """The caller is known and not allowed."""

    status, code, title = 403, "auth.forbidden", "Not allowed"


class NotFound(KyoraError):
    """Unknown, or another workspace's: the answer is the same."""

    status, code, title = 404, "request.not_found", "Not found"


class MethodNotAllowed(KyoraError):
    """The path exists, the method does not."""

    status, code, title = 405, "request.method_not_allowed", "Method not allowed"


class Conflict(KyoraError):
    """Not possible in the present state."""

    status, code, title = 409, "request.conflict", "Conflict"


class Gone(KyoraError):
    """It existed once."""

    status, code, title = 410, "request.gone", "Gone"


class TooLarge(KyoraError):
    """More bytes than allowed."""

    status, code, title = 413, "request.body_too_large", "Too large"


class UnsupportedType(KyoraError):
    """A media type that is not accepted."""

    status, code, title = 415, "request.type_not_supported", "Type not accepted"


class TooMany(KyoraError):
    """More than the caller may have open at once."""

    status, code, title = 429, "request.too_many", "Too many"


class Unavailable(KyoraError):
    """A dependency is down; nothing was half-written."""

    status, code, title = 503, "service.unavailable", "Temporarily unavailable"

    def __init__(self, detail: str = "", *, code: str | None = None, retry_after: int = 2) -> None:
        super().__init__(detail, code=code, retry_after=retry_after)


class ConfigError(KyoraError):
    """The deployment is wrong. `faults` names every variable at once."""

    code = "config.invalid"

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("The service is not configured.")
        self.faults = list(faults)

    def __str__(self) -> str:
        return "configuration: " + "; ".join(self.faults)
