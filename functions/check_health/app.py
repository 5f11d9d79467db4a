"""GET /v1/health: whether this deployment works, for people and load balancers.

503 while the database cannot be reached. Emits nothing.
"""

from kyora import health, http
from kyora.health import Health

app = http.api()


@app.get("/v1/health")
def check_health() -> Health:
    return health.check()


handler = http.entrypoint(app, "database", public=True)
