"""$default of the HTTP API: answer 404, or 405 if the path has another method.

Emits nothing.
"""

from typing import Any

from kyora import http
from kyora.observability import begin, invoked


@invoked
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    begin(http.request_id(event), parent=http.header(event, "traceparent"))
    return http.unrouted(event)
