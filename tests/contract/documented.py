"""The committed OpenAPI document: its operations, and a sound body for each."""

import json
from typing import Any

from local.tools.openapi import document as openapi

DOCUMENT: dict[str, Any] = json.loads(openapi.DOCUMENT.read_text())


OPERATIONS = {
    made["operationId"]: (f"{method.upper()} {path}", made)
    for path, methods in DOCUMENT["paths"].items()
    for method, made in methods.items()
}


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """Return what a $ref leads to; anything else is itself."""
    found: Any = DOCUMENT if "$ref" in node else node
    for part in node.get("$ref", "").split("/")[1:]:
        found = found[part]
    return dict(found)


HOME = "http://127.0.0.1:8000/billing"


FILE = {"filename": "a.txt", "contentType": "text/plain", "size": 5}


FILM = {"filename": "film.mp4", "contentType": "video/mp4", "size": 9 << 20}


BODIES: dict[str, Any] = {
    "startMultipart": FILM,
    "signParts": {"parts": [{"number": 1, "size": 2}]},
    "completeMultipart": {"parts": [{"number": n, "etag": "e"} for n in (1, 2, 3)]},
    "requestUpload": FILE,
    "requestUploads": {"files": [FILE]},
    "createBusiness": {"name": "Corner shop", "currency": "AED"},
    "changeSubscription": {"planId": "professional"},
    "createCheckoutSession": {"planId": "professional", "successUrl": HOME, "cancelUrl": HOME},
    "createPortalSession": {"returnUrl": HOME},
    "pauseSubscription": {},
}
