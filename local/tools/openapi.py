"""The OpenAPI 3.1 document, made from the code: `make openapi`, or `--check` whether it is current.

Paths, parameters and schemas come from the functions' own routes and models. What types cannot
say stands here once: PROBLEMS is every refusal, OPERATIONS what each route answers with. A test
compares both with the code.
"""

import argparse
import difflib
import importlib.util
import json
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.json_schema import models_json_schema

from kyora import __version__, errors, http
from kyora.billing import stripe_api
from kyora.errors import KyoraError
from kyora.storage.local import PreconditionFailed

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "local" / "web" / "static" / "openapi.json"
_REF = "#/components/schemas/"

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
        "The token's time is over; 60 seconds of clock skew are forgiven.",
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
        "A payment has to be made first: give `clientSecret` to Stripe's form in the browser, or"
        " send the browser to `payUrl`, then ask again. The subscription, or its change, waits.",
        {
            "clientSecret": "pi_3S8mXq2eZvKYlo2C0aBcDeFg_secret_Y1Z2",
            "payUrl": "https://invoice.stripe.com/i/acct_1/test_YWNj",
        },
    ),
    "billing.cannot_pause": Problem(
        errors.Conflict,
        "Only a subscription that is paid for and goes on can be paused: no trial, nothing owed, no"
        " end ahead.",
    ),
    "billing.card_declined": Problem(
        stripe_api.Declined,
        "The saved card was declined and nothing has changed; `declineCode` is Stripe's word for"
        " why. Another card can be given in the portal.",
        {"declineCode": "insufficient_funds"},
    ),
    "billing.plan_not_found": Problem(
        errors.NotFound,
        "There is no such plan, or it is not offered any more.",
    ),
    "billing.stripe_missing": Problem(
        stripe_api.Missing,
        "Stripe knows neither what is asked for nor our prices: its key may be another account's."
        " What is only gone there is replaced, without a word.",
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
        "The workspace's subscription is being changed by another request. Come back after"
        " `Retry-After`.",
    ),
    "billing.stripe_refused": Problem(
        stripe_api.Refused,
        "Stripe does not do this with the subscription as it is. Read it again.",
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
        "This upload was confirmed too often or too fast. Come back after `Retry-After`.",
    ),
    "asset.daily_limit_reached": Problem(
        errors.TooMany,
        "The workspace has asked for all that it may on one day (UTC): 20,000 files, and twice the "
        "storage of its plan but at least 1 GiB; `limit` says which. `Retry-After` leads to the "
        "next day.",
        {"limit": "files", "allowed": 20000, "used": 20000},
    ),
    "service.throttled": Problem(
        errors.TooMany,
        "More requests than the API takes. The local stack gives API Gateway's bare answer"
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
        "Stripe does not answer, or not now. Ask again after `Retry-After`: what was done is found"
        " out first and not done twice.",
    ),
    "billing.busy": Problem(
        errors.Unavailable,
        "Too much happens to this customer at once. Ask again after `Retry-After`.",
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

_SECURED = (
    "auth.token_missing",
    "auth.token_invalid",
    "auth.token_expired",
    "auth.token_revoked",
    "auth.keys_unavailable",
)
_ALWAYS = (
    "request.body_too_large",
    "service.throttled",
    "internal.error",
    "config.invalid",
    "database.unavailable",
    "service.unavailable",
)
_CREATES = (
    "request.invalid_json",
    "request.validation_failed",
    "idempotency.in_progress",
    "idempotency.key_reused",
)
_ADMIN = ("auth.forbidden",)
_CONFIRM = (
    "asset.not_found",
    "asset.not_uploaded",
    "asset.expired",
    "asset.rejected",
    "asset.too_many_attempts",
    "billing.limit_reached",
    "storage.unavailable",
)
# What any request to Stripe can come to.
_STRIPE = (
    *("billing.in_progress", "billing.stripe_missing", "billing.stripe_refused"),
    *("billing.stripe_unavailable", "billing.busy"),
)
_PAYS = (
    *("billing.plan_not_found", "billing.downgrade_blocked"),
    *("billing.payment_required", "billing.card_declined"),
)
_OF_BILLING = {
    *(*_STRIPE, *_PAYS, "billing.already_subscribed", "billing.no_subscription"),
    "billing.cannot_pause",
}
# What API Gateway answers by itself, without a function: never problem+json on AWS.
_GATEWAY = {401: "Unauthorized", 429: "Too Many Requests", 500: "Internal Server Error",
            503: "Service Unavailable"}  # fmt: skip
# Statuses whose answers say when to come back, always or in some cases.
_RETRY = {202, 409, 429, 503}
_LOCATION = {201}


@dataclass(frozen=True)
class Operation:
    """What the types of a route do not say."""

    tag: str
    summary: str
    description: str
    answers: Mapping[int, str]
    codes: tuple[str, ...] = ()
    public: bool = False
    request: Json | None = None
    example: Json | None = None
    links: tuple[str, ...] = ()  # operations that take the assetId of the answer
    query: tuple[str, ...] = ()  # its query parameters


_SHA256 = "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="
_ASSET_ID = "ast_01ka2v7mzq3f8t5y0r9dxw6hcb"
_FILE = {"filename": "mug.png", "contentType": "image/png", "size": 48213, "sha256": _SHA256}
_TICKET = {
    "assetId": _ASSET_ID,
    "uploadUrl": "https://example-bucket.s3.eu-west-1.amazonaws.com/incoming/ws_demo/"
    f"{_ASSET_ID}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=…",
    "method": "PUT",
    "headers": {
        "Content-Type": "image/png",
        "If-None-Match": "*",
        "x-amz-checksum-sha256": _SHA256,
    },
    "expiresAt": "2026-11-23T10:10:00Z",
}
_ASSET = {
    "assetId": _ASSET_ID,
    "status": "ready",
    "filename": "mug.png",
    "contentType": "image/png",
    "size": 48213,
    "sha256": _SHA256,
    "width": 800,
    "height": 600,
    "createdAt": "2026-11-23T10:00:00Z",
    "downloadUrl": "https://example-bucket.s3.eu-west-1.amazonaws.com/assets/ws_demo/"
    f"{_ASSET_ID}/try_01ka2v8c4n0s7g2e5j1k3m6p9q?X-Amz-Signature=…",
}
_VERIFYING = {k: v for k, v in _ASSET.items() if k not in ("width", "height", "downloadUrl")}
_VERIFYING["status"] = "verifying"

_PLAN = {
    "id": "professional",
    "name": "Professional",
    "description": "For a growing shop.",
    "stripeProductId": "prod_TK3vX2mQ8sYw1a",
    "stripePriceId": "price_1S8mXq2eZvKYlo2CrT5uVw0x",
    "amount": 9900,
    "currency": "AED",
    "interval": "month",
    "intervalCount": 1,
    "features": {"prioritySupport": "true"},
    "limits": {
        "maxBusinesses": 3,
        "maxTeamMembers": 9,
        "maxOrdersPerMonth": 500,
        "maxStorageBytes": 10737418240,
    },
    "active": True,
}
_PRICE = {
    "amount": 9900,
    "currency": "AED",
    "interval": "month",
    "intervalCount": 1,
    "quantity": 1,
}
_SUBSCRIPTION = {
    "status": "active",
    "access": "full",
    "plan": _PLAN,
    "price": _PRICE,
    "currentPeriodEnd": "2026-12-23T10:00:00Z",
    "nextCharge": {"amount": 9900, "currency": "AED", "at": "2026-12-23T10:00:00Z"},
    "limits": _PLAN["limits"],
    "usage": {"maxBusinesses": 1, "maxTeamMembers": 2, "maxStorageBytes": 48213},
    "overLimit": [],
    "paymentMethod": {
        "type": "card",
        "brand": "visa",
        "last4": "4242",
        "expMonth": 12,
        "expYear": 2034,
    },
}
_PAGE = {"url": "https://checkout.stripe.com/c/pay/cs_test_a1B2c3D4"}

# In the order a client meets them; the document keeps it.
OPERATIONS: dict[str, Operation] = {
    "request_upload": Operation(
        "Uploads",
        "Ask for an upload",
        "Reserves storage for one file and answers where to PUT it. The URL writes exactly this "
        "file once: its type, its length, its checksum when `sha256` is given, and nothing over "
        "an object that is there. It is valid for ten minutes, and the storage is reserved for "
        "five more.\n\n"
        "PUT the bytes to `uploadUrl` with every header of `headers` exactly as given, then "
        "confirm. A repeat with the same Idempotency-Key answers with a URL that works: a fresh "
        "one for the same asset when the first is about to end, a new asset when the first was "
        "rejected, has expired or is deleted.",
        {200: "Where to PUT the file."},
        (
            *_CREATES,
            "billing.limit_reached",
            "asset.too_large",
            "asset.type_not_allowed",
            "asset.too_many_pending",
            "asset.daily_limit_reached",
        ),
        request=_FILE | {"purpose": "product_photo"},
        example=_TICKET,
        links=("confirm_upload", "renew_upload_url", "get_asset", "delete_asset"),
    ),
    "request_uploads": Operation(
        "Uploads",
        "Ask for several uploads",
        "Does the same for up to 50 files. Each file is judged by itself: a refused one has "
        "`error`, the problem it would have got alone, in its place, and the others have their "
        "tickets.",
        {200: "An answer for each file, in the order of the request."},
        _CREATES,
        request={
            "files": [_FILE, {"filename": "logo.svg", "contentType": "image/svg+xml", "size": 900}]
        },
        example={
            "uploads": [
                _TICKET,
                {
                    "error": {
                        "type": "urn:kyora:problem:asset.type_not_allowed",
                        "title": "Type not accepted",
                        "status": 415,
                        "detail": "Files of this kind are not accepted.",
                        "code": "asset.type_not_allowed",
                        "errors": [
                            {"field": "filename", "message": "this extension is not accepted"}
                        ],
                    }
                },
            ]
        },
    ),
    "renew_upload_url": Operation(
        "Uploads",
        "Ask for a fresh URL",
        "Answers with another URL for a pending upload: the first has ended, or was lost. Its "
        "times begin again, up to a day after the upload was asked for. A PUT that answers 412 "
        "means that the bytes are there already: confirm.",
        {200: "Where to PUT the file, as at first."},
        ("asset.not_found", "asset.not_pending", "asset.expired", "billing.limit_reached"),
        example=_TICKET,
    ),
    "confirm_upload": Operation(
        "Uploads",
        "Confirm an upload",
        "Copies the uploaded bytes to where no client can write, reads them once (length, SHA-256, "
        "real type, image size) and makes the asset `ready`. Safe to repeat: every repeat has the "
        "same answer, and an asset becomes ready once.\n\n"
        "202 means that another request verifies it right now; ask again after `Retry-After`. A "
        "client that never confirms loses nothing: a minute later the store's own event does it."
        "\n\n"
        "A file whose PUT took longer than its reservation is accepted while the plan has room; "
        "else 403 `billing.limit_reached`, and again after something was deleted.",
        {200: "The asset is ready.", 202: "Being verified by another request at this moment."},
        _CONFIRM,
        example=_ASSET,
    ),
    "get_asset": Operation(
        "Assets",
        "Read an asset",
        "The asset in any state. A `ready` one has `downloadUrl`, which is valid for ten to twenty "
        "minutes, downloads as an attachment and stays the same for ten minutes, so caches work.",
        {200: "The asset."},
        ("asset.not_found",),
        example=_ASSET,
    ),
    "delete_asset": Operation(
        "Assets",
        "Delete an asset",
        "Deletes the asset in any state, its file included, and gives its storage back.",
        {204: "Deleted."},
        ("asset.not_found",),
    ),
    "summarise_analytics": Operation(
        "Analytics",
        "Read a business's days",
        "Orders, revenue and new customers of a business, one entry for each day from `from` to "
        "`to`, both included, at most 366. A day is UTC's, and an event counts on the day it "
        "happened, however late it arrived. A day without events is there with zeros.",
        {200: "The days, the first one first."},
        ("request.validation_failed", "business.not_found"),
        example={
            "days": [
                {"date": "2026-11-22", "orders": 0, "revenue": {}, "customers": {}},
                {
                    "date": "2026-11-23",
                    "orders": 3,
                    "revenue": {"JPY": "1200", "USD": "109.98"},
                    "customers": {"instagram": 2, "unknown": 1},
                },
            ]
        },
        query=("businessId", "from", "to"),
    ),
    "list_plans": Operation(
        "Billing",
        "What can be subscribed to",
        "Every plan that is offered, the cheapest first. `amount` is in minor units of the "
        "currency; a limit of -1 is none. No token needed.",
        {200: "The plans."},
        public=True,
        example={"items": [_PLAN]},
    ),
    "get_plan": Operation(
        "Billing",
        "Read a plan",
        "A plan, also one that is not offered any more (`active` is false): its subscribers keep "
        "it. No token needed.",
        {200: "The plan."},
        ("billing.plan_not_found",),
        public=True,
        example=_PLAN,
    ),
    "get_subscription": Operation(
        "Billing",
        "What the workspace is on",
        "Plan, limits and usage of the workspace. One that never paid is on the free plan, with "
        "`status` `free`. `access` is `full`, `grace` while a failed payment can still be made up "
        "(until `accessUntil`), or `free`. `price` is what is paid for one unit, `nextCharge` what "
        "is charged next, after the credit there is. `pendingChange` is what the workspace is on "
        "from its date, `payUrl` Stripe's page of what is owed. `overLimit` names the limits that "
        "are exceeded: what is there stays, nothing is added.",
        {200: "The subscription."},
        example=_SUBSCRIPTION,
    ),
    "change_subscription": Operation(
        "Billing",
        "Choose a plan",
        "Begins a subscription or changes the plan of the one that is there; a scheduled end is "
        "taken back. A better plan begins now, and its share of the period is charged at once. A "
        "smaller one begins with the next period and is shown as `pendingChange`. `when` says "
        "otherwise: a smaller plan `now` leaves a credit. The current plan takes back what is "
        "planned, and resumes.\n\n"
        "A saved card pays. Without one, or when its owner has to be asked, the answer is 402 with "
        "a `clientSecret` for Stripe's form in the browser and the `payUrl` of Stripe's page; ask "
        "again when the payment is made. What is owed is paid before anything changes now. No card "
        "number ever comes here.\n\n"
        "A plan that what is there does not fit is refused and names what is over, also for the "
        "renewal. With `?preview=true` nothing is changed, and `preview` says what would be paid.",
        {200: "The subscription as it is now."},
        (*_CREATES, *_ADMIN, *_STRIPE, *_PAYS),
        request={"planId": "professional"},
        example=_SUBSCRIPTION,
        query=("preview",),
    ),
    "cancel_subscription": Operation(
        "Billing",
        "End the subscription",
        "Ends it with the period that is paid for, or at once with `?when=now`: the unused rest "
        "is then a credit for the next subscription. The free plan applies afterwards. Of two ends "
        "the earlier counts. Safe to repeat; without a subscription nothing happens.",
        {200: "The subscription as it is now."},
        (*_ADMIN, *_STRIPE, "request.validation_failed"),
        example=_SUBSCRIPTION | {"cancelAt": "2026-12-23T10:00:00Z"},
        query=("when",),
    ),
    "resume_subscription": Operation(
        "Billing",
        "Keep the subscription",
        "Takes a scheduled end back, whoever scheduled it, and goes on with a paused subscription: "
        "a new period begins and is charged. 402 says how to pay that, or what is owed. Safe to "
        "repeat.",
        {200: "The subscription as it is now."},
        (*_ADMIN, *_STRIPE, "billing.no_subscription", "billing.payment_required"),
        example=_SUBSCRIPTION,
    ),
    "pause_subscription": Operation(
        "Billing",
        "Pause the subscription",
        "No access and no invoices until it is resumed, by the resume route or on `resumeAt` (in "
        "the next two years). What is left of the period is credited. A paused one gets another "
        "date of return, or none.",
        {200: "The subscription as it is now."},
        (
            *(*_ADMIN, *_STRIPE, "billing.no_subscription", "billing.cannot_pause"),
            *("request.invalid_json", "request.validation_failed"),
        ),
        request={"resumeAt": "2027-02-01T00:00:00Z"},
        example=_SUBSCRIPTION
        | {"status": "paused", "access": "free", "pausedUntil": "2027-02-01T00:00:00Z"},
    ),
    "take_back_change": Operation(
        "Billing",
        "Take the planned change back",
        "Nothing changes at the renewal: a smaller plan, a scheduled end, or an upgrade that waits "
        "for its payment is taken back. Safe to repeat.",
        {200: "The subscription as it is now."},
        (*_ADMIN, *_STRIPE),
        example=_SUBSCRIPTION,
    ),
    "create_checkout_session": Operation(
        "Billing",
        "A page to subscribe on",
        "Stripe's page on which a first card is given and the plan is paid. Send the browser to "
        "`url`. An earlier page that is still open is closed. Both addresses must be in the web "
        "application.",
        {200: "The page."},
        (
            *_CREATES,
            *_ADMIN,
            *_STRIPE,
            *("billing.plan_not_found", "billing.downgrade_blocked", "billing.already_subscribed"),
            "billing.payment_required",
        ),
        request={
            "planId": "professional",
            "successUrl": "https://app.example.com/billing?paid=1",
            "cancelUrl": "https://app.example.com/billing",
        },
        example=_PAGE,
    ),
    "create_portal_session": Operation(
        "Billing",
        "A page to manage cards and invoices",
        "Stripe's page for everything after the first payment: cards, plan, invoices, ending. "
        "Send the browser to `url`. `returnUrl` must be in the web application. `flow` opens the "
        "page of one task, which leads back once that is done.",
        {200: "The page."},
        (*_CREATES, *_ADMIN, *_STRIPE[:-1], "billing.no_subscription"),
        request={"returnUrl": "https://app.example.com/billing", "flow": "payment_method_update"},
        example={"url": "https://billing.stripe.com/p/session/live_YWNjdF8x"},
    ),
    "list_invoices": Operation(
        "Billing",
        "List invoices",
        "The workspace's invoices, the newest first. While there are more the answer has "
        "`nextCursor`: give it as `cursor`.",
        {200: "A page of invoices."},
        ("request.validation_failed",),
        example={
            "items": [
                {
                    "invoiceId": "in_1S8mXq2eZvKYlo2CaBcDeFgH",
                    "number": "KYORA-0001",
                    "status": "paid",
                    "currency": "AED",
                    "total": 9900,
                    "amountDue": 9900,
                    "amountPaid": 9900,
                    "createdAt": "2026-11-23T10:00:00Z",
                    "hostedInvoiceUrl": "https://invoice.stripe.com/i/acct_1/test_YWNj",
                    "pdfUrl": "https://pay.stripe.com/invoice/acct_1/test_YWNj/pdf",
                }
            ],
            "nextCursor": "WzE3OTU0Mjg0MDAsICJpbl8xUzhtWHEyZVp2S1lsbzJDYUJjRGVGZ0giXQ",
        },
        query=("limit", "cursor"),
    ),
    "create_business": Operation(
        "Businesses",
        "Open a business",
        "Opens a business in the workspace while its plan allows one more (`maxBusinesses`). "
        "Requests that arrive together cannot pass the limit. Businesses that are there stay when "
        "a plan shrinks: only new ones are refused.",
        {201: "The business."},
        (*_CREATES, *_ADMIN, "billing.limit_reached"),
        request={"name": "Corner shop", "currency": "AED"},
        example={
            "businessId": "biz_01ka2v7mzq3f8t5y0r9dxw6hcb",
            "name": "Corner shop",
            "currency": "AED",
            "createdAt": "2026-11-23T10:00:00Z",
        },
    ),
    "check_health": Operation(
        "Service",
        "Does it work?",
        "For people and load balancers: asks the database. No token needed.",
        {200: "It works."},
        public=True,
        example={"status": "ok", "database": "ok", "version": __version__},
    ),
}

_DESCRIPTION = """\
Uploads from request to verified bytes: a client asks for an upload, PUTs the file straight to
the store, and confirms; file bytes never pass through the API. Billing: what the workspace is on,
and Stripe's pages for cards; no card number ever passes through here. Businesses, as many as the
workspace's plan allows, and what their days brought: orders, revenue, customers.

**Authentication.** `Authorization: Bearer <JWT>` with the claims `userId`, `workspaceId`,
`authVersion` and `exp`. A role `user` may do everything with files and look at billing; what needs
the role `admin` answers `auth.forbidden` to others.

**Amounts** are whole numbers in the currency's minor unit.

**Refusals** are `application/problem+json` (RFC 9457) with a stable `code`. `errors` names
fields. Unknown fields are refused. What API Gateway refuses by itself, such as a request
without an Authorization header, is its own `{"message": …}`.

**Every answer of a function has `X-Request-Id`**: yours, when you sent one of 8 to 64 letters,
digits, `-` and `_`; it is in every log line and every event of the request.

**Idempotency-Key** on the POSTs that create something: the same key and body get the same
answer for 24 hours.\
"""


@cache
def functions() -> dict[str, ModuleType]:
    """Return the module of every function behind the API by the name of its folder."""
    found = {}
    for path in sorted((ROOT / "functions").glob("*/app.py")):
        name = path.parent.name
        if "http.Routes" not in path.read_text():
            continue
        spec = importlib.util.spec_from_file_location(f"function_{name}", path)
        if spec is None or spec.loader is None:
            raise ImportError(path)
        found[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    return found


def document() -> Json:
    """Return the whole document; the same code gives the same bytes."""
    found: dict[str, tuple[str, str, Json]] = {}
    requests: set[type[BaseModel]] = set()
    answers: set[type[BaseModel]] = set()
    for folder, module in functions().items():
        for key, route in module.ROUTES.items():
            method, path = key.split(" ")
            if route.__name__ not in OPERATIONS:
                raise SystemExit(
                    f"describe {route.__name__} in OPERATIONS of local/tools/openapi.py"
                )
            hints = typing.get_type_hints(route)
            answer = _model(hints.pop("return"))
            body = next((_model(hint) for name, hint in hints.items() if name != "call"), None)
            requests |= {body} if body else set()
            answers |= {answer} if answer else set()
            made = _operation(route.__name__, folder, path, body, answer)
            found[route.__name__] = (path, method.lower(), made)
    paths: Json = {}
    for operation in OPERATIONS:
        path, method, made = found[operation]
        paths.setdefault(path, {})[method] = made
    responses = _share(paths)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Kyora Integrations",
            "version": __version__,
            "summary": "Uploads, verified. Billing, settled. Days, counted.",
            "description": _DESCRIPTION,
        },
        "servers": [
            {"url": "/", "description": "The stack that serves this document"},
            {
                "url": "https://{api}.execute-api.{region}.amazonaws.com",
                "description": "A deployed stack: its output ApiUrl",
                "variables": {"api": {"default": "abc123"}, "region": {"default": "eu-west-1"}},
            },
        ],
        "tags": [
            {"name": "Uploads", "description": "Ask, PUT, confirm."},
            {"name": "Assets", "description": "Files that are there."},
            {"name": "Analytics", "description": "What a business's days brought."},
            {"name": "Billing", "description": "Plans, the subscription, invoices."},
            {"name": "Businesses", "description": "As many as the plan allows."},
            {"name": "Service", "description": "The deployment itself."},
        ],
        "paths": paths,
        "components": {
            "schemas": _schemas(requests, answers),
            "responses": responses,
            "headers": _headers(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "HS256 with the deployment's secret, or a key of its JWKS.",
                }
            },
        },
        "x-problems": {
            code: {"status": p.error.status, "title": p.error.title, "when": p.when}
            for code, p in sorted(PROBLEMS.items(), key=lambda item: item[1].error.status)
        },
    }


def _operation(
    operation: str,
    function: str,
    path: str,
    request: type[BaseModel] | None,
    answer: type[BaseModel] | None,
) -> Json:
    """Describe one route."""
    known = OPERATIONS[operation]
    body: Json = {
        "operationId": to_camel(operation),
        "tags": [known.tag],
        "summary": known.summary,
        "description": known.description,
        "x-function": function,
        "security": [] if known.public else [{"bearer": []}],
    }
    names = (*re.findall(r"\{(\w+)\}", path), *known.query)
    parameters = [_PARAMETERS[name] for name in names]
    if request:
        parameters.append(_PARAMETERS["Idempotency-Key"])
        content = {"schema": _reference(request), "example": known.request}
        body["requestBody"] = {"required": True, "content": {"application/json": content}}
    if parameters:
        body["parameters"] = parameters
    codes = known.codes + _ALWAYS + (() if known.public else _SECURED)
    statuses = {PROBLEMS[code].error.status for code in codes} | known.answers.keys()
    statuses |= _GATEWAY.keys() - ({401} if known.public else set())
    body["responses"] = {
        str(status): _success(known, status, answer)
        if status in known.answers
        else _refusal(status, [code for code in PROBLEMS if code in codes])
        for status in sorted(statuses)
    }
    return body


_PARAMETERS: dict[str, Json] = {
    "assetId": {
        "name": "assetId",
        "in": "path",
        "required": True,
        "description": "From the answer to the request for the upload.",
        "schema": {"type": "string", "pattern": "^ast_[0-9a-z]{26}$"},
        "example": _ASSET_ID,
    },
    "businessId": {
        "name": "businessId",
        "in": "query",
        "required": True,
        "description": "A business of the workspace.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "example": "biz_demo",
    },
    "from": {
        "name": "from",
        "in": "query",
        "required": True,
        "description": "The first day.",
        "schema": {"type": "string", "format": "date"},
        "example": "2026-11-22",
    },
    "to": {
        "name": "to",
        "in": "query",
        "required": True,
        "description": "The last day; at most 366 days with the first.",
        "schema": {"type": "string", "format": "date"},
        "example": "2026-11-23",
    },
    "planId": {
        "name": "planId",
        "in": "path",
        "required": True,
        "description": "The plan's `id`.",
        "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,99}$"},
        "example": "professional",
    },
    "preview": {
        "name": "preview",
        "in": "query",
        "required": False,
        "description": "`true`: change nothing, tell what it would cost.",
        "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
    },
    "when": {
        "name": "when",
        "in": "query",
        "required": False,
        "description": "When it ends.",
        "schema": {"type": "string", "enum": ["period_end", "now"], "default": "period_end"},
    },
    "limit": {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": "How many at most.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        "example": 20,
    },
    "cursor": {
        "name": "cursor",
        "in": "query",
        "required": False,
        "description": "`nextCursor` of the page before.",
        "schema": {"type": "string", "maxLength": 1000},
    },
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Any text of yours, such as a UUID; an empty one counts as none. The same "
        "key and body get the same answer for 24 hours.",
        "schema": {"type": "string", "maxLength": 255, "pattern": "^[ -~]*$"},
        "example": "5f0c2c1e-6f0a-4c1a-9f57-0a5a3d1f9f10",
    },
}


def _success(known: Operation, status: int, model: type[BaseModel] | None) -> Json:
    answer: Json = {"description": known.answers[status], "headers": _header_refs(status)}
    if model:
        example = _VERIFYING if status == 202 else known.example
        content = {"schema": _reference(model), "example": example}
        answer["content"] = {"application/json": content}
    if known.links:
        parameters = {"assetId": "$response.body#/assetId"}
        answer["links"] = {
            to_camel(name): {"operationId": to_camel(name), "parameters": parameters}
            for name in known.links
        }
    return answer


def _refusal(status: int, codes: list[str]) -> Json:
    """Describe every refusal with one status: each code, and the gateway's own answer."""
    mine = [code for code in codes if PROBLEMS[code].error.status == status]
    content: Json = {}
    if mine:
        content["application/problem+json"] = {
            "schema": {
                "allOf": [
                    {"$ref": f"{_REF}Problem"},
                    {"properties": {"status": {"const": status}, "code": {"enum": mine}}},
                ]
            },
            "examples": {code: {"value": _example(code)} for code in mine},
        }
    lines = [f"`{code}`: {PROBLEMS[code].when}" for code in mine]
    if status in _GATEWAY:
        content["application/json"] = {
            "schema": {"$ref": f"{_REF}GatewayRefusal"},
            "example": {"message": _GATEWAY[status]},
        }
        lines.append("API Gateway's own answer: a bare `message`.")
    return {
        "description": "\n\n".join(lines),
        "headers": _header_refs(status),
        "content": content,
    }


def _share(paths: Json) -> Json:
    """Move refusals that several routes have in common to one place; return that place."""
    shared: Json = {}
    operations = [made for path in paths.values() for made in path.values()]
    for status in sorted({s for made in operations for s in made["responses"] if s >= "400"}):
        found = [made["responses"].get(status) for made in operations]
        common = max((one for one in found if one), key=found.count)
        if found.count(common) > 1:
            name = f"Refused{status}"
            shared[name] = common
            for made in operations:
                if made["responses"].get(status) == common:
                    made["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    return shared


def _example(code: str) -> Json:
    known = PROBLEMS[code]
    return {
        "type": f"urn:kyora:problem:{code}",
        "title": known.error.title,
        "status": known.error.status,
        "detail": known.when.replace("`", ""),
        "code": code,
        **known.members,
        "instance": _instance(code),
    }


def _instance(code: str) -> str:
    """Return a route that answers with a code."""
    if code.startswith("business."):
        return "/v1/analytics/summary"
    if code in _OF_BILLING:
        return "/v1/billing/subscription"
    return "/v1/assets/:assetId/confirm" if code in _CONFIRM else "/v1/assets/upload"


def _header_refs(status: int) -> Json:
    names = ["X-Request-Id"] + (["Retry-After"] if status in _RETRY else [])
    names += ["Location"] if status in _LOCATION else []
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _headers() -> Json:
    return {
        "X-Request-Id": {
            "description": "The request's id in the logs and in the events it causes.",
            "schema": {"type": "string"},
        },
        "Retry-After": {
            "description": "Seconds to wait before the same request is worth sending again.",
            "schema": {"type": "integer", "minimum": 1},
        },
        "Location": {
            "description": "The address of what was made.",
            "schema": {"type": "string", "format": "uri-reference"},
        },
    }


def _schemas(requests: set[type[BaseModel]], answers: set[type[BaseModel]]) -> Json:
    """Return the components: what is sent, what is answered, and the refusals."""
    shown = {name: _answer(schema) for name, schema in _definitions(answers).items()}
    schemas = {name: _tidy(schema) for name, schema in (_definitions(requests) | shown).items()}
    schemas["UploadRequest"]["properties"]["sha256"]["anyOf"][0] |= {
        "pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$",
        "examples": [_SHA256],
    }
    schemas["UploadsRequest"]["properties"]["files"]["items"] = {"$ref": f"{_REF}UploadRequest"}
    schemas["RefusedUpload"]["properties"]["error"] = {"$ref": f"{_REF}Problem"}
    schemas["Problem"] = _PROBLEM
    schemas["GatewayRefusal"] = {
        "type": "object",
        "description": "What API Gateway answers by itself, before any function is asked.",
        "properties": {"message": {"type": ["string", "null"]}},
        "required": ["message"],
    }
    return dict(sorted(schemas.items()))


def _definitions(models: set[type[BaseModel]]) -> Json:
    inputs: list[tuple[type[BaseModel], Any]] = [
        (model, "validation") for model in sorted(models, key=lambda model: model.__name__)
    ]
    _, made = models_json_schema(inputs, by_alias=True, ref_template=_REF + "{model}")
    definitions: Json = made["$defs"]
    return definitions


def _answer(schema: Json) -> Json:
    """Say of an answer's fields: never null, and there unless they may be left out."""
    required = []
    for name, field_schema in schema.get("properties", {}).items():
        choices = field_schema.pop("anyOf", None)
        kept = [c for c in choices or [] if c != {"type": "null"}]
        if choices and len(kept) == len(choices):
            field_schema["anyOf"] = kept
        for choice in kept if choices and len(kept) < len(choices) else []:
            field_schema.update(choice)
        if not choices or len(kept) == len(choices):
            required.append(name)
        field_schema.pop("default", None)
    return schema | {"required": required}


def _tidy(schema: Any) -> Any:
    """Drop the titles that repeat a name, and write whole numbers as such."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if isinstance(schema, dict):
        # A property may be called "title"; a schema's own title is a text.
        return {
            key: _tidy(value)
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
        }
    return int(schema) if isinstance(schema, float) and schema.is_integer() else schema


_PROBLEM: Json = {
    "type": "object",
    "description": "A refusal (RFC 9457). `code` is stable; `title` and `detail` are for people.",
    "properties": {
        "type": {"type": "string", "examples": ["urn:kyora:problem:asset.not_found"]},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "The route; not within a batch's answer."},
        "code": {"type": "string", "pattern": r"^[a-z]+\.[a-z_]+$"},
        "errors": {
            "type": "array",
            "description": "The fields at fault.",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                "required": ["field", "message"],
                "additionalProperties": False,
            },
        },
        "limit": {"type": "string", "description": "With `billing.limit_reached`: which limit."},
        "allowed": {"type": "integer", "description": "With `billing.limit_reached`."},
        "used": {"type": "integer", "description": "With `billing.limit_reached`."},
        "maxBytes": {"type": "integer", "description": "With `asset.too_large`."},
        "over": {
            "type": "array",
            "description": "With `billing.downgrade_blocked`: each limit that is exceeded.",
            "items": {
                "type": "object",
                "properties": {
                    "limit": {"type": "string"},
                    "allowed": {"type": "integer"},
                    "used": {"type": "integer"},
                },
                "required": ["limit", "allowed", "used"],
                "additionalProperties": False,
            },
        },
        "clientSecret": {
            "type": "string",
            "description": "With `billing.payment_required`: for Stripe's form in the browser.",
        },
        "declineCode": {
            "type": "string",
            "description": "With `billing.card_declined`: Stripe's word for why.",
        },
        "reason": {
            "type": "string",
            "description": "With `asset.rejected`.",
            "enum": [
                *("size_mismatch", "checksum_mismatch", "type_mismatch", "bad_content"),
                *("too_many_pixels", "macros", "encrypted", "infected"),
            ],
        },
        "detectedType": {
            "type": "string",
            "description": "With `asset.rejected`: the type that the bytes have, if known.",
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}


def _model(hint: Any) -> type[BaseModel] | None:
    """Return the model of a hint, also when it is inside Answer[…]."""
    if typing.get_origin(hint) is http.Answer:
        (hint,) = typing.get_args(hint)
    return hint if isinstance(hint, type) and issubclass(hint, BaseModel) else None


def _reference(model: type[BaseModel]) -> Json:
    return {"$ref": f"{_REF}{model.__name__}"}


def text() -> str:
    """Return the document as it is committed."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the document, or tell with exit code 1 that the committed one is stale."""
    parser = argparse.ArgumentParser(prog="python -m local.tools.openapi")
    parser.add_argument("--check", action="store_true", help="only compare")
    wanted, name = text(), str(DOCUMENT.relative_to(ROOT))
    kept = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    if not parser.parse_args().check:
        DOCUMENT.write_text(wanted)
        print(f"{name}: {'written' if wanted != kept else 'nothing changed'}")
        return 0
    if wanted == kept:
        return 0
    lines = difflib.unified_diff(kept.splitlines(), wanted.splitlines(), name, "the code", n=1)
    print("\n".join([*list(lines)[:60], f"\n{name} is stale: run `make openapi`"]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
