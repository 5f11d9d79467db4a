"""HTTP as the functions speak it: Powertools' resolver, problem documents and the principal."""

import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError

from kyora import auth, config
from kyora.auth import Principal
from kyora.errors import (
    ConfigError,
    Invalid,
    KyoraError,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    field_errors,
)
from kyora.observability import begin, logger

MAX_BODY = 1 << 20  # bytes
_NONE: Mapping[str, str] = {}
_ID = r"/[^/]+"
# What the HTTP API routes (a test compares it with template.yaml): here only to tell 405 from 404.
_ROUTES = (
    ("POST", "/v1/assets/upload"),
    ("POST", "/v1/assets/uploads"),
    ("POST", f"/v1/assets{_ID}/confirm"),
    ("GET", f"/v1/assets{_ID}"),
    ("DELETE", f"/v1/assets{_ID}"),
    ("GET", "/v1/health"),
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")

type Event = dict[str, Any]
type Handler = Callable[[Event, object], dict[str, Any]]


class BadJson(Invalid):
    """The body is not JSON."""

    status, code, title = 400, "request.invalid_json", "The body is not JSON"


def api() -> APIGatewayHttpResolver:
    """Return a resolver that checks requests against the types of its routes."""
    app = APIGatewayHttpResolver(enable_validation=True)

    @app.exception_handler(RequestValidationError)  # type: ignore[untyped-decorator]
    def refuse(error: RequestValidationError) -> Response[Any]:
        raise Invalid("Some fields are not valid.", errors=field_errors(error.errors())) from None

    return app


def entrypoint(app: APIGatewayHttpResolver, *sections: str, public: bool = False) -> Handler:
    """Return the Lambda handler of `app`, which needs these sections of the configuration.

    Who is asking is settled before anything else is looked at, unless the routes are public.
    Whatever goes wrong is answered with a problem document; a bug is logged and answers 500.
    """

    def handler(event: Event, context: object) -> dict[str, Any]:
        started, request_id = time.perf_counter(), _request_id(event)
        begin(request_id)
        code = ""
        try:
            config.settings(*sections)
            if not public:
                app.append_context(principal=_principal(event))
            _check_body(event)
            response: dict[str, Any] = app.resolve(event, context)  # type: ignore[arg-type]
        except KyoraError as error:
            code = error.code
            if isinstance(error, ConfigError):
                logger().critical("not configured", faults=error.faults)
            response = problem(error, event)
        except Exception as error:
            code = KyoraError.code
            logger().exception("unexpected error")
            response = problem(KyoraError(), event)
            response["headers"] |= {"X-Error": type(error).__name__} if _development() else {}
        response.setdefault("headers", {})["X-Request-Id"] = request_id
        logger().info(
            "request",
            route=event.get("routeKey", ""),
            status=response["statusCode"],
            code=code,
            milliseconds=round((time.perf_counter() - started) * 1000, 1),
        )
        return response

    return handler


def answer[T](body: T, *, status: int = 200, headers: Mapping[str, str] = _NONE) -> Response[T]:
    """Return a JSON response with a status of its own."""
    return Response(
        status_code=status, content_type="application/json", body=body, headers=dict(headers)
    )


def unrouted(event: Event) -> dict[str, Any]:
    """Answer a request that no route of the HTTP API takes."""
    path, method = str(event.get("rawPath", "")), event["requestContext"]["http"]["method"]
    allowed = [verb for verb, pattern in _ROUTES if re.fullmatch(pattern, path)]
    refusal: KyoraError = NotFound("There is nothing at this address.")
    if allowed and method not in allowed:
        refusal = MethodNotAllowed(
            f"{method} is not possible here.", headers={"Allow": ", ".join(sorted(allowed))}
        )
    response = problem(refusal, event | {"routeKey": ""})
    response["headers"]["X-Request-Id"] = _request_id(event)
    return response


def principal(app: APIGatewayHttpResolver) -> Principal:
    """Return who is asking."""
    found: Principal = app.context["principal"]
    return found


def header(app: APIGatewayHttpResolver, name: str) -> str:
    """Return a request header, or an empty text."""
    return str(app.current_event.headers.get(name.lower(), ""))


def problem(error: KyoraError, event: Mapping[str, Any]) -> dict[str, Any]:
    """Render a refusal as RFC 9457. `instance` names the route, so ids leave no trace in it."""
    return {
        "statusCode": error.status,
        "headers": {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
        | error.headers,
        "body": json.dumps(error.document() | {"instance": _instance(event)}),
        "isBase64Encoded": False,
    }


def _principal(event: Mapping[str, Any]) -> Principal:
    """Return who is asking. Raises Unauthenticated, also when the authorizer was left out."""
    authorizer = (event.get("requestContext") or {}).get("authorizer") or {}
    return auth.principal(authorizer.get("lambda") or {})


def _instance(event: Mapping[str, Any]) -> str:
    route = str(event.get("routeKey", "")).partition(" ")[2]
    return re.sub(r"\{(\w+)\}", r":\1", route) or str(event.get("rawPath", ""))


def _check_body(event: Event) -> None:
    """Refuse what the resolver would stumble over; leave the body as decoded text."""
    body = event.get("body") or ""
    if event.get("isBase64Encoded"):
        if len(body) > MAX_BODY * 4 // 3 + 4:
            raise TooLarge("A request body has at most 1 MiB.")
        try:
            body = base64.b64decode(body, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise BadJson("The body is not UTF-8.") from None
        event |= {"body": body, "isBase64Encoded": False}
    if len(body) > MAX_BODY or len(body.encode(errors="surrogatepass")) > MAX_BODY:
        raise TooLarge("A request body has at most 1 MiB.")
    if not body:
        return
    try:
        json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadJson("The body cannot be read as JSON.") from None
    # The routes take JSON only; a form's media type would make the resolver read a form.
    headers = {k: v for k, v in event.get("headers", {}).items() if k.lower() != "content-type"}
    event["headers"] = headers | {"content-type": "application/json"}


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _request_id(event: Mapping[str, Any]) -> str:
    headers = event.get("headers") or {}
    given = next((v for k, v in headers.items() if k.lower() == "x-request-id"), "")
    if _REQUEST_ID.fullmatch(given):
        return str(given)
    return str((event.get("requestContext") or {}).get("requestId", ""))


def _development() -> bool:
    try:
        return config.settings().development
    except KyoraError:
        return False
