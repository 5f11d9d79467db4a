"""The features of a portal's configuration, with every field that Stripe shows."""

from typing import Any

from local.stripe.core.params import Params, mapping
from local.stripe.core.views import Object

_REASONS = (
    *("too_expensive", "missing_features", "switched_service", "unused", "customer_service"),
    *("too_complex", "low_quality", "other"),
)


def default_features() -> Object:
    """Return the features of an account's default configuration: all are on."""
    return features(
        {
            "customer_update": {"enabled": True, "allowed_updates": ["email", "name", "address"]},
            "invoice_history": {"enabled": True},
            "payment_method_update": {"enabled": True},
            "subscription_cancel": {"enabled": True},
            "subscription_update": {
                "enabled": True,
                "default_allowed_updates": ["price"],
                "products": "",  # every price that is offered
            },
        }
    )


def features(given: Params, before: Params | None = None) -> Object:
    """Return a configuration's features after a request; unnamed ones are off."""
    found = _nothing() if before is None else dict(before)
    for name, change in given.items():
        inside = mapping(change, f"features[{name}]") or {}
        found[name] = _merged(found[name], inside)
    return found


def _merged(before: Any, change: Params) -> Object:
    made: Object = dict(before)
    for name, value in change.items():
        inner = isinstance(value, dict) and isinstance(made.get(name), dict)
        if inner:
            made[name] = _merged(made[name], value)
        else:  # an empty text clears a list
            made[name] = [] if value == "" and isinstance(made.get(name), list) else value
    if isinstance(products := made.get("products"), list):
        quantity = {"enabled": False, "maximum": None, "minimum": 1}
        made["products"] = [{"adjustable_quantity": quantity} | product for product in products]
    return made


def _nothing() -> Object:
    return {
        "customer_update": {"allowed_updates": [], "enabled": False},
        "invoice_history": {"enabled": False},
        "payment_method_update": {"enabled": False, "payment_method_configuration": None},
        "subscription_cancel": {
            "cancellation_reason": {
                "enabled": False,
                "feedback_options": [],
                "options": list(_REASONS),
            },
            "enabled": False,
            "mode": "at_period_end",
            "proration_behavior": "none",
        },
        "subscription_pause": {
            "duration": {"interval_options": [], "type": "indefinite"},
            "enabled": False,
        },
        "subscription_update": {
            "billing_cycle_anchor": None,
            "default_allowed_updates": [],
            "enabled": False,
            "products": [],
            "proration_behavior": "none",
            "schedule_at_period_end": {"conditions": []},
            "trial_update_behavior": "end_trial",
        },
    }


def flow(given: Params | None) -> Object | None:
    """Return a session's `flow` for a deep link."""
    if given is None:
        return None
    after = mapping(given.get("after_completion"), "flow_data[after_completion]") or {}
    shown: Object = {
        "after_completion": {
            "hosted_confirmation": None,
            "redirect": None,
            "type": "portal_homepage",
        }
        | dict(after),
        "subscription_cancel": None,
        "subscription_update": None,
        "subscription_update_confirm": None,
    }
    return shown | dict(given) | {"after_completion": shown["after_completion"]}
