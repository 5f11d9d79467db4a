"""GET, POST, DELETE /v1/billing/…: plans, the workspace's subscription, its invoices, two pages.

For admins. Emits SubscriptionActivated, -Changed, -Cancelled, -Paused, -Resumed, PaymentRecovered.
"""

from kyora import config, http
from kyora.billing import models
from kyora.billing.api import invoices, overview, previews, sessions, subscriptions
from kyora.billing.plans import offers


def list_plans(call: http.Call) -> models.Plans:
    return offers.listed()


def get_plan(call: http.Call) -> models.Plan:
    return offers.get(call.path["planId"])


def change_subscription(call: http.Call, wanted: models.PlanChoice) -> models.Subscription:
    if call.flag("preview"):
        return previews.preview(call.principal, wanted)
    return subscriptions.choose(call.principal, wanted, call.header("Idempotency-Key"))


def cancel_subscription(call: http.Call) -> models.Subscription:
    return subscriptions.cancel(call.principal, call.query("when") or "period_end")


def pause_subscription(call: http.Call, wanted: models.PauseRequest) -> models.Subscription:
    return subscriptions.pause(call.principal, wanted)


def create_checkout_session(call: http.Call, wanted: models.CheckoutRequest) -> models.Session:
    return sessions.checkout(call.principal, wanted, call.header("Idempotency-Key"))


def create_portal_session(call: http.Call, wanted: models.PortalRequest) -> models.Session:
    return sessions.portal(call.principal, wanted, call.header("Idempotency-Key"))


def list_invoices(call: http.Call) -> models.Invoices:
    return invoices.listed(call.principal.workspace_id, call.query("limit"), call.query("cursor"))


ROUTES: http.Routes = {
    "GET /v1/billing/plans": list_plans,
    "GET /v1/billing/plans/{planId}": get_plan,
    "GET /v1/billing/subscription": http.acting(overview.get_subscription),
    "POST /v1/billing/subscription": change_subscription,
    "DELETE /v1/billing/subscription": cancel_subscription,
    "POST /v1/billing/subscription/resume": http.acting(subscriptions.resume_subscription),
    "POST /v1/billing/subscription/pause": pause_subscription,
    "DELETE /v1/billing/subscription/pending-change": http.acting(subscriptions.take_back_change),
    "POST /v1/billing/checkout-session": create_checkout_session,
    "POST /v1/billing/portal-session": create_portal_session,
    "GET /v1/billing/invoices": list_invoices,
}
NEEDS = (config.database_url, config.bus_name, config.billing, config.app_base_url, config.cache)
handler = http.entrypoint(ROUTES, *NEEDS, public=[route for route in ROUTES if "/plans" in route])
