"""HTTP for the functions: routes, validated bodies, problem documents and the principal.

The HTTP API routes a request before a function gets it (`routeKey`, `pathParameters`), so a route
is a line in a dictionary. Powertools' resolver would route and parse a second time; it took 30 of
206 ms of request_upload's init under the Runtime Interface Emulator.
"""

import base64
import json
import re
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from kyora import auth, aws, config, trace
from kyora.auth import Principal
from kyora.errors import (
    ConfigError,
    Invalid,
    KyoraError,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unavailable,
    field_errors,
)
from kyora.observability import begin, count, fault, finish, logger
from kyora.postgres import Unstorable

if TYPE_CHECKING:
    from pydantic import BaseModel  # a webhook has no models and must not pay for pydantic

MAX_BODY = 1 << 20  # bytes
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_ID = r"/[^/]+"
# The routes of the HTTP API, to distinguish 405 from 404. A test compares them with template.yaml.
_ROUTES = (
    ("POST", "/v1/assets/upload"),
    ("POST", "/v1/assets/uploads"),
    ("POST", "/v1/assets/multipart"),
    ("POST", f"/v1/assets{_ID}/multipart/parts"),
    ("GET", f"/v1/assets{_ID}/multipart/parts"),
    ("POST", f"/v1/assets{_ID}/multipart/complete"),
    ("DELETE", f"/v1/assets{_ID}/multipart"),
    ("POST", f"/v1/assets{_ID}/confirm"),
    ("POST", f"/v1/assets{_ID}/upload-url"),
    ("GET", f"/v1/assets{_ID}"),
    ("DELETE", f"/v1/assets{_ID}"),
    ("GET", "/v1/billing/plans"),
    ("GET", f"/v1/billing/plans{_ID}"),
    ("GET", "/v1/billing/subscription"),
    ("POST", "/v1/billing/subscription"),
    ("DELETE", "/v1/billing/subscription"),
    ("POST", "/v1/billing/subscription/resume"),
    ("POST", "/v1/billing/subscription/pause"),
    ("DELETE", "/v1/billing/subscription/pending-change"),
    ("POST", "/v1/billing/checkout-session"),
    ("POST", "/v1/billing/portal-session"),
    ("GET", "/v1/billing/invoices"),
    ("POST", "/v1/businesses"),
    ("GET", "/v1/analytics/summary"),
    ("GET", "/v1/health"),
)

type Event = dict[str, Any]
type Handler = Callable[[Event, object], dict[str, Any]]
type Routes = Mapping[str, Callable[..., BaseModel | Answer[Any] | None]]


class Call(NamedTuple):
    """A request; `path` has the parameters of the route, `who` is None on a public route."""

    event: Event
    path: Mapping[str, str]
    who: Principal | None

    @property
    def principal(self) -> Principal:
        """The caller. Raises Unauthenticated on a public route."""
        if self.who is None:
            raise auth.refuse("auth.token_missing")
        return self.who

    def query(self, name: str) -> str:
        """Return a query parameter, or ''."""
        return str((self.event.get("queryStringParameters") or {}).get(name, ""))

    def flag(self, name: str) -> bool:
        """Return a boolean query parameter; False if it is missing. Raises Invalid."""
        value = self.query(name)
        if value not in ("", "true", "false"):
            raise Invalid(
                "Some fields are not valid.",
                errors=[{"field": name, "message": "must be true or false"}],
            )
        return value == "true"

    def header(self, name: str) -> str:
        """Return a request header, or ''."""
        return header(self.event, name)


class Answer[T: BaseModel](NamedTuple):
    """A body with its own status or headers."""

    body: T
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})


def acting[T: BaseModel](act: Callable[[Principal], T]) -> Callable[[Call], T]:
    """Return a route with the name of `act` that answers what `act` returns for the principal."""

    def route(call: Call) -> T:
        return act(call.principal)

    route.__name__ = act.__name__
    route.__annotations__["return"] = act.__annotations__["return"]
    return route


class BadJson(Invalid):
    """The body is not JSON."""

    status, code, title = 400, "request.invalid_json", "The body is not JSON"


def entrypoint(
    routes: Routes, *sections: config.Section[Any], public: Collection[str] = ()
) -> Handler:
    """Return the Lambda handler of `routes`, which need these sections of the configuration.

    A route is `"METHOD /path/{parameter}"` and a function of the call and, if it takes a body, of
    the body's model. The caller is checked before anything else, unless the route is `public`.
    Every error is answered with a problem document; a bug is logged as well.
    """

    def respond(event: Event) -> dict[str, Any]:
        return _dispatch(routes, event, public=event["routeKey"] in public)

    return _answering(respond, sections)


def webhook(
    receive: Callable[[Mapping[str, str], bytes], None], *sections: config.Section[Any]
) -> Handler:
    """Return the Lambda handler of a function URL that receives a vendor's webhook.

    `receive` gets the headers, with lower-case names, and the signed bytes. The answer is 200 when
    it returns. The vendor is expected to retry after a 500.
    """

    def response(event: Event) -> dict[str, Any]:
        headers = {str(k).lower(): str(v) for k, v in (event.get("headers") or {}).items()}
        try:
            receive(headers, _body(event))
        except BadJson as error:
            error.code = "webhook.payload_invalid"
            raise
        except Unstorable:
            refusal = BadJson("The payload holds a character that cannot be stored.")
            refusal.code = "webhook.payload_invalid"
            raise refusal from None
        except Unavailable as error:
            error.status = 500
            raise
        return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": "{}"}

    return _answering(response, sections)


def _answering(
    respond: Callable[[Event], dict[str, Any]], sections: tuple[config.Section[Any], ...]
) -> Handler:
    """Return a handler that turns every outcome into an answer and a log line."""
    aws.warm()

    def handler(event: Event, context: object) -> dict[str, Any]:
        started, correlation, code = time.perf_counter(), request_id(event), ""
        trace.invocation(str(getattr(context, "aws_request_id", "")))
        begin(correlation, parent=header(event, "traceparent"))
        try:
            config.require(*sections)
            response = respond(event)
        except KyoraError as error:
            code = error.code
            if isinstance(error, ConfigError):
                logger().critical("not configured", extra={"faults": error.faults})
                _count_unexpected()
            response = problem(error, event)
        except Unstorable:  # in a string that no model has checked
            code = Invalid.code
            refusal = Invalid("A string holds a character that cannot be stored, such as NUL.")
            response = problem(refusal, event)
        except Exception as error:
            code = KyoraError.code
            logger().error("unexpected error", **fault(error))
            _count_unexpected()
            response = problem(KyoraError(), event)
        response["headers"]["X-Request-Id"] = correlation
        logger().info(
            "request",
            route=event.get("routeKey", ""),
            status=response["statusCode"],
            code=code,
            milliseconds=round((time.perf_counter() - started) * 1000, 1),
        )
        _end_trace(event, response["statusCode"], code)
        return response

    return handler


def _end_trace(event: Event, status: int, code: str) -> None:
    """End the request's span; a function URL has one path, its vendor's."""
    request = (event.get("requestContext") or {}).get("http") or {}
    name = str(event.get("routeKey", "$default"))
    if name == "$default":
        name = f"{request.get('method', '')} {event.get('rawPath', '')}"
    trace.describe(name, trace.SERVER, http__response__status_code=status)
    finish(code if status >= 500 else "")


def _count_unexpected() -> None:
    """Count an error that only we can fix, for UnexpectedErrorsAlarm in template.yaml."""
    with suppress(KyoraError):  # not even the stage is configured
        count("UnexpectedErrors")


def unrouted(event: Event) -> dict[str, Any]:
    """Answer a request that matches no route of the HTTP API."""
    path, method = str(event.get("rawPath", "")), event["requestContext"]["http"]["method"]
    allowed = sorted(verb for verb, pattern in _ROUTES if re.fullmatch(pattern, path))
    if method == "OPTIONS" and allowed:  # a preflight that the gateway has not answered
        return {"statusCode": 204, "headers": {"Allow": ", ".join(allowed)}}
    refusal: KyoraError = NotFound("There is nothing at this address.")
    if allowed and method not in allowed:
        refusal = MethodNotAllowed(
            f"{method} is not allowed here.", headers={"Allow": ", ".join(allowed)}
        )
    response = problem(refusal, event | {"routeKey": ""})
    response["headers"]["X-Request-Id"] = request_id(event)
    return response


def problem(error: KyoraError, event: Mapping[str, Any]) -> dict[str, Any]:
    """Render a refusal as RFC 9457. `instance` is the route, so it contains no ids."""
    return {
        "statusCode": error.status,
        "headers": {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
        | error.headers,
        "body": json.dumps(error.document() | {"instance": _instance(event)}),
        "isBase64Encoded": False,
    }


def _dispatch(routes: Routes, event: Event, *, public: bool) -> dict[str, Any]:
    function = routes[event["routeKey"]]
    who = None if public else _principal(event)
    raw = _body(event)
    if not _unchanged(event, raw):
        raise BadJson("The body is not UTF-8.")
    call = Call(event, event.get("pathParameters") or {}, who)
    models = [t for name, t in function.__annotations__.items() if name not in ("call", "return")]
    result = function(call, *(_parse(model, raw) for model in models))
    if result is None:
        return {"statusCode": 204, "headers": {}}
    answer = result if isinstance(result, Answer) else Answer(result)
    return {
        "statusCode": answer.status,
        "headers": {"Content-Type": "application/json", "Cache-Control": "no-store"}
        | dict(answer.headers),
        "body": answer.body.model_dump_json(by_alias=True, exclude_none=True),
    }


def _principal(event: Mapping[str, Any]) -> Principal:
    """Return the caller. Raises Unauthenticated, also if no authorizer has run."""
    authorizer = (event.get("requestContext") or {}).get("authorizer") or {}
    return auth.principal(authorizer.get("lambda") or {})


def _body(event: Event) -> bytes:
    """Return the raw body. Raises TooLarge."""
    body = event.get("body") or ""
    if len(body) > 2 * MAX_BODY:  # before decoding makes a copy
        raise TooLarge("A request body may have at most 1 MiB.")
    try:
        raw = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    except ValueError:
        raise BadJson("The body cannot be read.") from None
    if len(raw) > MAX_BODY:
        raise TooLarge("A request body may have at most 1 MiB.")
    return raw


def _unchanged(event: Event, raw: bytes) -> bool:
    """Return True if these are the bytes that the client sent.

    API Gateway decodes a body whose type is text, and replaces what is not UTF-8 by U+FFFD, which
    makes the body longer. A client may also send a real U+FFFD: Chrome does for a file name with a
    broken encoding.
    """
    if event.get("isBase64Encoded") or b"\xef\xbf\xbd" not in raw:
        return True
    return header(event, "content-length") == str(len(raw))


def _parse[T: BaseModel](model: type[T], raw: bytes) -> T:
    from pydantic import ValidationError
    from pydantic_core import from_json

    try:
        # Not model_validate_json: it overlooks an unknown field that is a known one's Python name.
        return model.model_validate(from_json(raw, allow_inf_nan=False))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
    except ValueError:
        raise BadJson("The body cannot be read as JSON.") from None
    raise Invalid("Some fields are not valid.", errors=field_errors(faults))


def header(event: Mapping[str, Any], name: str) -> str:
    """Return a header of the request, or ''. The case of its name does not matter.

    An HTTP API sends lower-case names; `sam local start-api` keeps the client's.
    """
    headers = event.get("headers") or {}
    return str(next((v for k, v in headers.items() if k.lower() == name.lower()), ""))


def _instance(event: Mapping[str, Any]) -> str:
    route = str(event.get("routeKey", "")).partition(" ")[2]
    return re.sub(r"\{(\w+)\}", r":\1", route) or str(event.get("rawPath", ""))


def request_id(event: Mapping[str, Any]) -> str:
    """Return the id of a request: the client's X-Request-Id if it is usable, else the gateway's."""
    given = header(event, "x-request-id")
    if _REQUEST_ID.fullmatch(given):
        return given
    return str((event.get("requestContext") or {}).get("requestId", ""))
