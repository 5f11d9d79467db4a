"""What a payment method costs: the sum of an order's fee, and the defaults."""

from decimal import Decimal

import pytest

from kyora import money
from kyora.accounting.fees import DEFAULTS, Fee


def fee(percent: str = "0", fixed: str = "0", *, enabled: bool = True) -> Fee:
    return Fee(enabled, Decimal(percent), Decimal(fixed))


@pytest.mark.parametrize(
    ("found", "total", "currency", "minor"),
    [
        (fee("0.029", "0.30"), "54.99", "USD", 189),  # 1.89471
        (fee("0.029", "0.30"), "0", "USD", 30),
        (fee("0.0005"), "10", "USD", 1),  # half a cent
        (fee("0.0005"), "9.99", "USD", 0),
        (fee("0.0275", "0.100"), "10.500", "KWD", 389),  # 0.38875
        (fee("0.03", "100"), "5000", "KRW", 250),
        (fee("0.029", "0.30", enabled=False), "54.99", "USD", 0),
        (Fee(enabled=True), "54.99", "USD", 0),
        (fee("0.000001", "99999999999"), "999999999999999.999999", "CLF", 1_009_999_999_990_000),
    ],
)
def test_a_fee_is_a_share_of_the_total_and_a_fixed_sum_rounded_once(
    found: Fee, total: str, currency: str, minor: int
) -> None:
    assert found.of(Decimal(total), currency) == minor


def test_a_currency_that_is_none_is_refused() -> None:
    with pytest.raises(money.UnknownCurrency):
        fee("0.1").of(Decimal(1), "XXX")
    assert fee("0.1", enabled=False).of(Decimal(1), "XXX") == 0


def test_until_a_business_enters_its_terms_cash_is_free_and_the_others_are_off() -> None:
    assert dict(DEFAULTS) == {
        "cash_on_delivery": fee(),
        "bank_transfer": fee(),
        "credit_card": fee(enabled=False),
        "tamara": fee(enabled=False),
        "tabby": fee(enabled=False),
        "paypal": fee(enabled=False),
    }
