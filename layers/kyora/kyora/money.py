"""Money: whole minor units and an ISO 4217 code inside, decimals as text outside.

The number of decimals is ISO's. Stripe counts a few currencies otherwise, so its amounts have
functions of their own.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Context, Decimal

# Digits: fifteen before the point of a total, six after it, and those of its factor.
_EXACT = Context(prec=64, rounding=ROUND_HALF_UP)
_BY_DECIMALS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP"
        " BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD"
        " FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD"
        " KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD"
        " NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP"
        " SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED"
        " VES WST XCD XCG YER ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
DECIMALS: Mapping[str, int] = {
    code: decimals for decimals, codes in _BY_DECIMALS.items() for code in codes.split()
}

# Stripe's, where they are not two: ISK and UGX, which have no minor unit in ISO 4217, are
# hundredths there, MGA is whole. Source: https://docs.stripe.com/currencies
_STRIPES = {
    0: "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
}
_AT_STRIPE: Mapping[str, int] = {
    code: decimals for decimals, codes in _STRIPES.items() for code in codes.split()
}


class UnknownCurrency(ValueError):
    """The code is not one of ISO 4217."""


def decimals(currency: str) -> int:
    """Return how many decimals a currency has. Raises UnknownCurrency."""
    if currency not in DECIMALS:
        raise UnknownCurrency(currency)
    return DECIMALS[currency]


def to_minor(amount: Decimal, currency: str) -> int:
    """Return an amount in whole minor units, rounded half away from zero.

    Raises UnknownCurrency.
    """
    scaled = amount.scaleb(decimals(currency), _EXACT)
    return int(scaled.to_integral_value(ROUND_HALF_UP, _EXACT))


def to_text(minor: int, currency: str) -> str:
    """Return minor units as a decimal: `5499` of USD is `54.99`. Raises UnknownCurrency."""
    return f"{Decimal(minor).scaleb(-decimals(currency), _EXACT):f}"


def decimals_at_stripe(currency: str) -> int:
    """Return how many decimals Stripe's amounts of a currency have, also of one we do not know."""
    return _AT_STRIPE.get(currency, 2)


def stripe_text(amount: int, currency: str) -> str:
    """Return an amount as Stripe counts it as a decimal: `5499` of ISK is `54.99`."""
    return f"{Decimal(amount).scaleb(-decimals_at_stripe(currency), _EXACT):f}"


def multiply_add(amount: Decimal, factor: Decimal, fixed: Decimal) -> Decimal:
    """Return `amount * factor + fixed`, exact."""
    return _EXACT.fma(amount, factor, fixed)
