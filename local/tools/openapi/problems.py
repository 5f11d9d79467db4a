"""Every refusal of the API: PROBLEMS, and which of them a kind of route can answer with."""

from dataclasses import dataclass, field
from typing import Any

from kyora import errors, http
from kyora.billing import stripe_client
from kyora.errors import KyoraError
from kyora.storage.local import PreconditionFailed

type Json = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """A refusal: the class that carries its status and title, and when a client meets it."""

    error: type[KyoraError]
    when: str
    members: Json = field(default_factory=dict)


PROBLEMS: dict[str, Problem] = {
    "request.invalid_json": Problem(http.BadJson, "The body is not JSON in UTF-8."),
    "auth.token_missing": Problem(errors.Unauthenticated, "There is no Authorization header."),
    "auth.token_invalid": Problem(
        errors.Unauthenticated,
        "The token is not one of ours: signature, issuer, audience or claims are wrong.",
    ),
    "auth.token_expired": Problem(
        errors.Unauthenticated,
        "The token has expired; 60 seconds of clock skew are allowed.",
    ),
    "auth.token_revoked": Problem(
        errors.Unauthenticated,
        "The user is gone, belongs to another workspace, or signed out everywhere.",
    ),
    "auth.forbidden": Problem(errors.Forbidden, "The user's role does not allow this."),
    "billing.limit_reached": Problem(
        errors.Forbidden,
        "The workspace's plan has no room for this. `limit`, `allowed` and `used` say which"
        " and how much.",
        {"limit": "maxStorageBytes", "allowed": 1073741824, "used": 1073700000},
    ),
    "billing.payment_required": Problem(
        errors.PaymentRequired,
        "A payment is required first: pass `clientSecret` to Stripe's form in the browser, or send"
        " the browser to `payUrl`, then repeat the request. The subscription or its change waits.",
        {
            "clientSecret": "pi_3S8mXq2eZvKYlo2C0aBcDeFg_secret_Y1Z2",
            "payUrl": "https://invoice.stripe.com/i/acct_1/test_YWNj",
        },
    ),
    "billing.cannot_pause": Problem(
        errors.Conflict,
        "Only a paid subscription that renews can be paused: not in a trial, not with an unpaid"
        " invoice, not once it is due to end.",
    ),
    "billing.card_declined": Problem(
        stripe_client.Declined,
        "The saved card was declined and nothing has changed; `declineCode` is Stripe's"
        " reason. Another card can be given in the portal.",
        {"declineCode": "insufficient_funds"},
    ),
    "billing.plan_not_found": Problem(
        errors.NotFound,
        "There is no such plan, or it is not offered any more.",
    ),
    "billing.stripe_missing": Problem(
        stripe_client.Missing,
        "Stripe knows neither the object nor our prices: the key may belong to another account."
        " An object that alone is missing there is replaced silently.",
    ),
    "request.not_found": Problem(errors.NotFound, "Nothing is served at this address."),
    "asset.not_found": Problem(
        errors.NotFound,
        "There is no such asset. An asset of another workspace answers the same.",
    ),
    "business.not_found": Problem(
        errors.NotFound,
        "There is no such business. A business of another workspace answers the same.",
    ),
    "request.method_not_allowed": Problem(
        errors.MethodNotAllowed,
        "The address exists, the method does not; `Allow` lists those that do.",
    ),
    "idempotency.in_progress": Problem(
        errors.Conflict,
        "A request with this Idempotency-Key is still running. Send it again after `Retry-After`.",
    ),
    "billing.downgrade_blocked": Problem(
        errors.Conflict,
        "The workspace has more than the plan allows; `over` names each limit. Remove some first.",
        {"over": [{"limit": "maxBusinesses", "allowed": 3, "used": 4}]},
    ),
    "billing.already_subscribed": Problem(
        errors.Conflict,
        "The workspace pays for a subscription already. Change its plan instead.",
    ),
    "billing.no_subscription": Problem(
        errors.Conflict,
        "There is no subscription that could be kept.",
    ),
    "billing.in_progress": Problem(
        errors.Conflict,
        "The workspace's subscription is being changed by another request. Try again after"
        " `Retry-After`.",
    ),
    "billing.stripe_refused": Problem(
        stripe_client.Refused,
        "Stripe does not allow this in the subscription's current state. Read it again.",
    ),
    "asset.not_uploaded": Problem(
        errors.Conflict,
        "The file is not in the store yet. PUT it, then confirm again.",
    ),
    "asset.not_pending": Problem(
        errors.Conflict,
        "Only an upload that waits for its bytes gets a fresh URL; `assetStatus` says what this "
        "one is.",
        {"assetStatus": "ready"},
    ),
    "asset.is_multipart": Problem(
        errors.Conflict,
        "This asset is uploaded in parts: sign them at `…/multipart/parts`.",
    ),
    "asset.not_multipart": Problem(
        errors.Conflict,
        "This asset is uploaded by one PUT, not in parts.",
    ),
    "asset.upload_completed": Problem(
        errors.Conflict,
        "The parts are one object already. Confirm it.",
    ),
    "asset.parts_missing": Problem(
        errors.Conflict,
        "Parts of the plan have not arrived, or are not named; `missing` lists the numbers of up "
        "to a hundred.",
        {"missing": [2, 3]},
    ),
    "asset.part_changed": Problem(
        errors.Conflict,
        "The ETags of `parts` are not those of the uploaded parts. List the parts, and send these "
        "again.",
        {"parts": [2]},
    ),
    "asset.expired": Problem(
        errors.Gone,
        "The upload was not confirmed in time. Ask for a new one.",
    ),
    "request.body_too_large": Problem(
        errors.TooLarge,
        "The body has more than 1 MiB. File bytes go to `uploadUrl`, never through the API.",
    ),
    "asset.too_large": Problem(
        errors.TooLarge,
        "Files of this kind have at most `maxBytes` bytes.",
        {
            "errors": [{"field": "size", "message": "must be at most 10485760"}],
            "maxBytes": 10485760,
        },
    ),
    "asset.type_not_allowed": Problem(
        errors.UnsupportedType,
        "The extension is not accepted, or the content type is not the one of this extension.",
        {"errors": [{"field": "contentType", "message": "must be image/png"}]},
    ),
    "request.validation_failed": Problem(
        errors.Invalid,
        "Fields are missing, wrong or unknown; `errors` names each.",
        {"errors": [{"field": "size", "message": "Input should be greater than or equal to 0"}]},
    ),
    "idempotency.key_reused": Problem(
        errors.Invalid,
        "This Idempotency-Key was used with another body within 24 hours.",
    ),
    "asset.rejected": Problem(
        errors.Invalid,
        "The bytes are not what was announced; `reason` says what differs. The asset stays "
        "rejected.",
        {"reason": "type_mismatch", "detectedType": "image/avif"},
    ),
    "asset.too_many_pending": Problem(
        errors.TooMany,
        "500 uploads of the workspace wait for their bytes. Confirm or delete some.",
    ),
    "asset.too_many_attempts": Problem(
        errors.TooMany,
        "This upload was confirmed too often or too fast. Try again after `Retry-After`.",
    ),
    "asset.daily_limit_reached": Problem(
        errors.TooMany,
        "The workspace has reached a limit of the day (UTC): 20,000 files, and twice the storage "
        "of its plan but at least 1 GiB; `limit` says which. `Retry-After` is the time until the "
        "next day.",
        {"limit": "files", "allowed": 20000, "used": 20000},
    ),
    "service.throttled": Problem(
        errors.TooMany,
        "More requests than the API accepts. The local stack gives API Gateway's bare answer"
        " this code, as an edge in front of it on AWS could.",
    ),
    "internal.error": Problem(
        KyoraError,
        "A bug. The log line with this X-Request-Id has the details.",
    ),
    "config.invalid": Problem(
        errors.ConfigError,
        "The deployment is not configured. The log names every variable at fault.",
    ),
    "database.unavailable": Problem(
        errors.Unavailable,
        "The database cannot be reached. Nothing was half-written; try again after `Retry-After`.",
    ),
    "auth.keys_unavailable": Problem(
        errors.Unavailable,
        "The issuer's signing keys cannot be fetched. Try again after `Retry-After`.",
    ),
    "storage.unavailable": Problem(
        errors.Unavailable,
        "The file store does not answer. Try again after `Retry-After`.",
    ),
    "billing.stripe_unavailable": Problem(
        errors.Unavailable,
        "Stripe does not answer, or refuses for now. Try again after `Retry-After`: what was done"
        " is looked up first, and not done twice.",
    ),
    "billing.busy": Problem(
        errors.Unavailable,
        "Too many requests for this customer at once. Try again after `Retry-After`.",
    ),
    "service.unavailable": Problem(
        errors.Unavailable,
        "A service behind this one does not answer. Try again after `Retry-After`.",
    ),
}
# The `local` storage provider's own answers to PUT and GET on a signed URL; never on AWS.
STORE_PROBLEMS: dict[str, Problem] = {
    "storage.signature_invalid": Problem(
        errors.Forbidden,
        "Key, method, type, length or checksum differ from what was signed.",
    ),
    "storage.url_expired": Problem(errors.Forbidden, "The signed URL is too old."),
    "storage.not_found": Problem(errors.NotFound, "There is no such file."),
    "storage.no_upload": Problem(
        errors.NotFound,
        "The upload of this part is completed or was given up.",
    ),
    "storage.exists": Problem(
        PreconditionFailed,
        "There is a file already; a signed URL writes once.",
    ),
    "storage.length_mismatch": Problem(
        errors.Invalid,
        "The body is shorter or longer than was signed.",
    ),
    "storage.bad_digest": Problem(
        errors.Invalid,
        "The bytes do not have the SHA-256 that was signed.",
    ),
}

SECURED = (
    "auth.token_missing",
    "auth.token_invalid",
    "auth.token_expired",
    "auth.token_revoked",
    "auth.keys_unavailable",
)
ALWAYS = (
    "request.body_too_large",
    "service.throttled",
    "internal.error",
    "config.invalid",
    "database.unavailable",
    "service.unavailable",
)
CREATES = (
    "request.invalid_json",
    "request.validation_failed",
    "idempotency.in_progress",
    "idempotency.key_reused",
)
ADMIN = ("auth.forbidden",)
CONFIRM = (
    "asset.not_found",
    "asset.not_uploaded",
    "asset.expired",
    "asset.rejected",
    "asset.too_many_attempts",
    "billing.limit_reached",
    "storage.unavailable",
)
# What any request to Stripe can come to.
STRIPE = (
    *("billing.in_progress", "billing.stripe_missing", "billing.stripe_refused"),
    *("billing.stripe_unavailable", "billing.busy"),
)
PAYS = (
    *("billing.plan_not_found", "billing.downgrade_blocked"),
    *("billing.payment_required", "billing.card_declined"),
)
OF_BILLING = {
    *(*STRIPE, *PAYS, "billing.already_subscribed", "billing.no_subscription"),
    "billing.cannot_pause",
}
