"""$default of the HTTP API: what no route takes is 404, or 405 where another method is served.

Emits nothing.
"""

from typing import Any

from kyora import http
from kyora.observability import begin


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    begin(event["requestContext"]["requestId"])
    return http.unrouted(event)
