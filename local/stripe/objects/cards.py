"""Stripe's test cards: what each does when it is attached and when it is charged.

Numbers are recognised and not stored; a payment method keeps only the card's name.
"""

from dataclasses import dataclass

from local.stripe.core.errors import Refusal


@dataclass(frozen=True)
class Card:
    """A test card. `decline` is its (code, decline_code); `challenge` says when it asks for 3DS."""

    name: str
    number: str
    brand: str = "visa"
    decline: tuple[str, str] | None = None
    challenge: str = ""  # "", "once" (not again once authenticated) or "always"
    attaches: bool = True
    hint: str = ""


_DECLINED = ("card_declined", "generic_decline")
CARDS = (
    Card("visa", "4242424242424242", hint="succeeds"),
    Card("visa_debit", "4000056655665556"),
    Card("mastercard", "5555555555554444", brand="mastercard"),
    Card("amex", "378282246310005", brand="amex"),
    Card("chargeDeclined", "4000000000000002", decline=_DECLINED, attaches=False, hint="declined"),
    Card(
        "chargeDeclinedInsufficientFunds",
        "4000000000009995",
        decline=("card_declined", "insufficient_funds"),
        attaches=False,
        hint="insufficient funds",
    ),
    Card("chargeDeclinedLostCard", "4000000000009987", decline=("card_declined", "lost_card")),
    Card("chargeDeclinedStolenCard", "4000000000009979", decline=("card_declined", "stolen_card")),
    Card(
        "chargeDeclinedExpiredCard",
        "4000000000000069",
        decline=("expired_card", "expired_card"),
        attaches=False,
    ),
    Card(
        "chargeDeclinedIncorrectCvc",
        "4000000000000127",
        decline=("incorrect_cvc", "incorrect_cvc"),
        attaches=False,
    ),
    Card(
        "chargeDeclinedProcessingError",
        "4000000000000119",
        decline=("processing_error", "processing_error"),
        attaches=False,
    ),
    Card(
        "chargeCustomerFail", "4000000000000341", decline=_DECLINED, hint="is saved, then declined"
    ),
    Card(
        "authenticationRequiredOnSetup",
        "4000002500003155",
        challenge="once",
        hint="asks for 3D Secure",
    ),
    Card("authenticationRequired", "4000002760003184", challenge="always"),
    Card("threeDSecureRequired", "4000000000003063", challenge="always"),
    Card("threeDSecure2Required", "4000000000003220", challenge="always"),
    Card(
        "threeDSecureRequiredChargeDeclined",
        "4000008400001629",
        decline=_DECLINED,
        challenge="always",
    ),
)
_BY_NAME = {card.name: card for card in CARDS}
_BY_NUMBER = {card.number: card for card in CARDS}

MESSAGES = {
    "generic_decline": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "lost_card": "Your card was declined.",
    "stolen_card": "Your card was declined.",
    "expired_card": "Your card has expired.",
    "incorrect_cvc": "Your card's security code is incorrect.",
    "processing_error": "An error occurred while processing your card. Try again in a little bit.",
    "authentication_required": (
        "Your card was declined. This transaction requires authentication."
    ),
}


def named(name: str) -> Card:
    """Return the card a payment method remembers."""
    return _BY_NAME[name]


def by_token(token: str) -> Card | None:
    """Return the card of a test id such as pm_card_visa, or tok_visa."""
    name = token.removeprefix("pm_card_").removeprefix("tok_")
    # pm_card_visa_chargeDeclined is the older name of pm_card_chargeDeclined.
    return _BY_NAME.get(name) or _BY_NAME.get(name.removeprefix("visa_"))


def by_number(number: str) -> Card:
    """Return the card of a number; any number that is no test card is refused."""
    digits = number.replace(" ", "").replace("-", "")
    if card := _BY_NUMBER.get(digits):
        return card
    if not 12 <= len(digits) <= 19 or not digits.isdecimal() or not _luhn(digits):
        raise declined("incorrect_number", None, "Your card number is incorrect.", param="number")
    raise declined(
        "card_declined",
        "test_mode_live_card",
        "Your card was declined. Your request was in test mode, but used a non test card. "
        "For a list of valid test cards, visit: https://stripe.com/docs/testing.",
    )


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def refuse(card: Card) -> Refusal:
    """Return the refusal of a card that declines."""
    code, reason = card.decline or ("card_declined", "generic_decline")
    return declined(code, reason if code == "card_declined" else None, MESSAGES[reason])


def declined(code: str, reason: str | None, message: str, **more: object) -> Refusal:
    """Return a card's refusal: 402 card_error."""
    return Refusal(402, message, kind="card_error", code=code, decline_code=reason, **more)
