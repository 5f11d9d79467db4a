"""HTTP API authorizer: bearer token → principal, cached by the gateway for 60 seconds.

A refusal is passed on in the context, because an HTTP API cannot change the body of its own: the
function behind the route answers 401 with a code. Emits nothing.
"""

from typing import Any

from kyora import config, http, tokens
from kyora.observability import begin, invoked


@invoked
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    begin(http.request_id(event), parent=http.header(event, "traceparent"))
    config.require(config.auth, config.database_url)
    scheme, _, token = http.header(event, "authorization").partition(" ")
    token = token.strip() if scheme.lower() == "bearer" else ""
    return {"isAuthorized": True, "context": tokens.authorize(token)}
