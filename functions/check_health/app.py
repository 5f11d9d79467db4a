"""GET /v1/health: whether this deployment works, for people and load balancers.

503 while the database cannot be written. Emits nothing.
"""

from kyora import config, health, http
from kyora.health import Health


def check_health(call: http.Call) -> Health:
    return health.check()


ROUTES: http.Routes = {"GET /v1/health": check_health}
handler = http.entrypoint(ROUTES, config.database_url, public=ROUTES)
