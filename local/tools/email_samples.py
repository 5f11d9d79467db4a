"""What the gallery and the tests fill the mails with: the least, the usual, too much, an attack."""

from typing import Any

from kyora.config import Email
from kyora.email.mails.catalogue import MAILS

SAMPLES = ("minimal", "typical", "long", "hostile")
SETTINGS = Email(
    provider="mock",
    from_email="hello@kyora.example",
    from_name="Kyora",
    support_email="support@kyora.example",
    app_base_url="https://app.kyora.example",
)
MESSAGE_ID = "eml_01kx5m7q2r8t4v6w9y0z3b5d7f"

# What an attacker would like to be called.
HOSTILE = (
    "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>",
    "Eve\r\nBcc: everyone@example.net\r\n\r\n<b>gift</b>",
    "\u202egnp.exe\u202c \u2066\u200f\u0000\ufeffadmin\u2069",
    "{{ 7*7 }}{% raw %} &lt;x&gt; javascript:alert(3) https://evil.example/prize www.evil.example",
    "🎁 WIN!!! 👩‍👩‍👧 Z̵̡̛͙̪̥̲͖̺̥̈́̈́a" + "لا" * 2500,
)

_NAMES = {
    "en": ("Dana Haddad", "Omar Nassar", "Cedar & Thread"),
    "ar": ("دانة حداد", "عمر نصّار", "أرز وخيط"),
}
_LONG = {
    "en": (
        "Maria-Alejandra Konstantinopoulou-Featherstonehaugh Abdelrahman van den Berg",
        "Wolfeschlegelsteinhausenbergerdorff",
        "The International Handmade Ceramics, Textiles & Fragrances Company of Alexandria",
    ),
    "ar": (
        "عبد الرحمن محمد عبد العزيز آل إبراهيم المعروف بأبي عبد الله الإسكندراني",
        "Wolfeschlegelsteinhausenbergerdorff",
        "الشركة الدولية للخزف والمنسوجات والعطور المصنوعة يدويًا في مدينة الإسكندرية",
    ),
}
_TOKEN = "Qx7vRk2m-9LzT4sYw1Nc8BpJ"  # noqa: S105  # no one's


def sample(template_id: str, locale: str, kind: str) -> dict[str, Any]:
    """Return the data of a mail, by the names of its template's variables."""
    token = _TOKEN * 20 if kind == "long" else _TOKEN
    if kind == "hostile":
        person, inviter, workspace = HOSTILE[0], HOSTILE[1], HOSTILE[3]
    elif kind == "minimal":
        person, inviter, workspace = "", "", ""
    else:
        person, inviter, workspace = (_LONG if kind == "long" else _NAMES)[locale]
    plan = {
        "minimal": "S",
        "typical": "Pro" if locale == "en" else "المحترفين",
        "long": "Professional Unlimited with Priority Support and Extended History (yearly)",
        "hostile": HOSTILE[4],
    }[kind]
    base = SETTINGS.app_base_url
    invoice = f"https://invoice.stripe.com/i/acct_1Kyora/{token}?s=ap"
    values: dict[str, Any] = {
        "name": person,
        "inviterName": inviter,
        "workspaceName": workspace,
        "planName": plan,
        "verificationLink": f"{base}/verify-email?token={token}",
        "resetLink": f"{base}/reset-password?token={token}",
        "invitationLink": f"{base}/accept-invitation?token={token}&locale={locale}",
        "retryLink": f"{base}/billing" if kind == "minimal" else invoice,
        "trialEnd": "2026-12-01T09:00:00Z",
        "accessUntil": "2026-11-24T07:36:00Z",
        "chargeAt": "2026-12-23T10:00:00Z",
        "renewsAt": "2026-11-30T10:00:00Z",
        "filename": "" if kind == "minimal" else f"{workspace}.zip",
        "expiry": "11/2026",
    }
    if kind != "minimal":
        values |= {
            "amount": 123_456_789 if kind == "long" else 2900,
            "currency": "KWD" if kind == "long" else "USD",
            "nextAttemptAt": "2026-11-27T08:30:00+03:00",
            "nextChargeAt": "2026-12-23T10:00:00Z",
            "resumeAt": "2027-02-01T00:00:00Z",
            "last4": "4242",
            "wasReady": True,
        }
    if template_id == "renewal_upcoming":
        values = {"amount": 99_000, "currency": "AED"} | values
    fields = MAILS[template_id].data.model_fields.values()
    return {f.alias: values[f.alias] for f in fields if f.alias in values}


def hostile_variants(template_id: str) -> list[dict[str, Any]]:
    """Return the data of a mail with each attack in each field that holds a user's words."""
    usual = sample(template_id, "en", "typical")
    words = [field for field in usual if field.lower().endswith("name")]
    return [usual | {field: attack} for field in words for attack in HOSTILE]
