"""OrderPaymentSucceeded, through SQS: what the payment costs the business, once per order.

A later event of the order corrects the fee, an older one changes nothing. Emits nothing.
"""

from typing import Any

from kyora import bus, config
from kyora.accounting.record import record


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    config.settings("database")
    return bus.consume(event, record)
