"""The names of all events and the domain that emits each, for code that only emits or routes.

No models and no pydantic: a function that emits one event does not import the others' models.
`kyora.bus.events` describes their data.
"""

from collections.abc import Mapping

# Name (EventBridge's detail-type) → the domain that emits it (its source is `kyora.<domain>`).
DOMAINS: Mapping[str, str] = {
    "EmailVerificationRequested": "accounts",
    "PasswordResetRequested": "accounts",
    "UserWelcomed": "accounts",
    "WorkspaceInvitationCreated": "accounts",
    "SubscriptionActivated": "billing",
    "SubscriptionChanged": "billing",
    "SubscriptionCancelled": "billing",
    "PaymentSucceeded": "billing",
    "PaymentFailed": "billing",
    "TrialEnding": "billing",
    "PaymentRecovered": "billing",
    "GraceEnding": "billing",
    "PaymentMethodExpiring": "billing",
    "RenewalUpcoming": "billing",
    "SubscriptionPaused": "billing",
    "SubscriptionResumed": "billing",
    "PlansSynced": "billing",
    "AssetReady": "assets",
    "AssetRejected": "assets",
    "AssetDeleted": "assets",
    "AssetVariantsReady": "assets",
    "AssetVariantsFailed": "assets",
    "AssetQuarantined": "assets",
    "OrderPaymentSucceeded": "orders",
    "OrderCreated": "orders",
    "CustomerCreated": "customers",
}

# Their data holds a token: these events stay out of the archive, and the token out of every log.
SENSITIVE = frozenset(
    {"EmailVerificationRequested", "PasswordResetRequested", "WorkspaceInvitationCreated"}
)
