"""$default of the HTTP API: answer 404, or 405 if the path has another method.

Emits nothing.
"""

from typing import Any

from kyora import http
from kyora.observability import begin


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    begin(event["requestContext"]["requestId"])
    return http.unrouted(event)
