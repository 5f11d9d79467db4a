"""GET /v1/analytics/summary: orders, revenue and customers of a business, day by day.

Emits nothing.
"""

from kyora import config, http
from kyora.analytics import summary
from kyora.analytics.models import Summary


def summarise_analytics(call: http.Call) -> Summary:
    return summary.summarise(
        call.principal.workspace_id, call.query("businessId"), call.query("from"), call.query("to")
    )


ROUTES: http.Routes = {"GET /v1/analytics/summary": summarise_analytics}
handler = http.entrypoint(ROUTES, config.database_url)
