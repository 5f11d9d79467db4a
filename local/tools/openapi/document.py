"""The OpenAPI 3.1 document, made from the code: `make openapi`, or `--check` whether it is current.

Paths, parameters and schemas come from the functions' own routes and models. What types cannot
say stands once in problems.py and operations.py; a test compares both with the code.
"""

import argparse
import difflib
import importlib.util
import json
import re
import typing
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from kyora import __version__, http
from local.settings import ROOT
from local.tools.openapi.components import REF, headers, reference, schemas
from local.tools.openapi.operations import ASSET_ID, OPERATIONS, VERIFYING, Operation
from local.tools.openapi.problems import ALWAYS, CONFIRM, OF_BILLING, PROBLEMS, SECURED, Json

DOCUMENT = ROOT / "local" / "web" / "static" / "openapi.json"

# What API Gateway answers on its own, without a function: never problem+json on AWS.
_GATEWAY = {401: "Unauthorized", 429: "Too Many Requests", 500: "Internal Server Error",
            503: "Service Unavailable"}  # fmt: skip
# Statuses whose answers say when to come back, always or in some cases.
_RETRY = {202, 409, 429, 503}
_LOCATION = {201}

_DESCRIPTION = """\
Uploads from request to verified bytes: a client asks for an upload, PUTs the file straight to
the store, and confirms; file bytes never pass through the API. Billing: what the workspace is on,
and Stripe's pages for cards; no card number ever passes through here. Businesses, as many as the
workspace's plan allows, and what their days brought: orders, revenue, customers.

**Authentication.** `Authorization: Bearer <JWT>` with the claims `userId`, `workspaceId`,
`authVersion` and `exp`. A role `user` may do everything with files and look at billing; what needs
the role `admin` answers `auth.forbidden` to others.

**Amounts** are whole numbers in the currency's minor unit.

**Refusals** are `application/problem+json` (RFC 9457) with a stable `code`. `errors` names
fields. Unknown fields are refused. What API Gateway refuses on its own, such as a request
without an Authorization header, is its own `{"message": …}`.

**Every answer of a function has `X-Request-Id`**: yours, when you sent one of 8 to 64 letters,
digits, `-` and `_`; it is in every log line and every event of the request.

**Idempotency-Key** on the POSTs that create something: the same key and body get the same
answer for 24 hours.\
"""


@cache
def functions() -> dict[str, ModuleType]:
    """Return the module of every function behind the API by the name of its folder."""
    found = {}
    for path in sorted((ROOT / "functions").glob("*/app.py")):
        name = path.parent.name
        if "http.Routes" not in path.read_text():
            continue
        spec = importlib.util.spec_from_file_location(f"function_{name}", path)
        if spec is None or spec.loader is None:
            raise ImportError(path)
        found[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    return found


def document() -> Json:
    """Return the whole document; the same code gives the same bytes."""
    found: dict[str, tuple[str, str, Json]] = {}
    requests: set[type[BaseModel]] = set()
    answers: set[type[BaseModel]] = set()
    for folder, module in functions().items():
        for key, route in module.ROUTES.items():
            method, path = key.split(" ")
            if route.__name__ not in OPERATIONS:
                raise SystemExit(
                    f"describe {route.__name__} in OPERATIONS of local/tools/openapi/operations.py"
                )
            hints = typing.get_type_hints(route)
            answer = _model(hints.pop("return"))
            body = next((_model(hint) for name, hint in hints.items() if name != "call"), None)
            requests |= {body} if body else set()
            answers |= {answer} if answer else set()
            made = _operation(route.__name__, folder, path, body, answer)
            found[route.__name__] = (path, method.lower(), made)
    paths: Json = {}
    for operation in OPERATIONS:
        path, method, made = found[operation]
        paths.setdefault(path, {})[method] = made
    responses = _share(paths)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Kyora Integrations",
            "version": __version__,
            "summary": "Uploads, verified. Billing, settled. Days, counted.",
            "description": _DESCRIPTION,
        },
        "servers": [
            {"url": "/", "description": "The stack that serves this document"},
            {
                "url": "https://{api}.execute-api.{region}.amazonaws.com",
                "description": "A deployed stack: its output ApiUrl",
                "variables": {"api": {"default": "abc123"}, "region": {"default": "eu-west-1"}},
            },
        ],
        "tags": [
            {"name": "Uploads", "description": "Ask, PUT, confirm."},
            {"name": "Assets", "description": "Files that are there."},
            {"name": "Analytics", "description": "What a business's days brought."},
            {"name": "Billing", "description": "Plans, the subscription, invoices."},
            {"name": "Businesses", "description": "As many as the plan allows."},
            {"name": "Service", "description": "The deployment itself."},
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(requests, answers),
            "responses": responses,
            "headers": headers(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "HS256 with the deployment's secret, or a key of its JWKS.",
                }
            },
        },
        "x-problems": {
            code: {"status": p.error.status, "title": p.error.title, "when": p.when}
            for code, p in sorted(PROBLEMS.items(), key=lambda item: item[1].error.status)
        },
    }


def _operation(
    operation: str,
    function: str,
    path: str,
    request: type[BaseModel] | None,
    answer: type[BaseModel] | None,
) -> Json:
    """Describe one route."""
    known = OPERATIONS[operation]
    body: Json = {
        "operationId": to_camel(operation),
        "tags": [known.tag],
        "summary": known.summary,
        "description": known.description,
        "x-function": function,
        "security": [] if known.public else [{"bearer": []}],
    }
    names = (*re.findall(r"\{(\w+)\}", path), *known.query)
    parameters = [_PARAMETERS[name] for name in names]
    if request:
        parameters.append(_PARAMETERS["Idempotency-Key"])
        content = {"schema": reference(request), "example": known.request}
        body["requestBody"] = {"required": True, "content": {"application/json": content}}
    if parameters:
        body["parameters"] = parameters
    codes = known.codes + ALWAYS + (() if known.public else SECURED)
    statuses = {PROBLEMS[code].error.status for code in codes} | known.answers.keys()
    statuses |= _GATEWAY.keys() - ({401} if known.public else set())
    body["responses"] = {
        str(status): _success(known, status, answer)
        if status in known.answers
        else _refusal(status, [code for code in PROBLEMS if code in codes])
        for status in sorted(statuses)
    }
    return body


_PARAMETERS: dict[str, Json] = {
    "assetId": {
        "name": "assetId",
        "in": "path",
        "required": True,
        "description": "From the answer to the request for the upload.",
        "schema": {"type": "string", "pattern": "^ast_[0-9a-z]{26}$"},
        "example": ASSET_ID,
    },
    "businessId": {
        "name": "businessId",
        "in": "query",
        "required": True,
        "description": "A business of the workspace.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "example": "biz_demo",
    },
    "from": {
        "name": "from",
        "in": "query",
        "required": True,
        "description": "The first day.",
        "schema": {"type": "string", "format": "date"},
        "example": "2026-11-22",
    },
    "to": {
        "name": "to",
        "in": "query",
        "required": True,
        "description": "The last day; at most 366 days with the first.",
        "schema": {"type": "string", "format": "date"},
        "example": "2026-11-23",
    },
    "planId": {
        "name": "planId",
        "in": "path",
        "required": True,
        "description": "The plan's `id`.",
        "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,99}$"},
        "example": "professional",
    },
    "preview": {
        "name": "preview",
        "in": "query",
        "required": False,
        "description": "`true`: change nothing, say what it would cost.",
        "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
    },
    "when": {
        "name": "when",
        "in": "query",
        "required": False,
        "description": "When it ends.",
        "schema": {"type": "string", "enum": ["period_end", "now"], "default": "period_end"},
    },
    "limit": {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": "How many at most.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        "example": 20,
    },
    "cursor": {
        "name": "cursor",
        "in": "query",
        "required": False,
        "description": "`nextCursor` of the page before.",
        "schema": {"type": "string", "maxLength": 1000},
    },
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Any text of yours, such as a UUID; an empty one counts as none. The same "
        "key and body get the same answer for 24 hours.",
        "schema": {"type": "string", "maxLength": 255, "pattern": "^[ -~]*$"},
        "example": "5f0c2c1e-6f0a-4c1a-9f57-0a5a3d1f9f10",
    },
}


def _success(known: Operation, status: int, model: type[BaseModel] | None) -> Json:
    answer: Json = {"description": known.answers[status], "headers": _header_refs(status)}
    if model:
        example = VERIFYING if status == 202 else known.example
        content = {"schema": reference(model), "example": example}
        answer["content"] = {"application/json": content}
    if known.links:
        parameters = {"assetId": "$response.body#/assetId"}
        answer["links"] = {
            to_camel(name): {"operationId": to_camel(name), "parameters": parameters}
            for name in known.links
        }
    return answer


def _refusal(status: int, codes: list[str]) -> Json:
    """Describe every refusal with one status: each code, and the gateway's own answer."""
    mine = [code for code in codes if PROBLEMS[code].error.status == status]
    content: Json = {}
    if mine:
        content["application/problem+json"] = {
            "schema": {
                "allOf": [
                    {"$ref": f"{REF}Problem"},
                    # No constant status: client generators cannot merge it with Problem's integer.
                    {"type": "object", "properties": {"code": {"type": "string", "enum": mine}}},
                ]
            },
            "examples": {code: {"value": _example(code)} for code in mine},
        }
    lines = [f"`{code}`: {PROBLEMS[code].when}" for code in mine]
    if status in _GATEWAY:
        content["application/json"] = {
            "schema": {"$ref": f"{REF}GatewayRefusal"},
            "example": {"message": _GATEWAY[status]},
        }
        lines.append("API Gateway's own answer: a bare `message`.")
    return {
        "description": "\n\n".join(lines),
        "headers": _header_refs(status),
        "content": content,
    }


def _share(paths: Json) -> Json:
    """Move refusals that several routes have in common to one place; return that place."""
    shared: Json = {}
    operations = [made for path in paths.values() for made in path.values()]
    for status in sorted({s for made in operations for s in made["responses"] if s >= "400"}):
        found = [made["responses"].get(status) for made in operations]
        common = max((one for one in found if one), key=found.count)
        if found.count(common) > 1:
            name = f"Refused{status}"
            shared[name] = common
            for made in operations:
                if made["responses"].get(status) == common:
                    made["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    return shared


def _example(code: str) -> Json:
    known = PROBLEMS[code]
    return {
        "type": f"urn:kyora:problem:{code}",
        "title": known.error.title,
        "status": known.error.status,
        "detail": known.when.replace("`", ""),
        "code": code,
        **known.members,
        "instance": _instance(code),
    }


def _instance(code: str) -> str:
    """Return a route that answers with a code."""
    if code.startswith("business."):
        return "/v1/analytics/summary"
    if code in OF_BILLING:
        return "/v1/billing/subscription"
    return "/v1/assets/:assetId/confirm" if code in CONFIRM else "/v1/assets/upload"


def _header_refs(status: int) -> Json:
    names = ["X-Request-Id"] + (["Retry-After"] if status in _RETRY else [])
    names += ["Location"] if status in _LOCATION else []
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _model(hint: Any) -> type[BaseModel] | None:
    """Return the model of a hint, also when it is inside Answer[…]."""
    if typing.get_origin(hint) is http.Answer:
        (hint,) = typing.get_args(hint)
    return hint if isinstance(hint, type) and issubclass(hint, BaseModel) else None


def text() -> str:
    """Return the document as it is committed."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the document, or report with exit code 1 that the committed one is stale."""
    parser = argparse.ArgumentParser(prog="python -m local.tools.openapi")
    parser.add_argument("--check", action="store_true", help="only compare")
    wanted, name = text(), str(DOCUMENT.relative_to(ROOT))
    kept = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    if not parser.parse_args().check:
        DOCUMENT.write_text(wanted)
        print(f"{name}: {'written' if wanted != kept else 'nothing changed'}")
        return 0
    if wanted == kept:
        return 0
    lines = difflib.unified_diff(kept.splitlines(), wanted.splitlines(), name, "the code", n=1)
    print("\n".join([*list(lines)[:60], f"\n{name} is stale: run `make openapi`"]))
    return 1
