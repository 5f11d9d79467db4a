"""The parts that routes refer to: schemas of requests, answers and refusals, and headers."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from local.tools.openapi.operations import SHA256
from local.tools.openapi.problems import Json

REF = "#/components/schemas/"


def reference(model: type[BaseModel]) -> Json:
    """Return a reference to a model's schema."""
    return {"$ref": f"{REF}{model.__name__}"}


def headers() -> Json:
    """Return the headers of answers."""
    return {
        "X-Request-Id": {
            "description": "The request's id in the logs and in the events it causes.",
            "schema": {"type": "string"},
        },
        "Retry-After": {
            "description": "Seconds to wait before the same request is worth sending again.",
            "schema": {"type": "integer", "minimum": 1},
        },
        "Location": {
            "description": "The address of what was made.",
            "schema": {"type": "string", "format": "uri-reference"},
        },
    }


def schemas(requests: set[type[BaseModel]], answers: set[type[BaseModel]]) -> Json:
    """Return the components: what is sent, what is answered, and the refusals."""
    shown = {name: _answer(schema) for name, schema in _definitions(answers).items()}
    schemas = {name: _tidy(schema) for name, schema in (_definitions(requests) | shown).items()}
    schemas["UploadRequest"]["properties"]["sha256"]["anyOf"][0] |= {
        "pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$",
        "examples": [SHA256],
    }
    schemas["UploadsRequest"]["properties"]["files"]["items"] = {"$ref": f"{REF}UploadRequest"}
    schemas["RefusedUpload"]["properties"]["error"] = {"$ref": f"{REF}Problem"}
    schemas["Problem"] = _PROBLEM
    schemas["GatewayRefusal"] = {
        "type": "object",
        "description": "What API Gateway answers on its own, before any function is asked.",
        "properties": {"message": {"type": ["string", "null"]}},
        "required": ["message"],
    }
    return dict(sorted(schemas.items()))


def _definitions(models: set[type[BaseModel]]) -> Json:
    inputs: list[tuple[type[BaseModel], Any]] = [
        (model, "validation") for model in sorted(models, key=lambda model: model.__name__)
    ]
    _, made = models_json_schema(inputs, by_alias=True, ref_template=REF + "{model}")
    definitions: Json = made["$defs"]
    return definitions


def _answer(schema: Json) -> Json:
    """Say of an answer's fields: never null, and there unless they may be left out."""
    required = []
    for name, field_schema in schema.get("properties", {}).items():
        choices = field_schema.pop("anyOf", None)
        kept = [c for c in choices or [] if c != {"type": "null"}]
        if choices and len(kept) == len(choices):
            field_schema["anyOf"] = kept
        for choice in kept if choices and len(kept) < len(choices) else []:
            field_schema.update(choice)
        if not choices or len(kept) == len(choices):
            required.append(name)
        field_schema.pop("default", None)
    return schema | {"required": required}


def _tidy(schema: Any) -> Any:
    """Drop titles that repeat a name and defaults, and write whole numbers as such.

    A field that may be left out is optional; with a default, generators make it required.
    """
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if isinstance(schema, dict):
        # A property may be called "title" or "default"; a schema's own are no objects.
        return {
            key: _tidy(value)
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
            and not (key == "default" and not isinstance(value, dict))
        }
    return int(schema) if isinstance(schema, float) and schema.is_integer() else schema


_PROBLEM: Json = {
    "type": "object",
    "description": "A refusal (RFC 9457). `code` is stable; `title` and `detail` are for people.",
    "properties": {
        "type": {"type": "string", "examples": ["urn:kyora:problem:asset.not_found"]},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "The route; not within a batch's answer."},
        "code": {"type": "string", "pattern": r"^[a-z]+\.[a-z_]+$"},
        "errors": {
            "type": "array",
            "description": "The fields at fault.",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                "required": ["field", "message"],
                "additionalProperties": False,
            },
        },
        "limit": {"type": "string", "description": "With `billing.limit_reached`: which limit."},
        "allowed": {"type": "integer", "description": "With `billing.limit_reached`."},
        "used": {"type": "integer", "description": "With `billing.limit_reached`."},
        "maxBytes": {"type": "integer", "description": "With `asset.too_large`."},
        "over": {
            "type": "array",
            "description": "With `billing.downgrade_blocked`: each limit that is exceeded.",
            "items": {
                "type": "object",
                "properties": {
                    "limit": {"type": "string"},
                    "allowed": {"type": "integer"},
                    "used": {"type": "integer"},
                },
                "required": ["limit", "allowed", "used"],
                "additionalProperties": False,
            },
        },
        "clientSecret": {
            "type": "string",
            "description": "With `billing.payment_required`: for Stripe's form in the browser.",
        },
        "declineCode": {
            "type": "string",
            "description": "With `billing.card_declined`: Stripe's word for why.",
        },
        "reason": {
            "type": "string",
            "description": "With `asset.rejected`.",
            "enum": [
                *("size_mismatch", "checksum_mismatch", "type_mismatch", "bad_content"),
                *("too_many_pixels", "macros", "encrypted", "infected"),
            ],
        },
        "detectedType": {
            "type": "string",
            "description": "With `asset.rejected`: the type that the bytes have, if known.",
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}
