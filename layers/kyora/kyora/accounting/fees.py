"""The fees of payment methods: the defaults, and the calculation."""

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from kyora import money

_NOTHING = Decimal(0)


class Fee(NamedTuple):
    """The fee of a payment method; `percent` is a fraction, `fixed` in the order's currency."""

    enabled: bool
    percent: Decimal = _NOTHING
    fixed: Decimal = _NOTHING

    def of(self, total: Decimal, currency: str) -> int:
        """Return the fee of an order in minor units, rounded once, half up; 0 while disabled.

        Raises money.UnknownCurrency.
        """
        exact = money.multiply_add(total, self.percent, self.fixed)
        return money.to_minor(exact, currency) if self.enabled else 0


# Until a business enters its own terms (a row of payment_method_fee), a method costs nothing, and
# the methods of a payment provider are off: their price depends on a contract.
DEFAULTS: Mapping[str, Fee] = {
    "cash_on_delivery": Fee(enabled=True),
    "bank_transfer": Fee(enabled=True),
    "credit_card": Fee(enabled=False),
    "tamara": Fee(enabled=False),
    "tabby": Fee(enabled=False),
    "paypal": Fee(enabled=False),
}
