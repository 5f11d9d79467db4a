"""Which events there are and whose they are, for whoever only writes or routes them.

No models and no pydantic: a function that emits one event imports nothing for the other sixteen.
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
    "OrderPaymentSucceeded": "orders",
    "OrderCreated": "orders",
    "CustomerCreated": "customers",
}

# Their data holds a token: they stay out of the archive, and the token out of every log.
SENSITIVE = frozenset(
    {"EmailVerificationRequested", "PasswordResetRequested", "WorkspaceInvitationCreated"}
)
