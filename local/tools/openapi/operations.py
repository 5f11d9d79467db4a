"""What the types of a route do not say: OPERATIONS, in the order in which a client meets them."""

from collections.abc import Mapping
from dataclasses import dataclass

from kyora import __version__
from local.tools.openapi.problems import ADMIN, CONFIRM, CREATES, PAYS, STRIPE, Json


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


SHA256 = "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="
ASSET_ID = "ast_01ka2v7mzq3f8t5y0r9dxw6hcb"
_FILE = {"filename": "mug.png", "contentType": "image/png", "size": 48213, "sha256": SHA256}
_TICKET = {
    "assetId": ASSET_ID,
    "uploadUrl": "https://example-bucket.s3.eu-west-1.amazonaws.com/incoming/ws_demo/"
    f"{ASSET_ID}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=…",
    "method": "PUT",
    "headers": {
        "Content-Type": "image/png",
        "If-None-Match": "*",
        "x-amz-checksum-sha256": SHA256,
    },
    "expiresAt": "2026-11-23T10:10:00Z",
}
_ASSET = {
    "assetId": ASSET_ID,
    "status": "ready",
    "filename": "mug.png",
    "contentType": "image/png",
    "size": 48213,
    "sha256": SHA256,
    "width": 800,
    "height": 600,
    "createdAt": "2026-11-23T10:00:00Z",
    "downloadUrl": "https://example-bucket.s3.eu-west-1.amazonaws.com/assets/ws_demo/"
    f"{ASSET_ID}/try_01ka2v8c4n0s7g2e5j1k3m6p9q?X-Amz-Signature=…",
}
VERIFYING = {k: v for k, v in _ASSET.items() if k not in ("width", "height", "downloadUrl")}
VERIFYING["status"] = "verifying"

_MULTIPART = {
    "assetId": ASSET_ID,
    "uploadId": "upl_01ka2v7mzq3f8t5y0r9dxw6hcb",
    "partSize": 8388608,
    "parts": 3,
}
_PENDING = {
    "assetId": ASSET_ID,
    "status": "pending",
    "filename": "opening.mp4",
    "contentType": "video/mp4",
    "size": 20000000,
    "createdAt": "2026-11-23T10:00:00Z",
}
_PARTS = ("asset.not_found", "asset.not_multipart", "asset.not_pending", "asset.expired")
_READS = ("request.invalid_json", "request.validation_failed")
_ETAG = '"d41d8cd98f00b204e9800998ecf8427e"'

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
            *CREATES,
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
        "Does the same for up to 50 files. Each file is judged separately: a refused one has "
        "`error`, the problem it would have got alone, in its place, and the others have their "
        "tickets.",
        {200: "An answer for each file, in the order of the request."},
        CREATES,
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
        (
            "asset.not_found",
            "asset.not_pending",
            "asset.is_multipart",
            "asset.expired",
            "billing.limit_reached",
        ),
        example=_TICKET,
    ),
    "start_multipart": Operation(
        "Uploads",
        "Begin an upload in parts",
        "For files above 8 MiB: an interrupted upload goes on where it was, from another page as "
        "well, for a day. Reserves storage for the whole file and answers with the plan: each part "
        "has `partSize` bytes, the last what is left.\n\n"
        "Then sign parts and PUT them, in any order and several at once; complete; confirm. The "
        "reservation lapses fifteen minutes after parts were signed last, and the next signing "
        "takes it again while there is room. A repeat with the same Idempotency-Key answers the "
        "same, or with a new asset when the first was rejected, has expired or is deleted.",
        {200: "The plan of the upload."},
        (
            *CREATES,
            "billing.limit_reached",
            "asset.too_large",
            "asset.type_not_allowed",
            "asset.too_many_pending",
            "asset.daily_limit_reached",
        ),
        request={
            "filename": "opening.mp4",
            "contentType": "video/mp4",
            "size": 20000000,
            "purpose": "product_video",
        },
        example=_MULTIPART,
        links=("sign_parts", "list_parts", "complete_multipart", "abort_multipart"),
    ),
    "sign_parts": Operation(
        "Uploads",
        "Sign parts",
        "Answers where to PUT each of up to a hundred parts. A URL is valid for ten minutes and "
        "takes exactly this part: its upload, number, length, and its checksum when `sha256` is "
        "given. A part may be signed and sent again; the last PUT counts. PUT with every header of "
        "`headers`, and keep the ETag of the answer.",
        {200: "A URL for each part."},
        (
            *_PARTS,
            *_READS,
            "asset.upload_completed",
            "billing.limit_reached",
            "storage.unavailable",
        ),
        request={"parts": [{"number": 1, "size": 8388608, "sha256": SHA256}]},
        example={
            "parts": [
                {
                    "number": 1,
                    "url": "https://example-bucket.s3.eu-west-1.amazonaws.com/incoming/ws_demo/"
                    f"{ASSET_ID}?partNumber=1&uploadId=…&X-Amz-Signature=…",
                    "headers": {"x-amz-checksum-sha256": SHA256},
                    "expiresAt": "2026-11-23T10:10:00Z",
                }
            ]
        },
    ),
    "list_parts": Operation(
        "Uploads",
        "List the parts that have arrived",
        "What a page needs to go on after a reload: send the parts that are not here.",
        {200: "The parts, by number."},
        (*_PARTS, "asset.upload_completed", "storage.unavailable"),
        example={
            "assetId": ASSET_ID,
            "uploadId": "upl_01ka2v7mzq3f8t5y0r9dxw6hcb",
            "partSize": 8388608,
            "parts": [{"number": 1, "size": 8388608, "etag": _ETAG}],
        },
    ),
    "complete_multipart": Operation(
        "Uploads",
        "Join the parts",
        "Makes one object of the parts; every part of the plan has to be named, with the ETag of "
        "its PUT. Safe to repeat. Then confirm, as for every upload.",
        {200: "The asset, which waits to be confirmed."},
        (*_PARTS, *_READS, "asset.parts_missing", "asset.part_changed", "storage.unavailable"),
        request={"parts": [{"number": 1, "etag": _ETAG}]},
        example=_PENDING,
        links=("confirm_upload",),
    ),
    "abort_multipart": Operation(
        "Uploads",
        "Give an upload in parts up",
        "Deletes the asset and the parts that have arrived, and gives the storage back.",
        {204: "Given up."},
        ("asset.not_found", "asset.not_multipart", "asset.not_pending"),
    ),
    "confirm_upload": Operation(
        "Uploads",
        "Confirm an upload",
        "Copies the uploaded bytes to where no client can write, reads them once (length, SHA-256, "
        "real type, image size) and makes the asset `ready`. Safe to repeat: every repeat has the "
        "same answer, and an asset becomes ready once.\n\n"
        "202 means that another request verifies it right now, or that a malware scanner reads it "
        "(`uploads.scanning`); ask again after `Retry-After`. A "
        "client that never confirms loses nothing: a minute later the store's own event does it."
        "\n\n"
        "A file whose PUT took longer than its reservation is accepted while the plan has room; "
        "else 403 `billing.limit_reached`, and again after something was deleted.",
        {
            200: "The asset is ready.",
            202: "Being verified by another request, or `scanning`: a malware scanner reads it.",
        },
        CONFIRM,
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
        (*CREATES, *ADMIN, *STRIPE, *PAYS),
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
        (*ADMIN, *STRIPE, "request.validation_failed"),
        example=_SUBSCRIPTION | {"cancelAt": "2026-12-23T10:00:00Z"},
        query=("when",),
    ),
    "resume_subscription": Operation(
        "Billing",
        "Keep the subscription",
        "Cancels a scheduled end, whether scheduled here or in Stripe's portal, and resumes a "
        "paused subscription: a new period begins and is charged. 402 says how to pay that, or "
        "what is owed. Safe to repeat.",
        {200: "The subscription as it is now."},
        (*ADMIN, *STRIPE, "billing.no_subscription", "billing.payment_required"),
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
            *(*ADMIN, *STRIPE, "billing.no_subscription", "billing.cannot_pause"),
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
        (*ADMIN, *STRIPE),
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
            *CREATES,
            *ADMIN,
            *STRIPE,
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
        (*CREATES, *ADMIN, *STRIPE[:-1], "billing.no_subscription"),
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
        (*CREATES, *ADMIN, "billing.limit_reached"),
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
