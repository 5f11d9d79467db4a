"""The account that everything belongs to."""

from local.stripe.core.params import Params
from local.stripe.core.routes import get
from local.stripe.core.state import State
from local.stripe.core.views import Object


def show(state: State, params: Params) -> Object:
    """GET /v1/account."""
    return {
        "id": "acct_1StandIn0000000",
        "object": "account",
        "business_type": None,
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "email": "stand-in@example.com",
        "payouts_enabled": True,
        "settings": {
            "branding": {
                "icon": None,
                "logo": None,
                "primary_color": None,
                "secondary_color": None,
            },
            "card_payments": {
                "decline_on": {"avs_failure": False, "cvc_failure": False},
                "statement_descriptor_prefix": None,
            },
            "dashboard": {"display_name": "Kyora (stand-in)", "timezone": "Etc/UTC"},
            "payments": {"statement_descriptor": None},
        },
        "type": "standard",
    }


ROUTES = (get("/v1/account", show),)
