"""Minor units, checked against arithmetic on whole numbers and fractions."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyora import money

CURRENCIES = st.sampled_from(sorted(money.DECIMALS))
AMOUNTS = st.decimals(-(10**15), 10**15, allow_nan=False, allow_infinity=False, places=6)


@pytest.mark.parametrize(
    ("currency", "amount", "minor"),
    [
        ("USD", "54.99", 5499),
        ("USD", "0.005", 1),
        ("USD", "0.0049999", 0),
        ("USD", "1.015", 102),  # 101 with binary fractions
        ("USD", "2.675", 268),
        ("USD", "-0.005", -1),
        ("JPY", "500", 500),
        ("JPY", "0.5", 1),
        ("JPY", "1.49", 1),
        ("KRW", "1000.5", 1001),
        ("KWD", "1.2345", 1235),
        ("KWD", "1.2344", 1234),
        ("BHD", "0.0005", 1),
        ("CLF", "0.00005", 1),
        ("KWD", "999999999999999.999999", 1_000_000_000_000_000_000),
    ],
)
def test_half_a_minor_unit_counts_as_one(currency: str, amount: str, minor: int) -> None:
    assert money.to_minor(Decimal(amount), currency) == minor


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (5499, "USD", "54.99"),
        (5, "USD", "0.05"),
        (0, "USD", "0.00"),
        (-5, "USD", "-0.05"),
        (500, "JPY", "500"),
        (0, "JPY", "0"),
        (1250, "KWD", "1.250"),
        (1, "CLF", "0.0001"),
        (10**30, "USD", "1" + "0" * 28 + ".00"),
    ],
)
def test_minor_units_are_written_with_all_decimals(minor: int, currency: str, text: str) -> None:
    assert money.to_text(minor, currency) == text


@given(AMOUNTS, CURRENCIES)
def test_rounding_is_the_nearest_minor_unit_and_away_from_zero_in_the_middle(
    amount: Decimal, currency: str
) -> None:
    exact = Fraction(amount) * 10 ** money.DECIMALS[currency]
    found = money.to_minor(amount, currency)
    assert abs(found - exact) <= Fraction(1, 2)
    if abs(found - exact) == Fraction(1, 2):
        assert abs(found) > abs(exact)


@given(st.integers(-(10**24), 10**24), CURRENCIES)
def test_what_is_written_is_read_back(minor: int, currency: str) -> None:
    text = money.to_text(minor, currency)
    assert money.to_minor(Decimal(text), currency) == minor
    assert len(text.partition(".")[2]) == money.DECIMALS[currency]


@pytest.mark.parametrize("code", ["XXX", "usd", "", "US", "USDT", "BTC"])
def test_a_code_that_is_not_isos_is_refused(code: str) -> None:
    with pytest.raises(money.UnknownCurrency):
        money.decimals(code)


def test_the_table_has_the_currencies_without_and_with_three_decimals() -> None:
    by_decimals = {
        n: {code for code, decimals in money.DECIMALS.items() if decimals == n} for n in range(5)
    }
    assert by_decimals[0] >= {"JPY", "KRW", "VND", "CLP", "XAF", "XOF", "XPF", "ISK", "UGX"}
    assert len(by_decimals[0]) == 17
    assert by_decimals[1] == set()
    assert by_decimals[3] == {"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"}
    assert by_decimals[4] == {"CLF", "UYW"}
    assert {"USD", "EUR", "AED", "SAR", "EGP", "QAR", "MAD", "LBP"} <= by_decimals[2]


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (5499, "USD", "54.99"),
        (500, "JPY", "500"),
        (500, "ISK", "5.00"),
        (500, "UGX", "5.00"),
        (500, "MGA", "500"),
        (1250, "KWD", "1.250"),
        (-5, "EUR", "-0.05"),
        (5499, "STD", "54.99"),  # no longer ISO's
    ],
)
def test_stripes_amounts_have_its_decimals(amount: int, currency: str, text: str) -> None:
    assert money.stripe_text(amount, currency) == text


def test_stripe_counts_these_currencies_otherwise_than_iso() -> None:
    """Source: https://docs.stripe.com/currencies."""
    differ = {c for c, n in money.DECIMALS.items() if n != money.decimals_at_stripe(c)}
    assert differ == {"CLF", "ISK", "MGA", "UGX", "UYI", "UYW"}


def test_a_product_keeps_every_digit() -> None:
    total, percent = Decimal("999999999999999.999999"), Decimal("0.999999")
    found = money.multiply_add(total, percent, Decimal("0.000001"))
    assert Fraction(found) == Fraction(total) * Fraction(percent) + Fraction(1, 10**6)
