"""OrderPaymentSucceeded, through SQS: record what the payment costs the business, once per order.

A newer event of the order corrects the fee; an older one changes nothing. Emits nothing.
"""

from typing import Any

from kyora import config
from kyora.accounting.record import record
from kyora.bus.consume import consume
from kyora.observability import invoked


@invoked
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    config.require(config.database_url)
    return consume(event, record)
