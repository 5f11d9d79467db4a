"""What became of it: everything that belongs to an id, as one causal line, for `make trace`.

It reads every domain's tables and belongs to none. A row leads to others by four kinds of
reference: the correlation id of a request, an event's id, Stripe's id of an API request, and the
ids in an event's data. One round of them is followed from the id that is asked for, so that the
answer stays about it; of a customer or a subscription the newest of each.

Times are ISO 8601 in UTC. No address, no token and no content of a mail is returned.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from kyora import money
from kyora.invariants import WANTS_VARIANTS
from kyora.postgres import Transaction, storable, transaction

_PATIENCE = 20.0  # seconds for a statement: some ids are searched for without an index
_TRACE = re.compile(r"(?:00-)?([0-9a-f]{32})(?:-.*)?")
_MOST = 100  # rows of a table

_BEGIN = "begin, under the correlation id"

type Row = dict[str, Any]

# Each takes ids of several kinds at once; what is no id of its kind finds nothing.
_EVENTS = f"""
SELECT id, detail_type, detail ->> 'correlationId' AS correlation_id, created_at, published_at,
    attempts, next_attempt_at, last_error, refused, detail -> 'data' ->> 'assetId' AS asset_id,
    {WANTS_VARIANTS},
    detail -> 'data' ->> 'businessId' AS business_id, detail ->> 'workspaceId' AS workspace_id,
    coalesce(detail -> 'data' ->> 'orderId', detail -> 'data' ->> 'customerId') AS subject_id
FROM outbox
"""
_OWN_EVENTS = f"""
{_EVENTS} WHERE id = ANY(CAST(:ids AS text[]))
    OR detail ->> 'correlationId' = ANY(CAST(:ids AS text[]))
ORDER BY created_at DESC, id DESC LIMIT {_MOST}
"""
_EVENTS_ABOUT = f"""
{_EVENTS} WHERE detail -> 'data' ->> 'assetId' = ANY(CAST(:ids AS text[]))
    OR detail -> 'data' ->> 'orderId' = ANY(CAST(:ids AS text[]))
    OR detail -> 'data' ->> 'invoiceId' = ANY(CAST(:ids AS text[]))
    OR detail -> 'data' ->> 'subscriptionId' = ANY(CAST(:ids AS text[]))
    OR detail -> 'data' ->> 'customerId' = ANY(CAST(:ids AS text[]))
ORDER BY created_at DESC, id DESC LIMIT {_MOST}
"""
_ASSETS = f"""
SELECT id, workspace_id, status, content_type, size, reject_reason, created_at, url_expires_at,
    confirm_deadline, lease_until, ready_at, ended_at, cleaned_at, correlation_id
FROM asset WHERE id = ANY(CAST(:ids AS text[])) OR correlation_id = ANY(CAST(:ids AS text[]))
ORDER BY created_at DESC LIMIT {_MOST}
"""
_CALLS = f"""
SELECT request_id, method, path, object_id, correlation_id, called_at
FROM stripe_call WHERE request_id = ANY(CAST(:ids AS text[]))
    OR correlation_id = ANY(CAST(:ids AS text[]))
ORDER BY called_at DESC LIMIT {_MOST}
"""
_STRIPE = """
SELECT id, type, status, attempts, last_error, object_id, received_at, processed_at, next_at,
    correlation_id, request_id, source
FROM stripe_event
"""
_OWN_STRIPE = f"""
{_STRIPE} WHERE id = ANY(CAST(:ids AS text[])) OR correlation_id = ANY(CAST(:ids AS text[]))
    OR customer_id = ANY(CAST(:ids AS text[]))
ORDER BY received_at DESC, id DESC LIMIT {_MOST}
"""
_STRIPE_ABOUT = f"""
{_STRIPE} WHERE object_id = :id OR request_id = :id
ORDER BY received_at DESC, id DESC LIMIT {_MOST}
"""
_MAILS = f"""
SELECT m.id, m.event_id, m.template, m.locale, m.status, m.reason, m.attempts, m.created_at,
    m.sent_at, m.ended_at, m.next_attempt_at, m.lease_until, m.expires_at, m.correlation_id,
    (SELECT max(p.open_until) FROM email_provider_state p WHERE p.open_until > now()) AS held
FROM email_message m WHERE m.id = ANY(CAST(:ids AS text[]))
    OR m.event_id = ANY(CAST(:ids AS text[])) OR m.correlation_id = ANY(CAST(:ids AS text[]))
ORDER BY m.created_at DESC, m.id LIMIT {_MOST}
"""
_REPORTS = f"""
SELECT id, message_id, type, received_at FROM email_event
WHERE message_id = ANY(CAST(:ids AS text[])) ORDER BY received_at DESC LIMIT {_MOST}
"""
_HANDLED = """
SELECT consumer, event_id, received_at FROM inbox
WHERE consumer = ANY(ARRAY['record_transaction_fee', 'update_analytics', 'make_variants'])
    AND event_id = ANY(CAST(:ids AS text[])) ORDER BY received_at
"""
_FEES = f"""
SELECT p.order_id, p.event_id, p.business_id, f.amount::bigint AS amount, f.currency, f.method,
    f.recorded_at
FROM order_payment p LEFT JOIN transaction_fee f
    ON f.business_id = p.business_id AND f.order_id = p.order_id AND f.workspace_id = p.workspace_id
WHERE p.order_id = ANY(CAST(:ids AS text[])) OR p.event_id = ANY(CAST(:ids AS text[]))
ORDER BY p.occurred_at DESC LIMIT {_MOST}
"""
_COUNTED = f"""
SELECT kind, subject_id, event_id, business_id, day, label FROM analytics_event
WHERE subject_id = ANY(CAST(:ids AS text[])) OR event_id = ANY(CAST(:ids AS text[]))
ORDER BY occurred_at DESC LIMIT {_MOST}
"""
_INVOICES = """
SELECT id, subscription_id, status, amount_due, currency, attempt_count, next_attempt_at,
    created_at
FROM invoice WHERE id = :id OR (status = 'open' AND (subscription_id = :id OR customer_id = :id))
ORDER BY created_at DESC LIMIT 10
"""
_SUBSCRIPTIONS = """
SELECT s.id, s.status, s.plan_id, s.period_end, s.trial_end, s.cancel_at, s.ended_at, s.began_at,
    s.doubtful, t.pending_at, t.resume_at, b.workspace_id, b.access, b.access_until
FROM subscription s LEFT JOIN subscription_terms t ON t.subscription_id = s.id
LEFT JOIN billing_customer c ON c.id = s.customer_id
LEFT JOIN workspace_billing b ON b.workspace_id = c.workspace_id
WHERE s.id = :id OR s.customer_id = :id ORDER BY s.began_at DESC LIMIT 10
"""
_TRACED = """
SELECT detail ->> 'correlationId' AS correlation_id FROM outbox
    WHERE detail ->> 'traceparent' LIKE :pattern
UNION SELECT correlation_id FROM asset WHERE traceparent LIKE :pattern AND workspace_id <> ''
UNION SELECT correlation_id FROM stripe_call WHERE traceparent LIKE :pattern
UNION SELECT correlation_id FROM stripe_event WHERE traceparent LIKE :pattern
UNION SELECT correlation_id FROM email_message WHERE traceparent LIKE :pattern
LIMIT 20
"""


class _Fact(NamedTuple):
    """Something that happened; `under` is the id of what caused it."""

    at: datetime
    id: str
    text: str
    under: str = ""
    event: str = ""  # the name of an event that is on the bus: it has consumers
    handled: tuple[str, ...] = ()
    variants: bool = False  # of an AssetReady: make_variants takes no other


class _Wait(NamedTuple):
    """Something that is still to come: what for, and when it is due, if that is known."""

    id: str
    text: str
    due: datetime | None = None


class _Found(NamedTuple):
    """The rows that belong to an id."""

    events: list[Row]
    assets: list[Row]
    calls: list[Row]
    stripe: list[Row]
    mails: list[Row]
    reports: list[Row]
    handled: list[Row]
    fees: list[Row]
    counted: list[Row]
    invoices: list[Row]
    subscriptions: list[Row]


def read(asked: str) -> dict[str, Any]:
    """Return what happened (`line`) and what is still to come (`waits`); writes nothing.

    `asked` is any id: of an asset, order, invoice, subscription, customer, event (ours or
    Stripe's), mail, request, correlation or trace. Each entry of `line` has a `depth`, that of
    what caused it and one more. Both lists are empty when nothing is known.
    """
    wanted = asked.strip()[:300]
    if not wanted or not storable(wanted):
        return {"id": asked[:300], "line": [], "waits": []}
    with transaction(timeout=_PATIENCE) as tx:
        found = _find(tx, wanted)
    return {
        "id": wanted,
        "line": [
            {
                "at": fact.at.isoformat(timespec="milliseconds"),
                "depth": depth,
                "id": fact.id,
                "text": fact.text,
                "event": fact.event,
                "handled": list(fact.handled),
                "variants": fact.variants,
            }
            for fact, depth in _ordered(_facts(found))
        ],
        "waits": [
            {"id": one.id, "text": one.text, "due": one.due.isoformat() if one.due else None}
            for one in _waits(found)
        ],
    }


# ---- finding


def _find(tx: Transaction, wanted: str) -> _Found:
    """Read what belongs to an id: what it names, then what that refers to, once."""
    ids = {wanted}
    if traced := _TRACE.fullmatch(wanted):
        rows = tx.rows(_TRACED, pattern=f"00-{traced[1]}-%")
        ids |= {str(row["correlation_id"]) for row in rows if row["correlation_id"]}
    assets, calls = tx.rows(_ASSETS, ids=list(ids)), tx.rows(_CALLS, ids=list(ids))
    about = [wanted, *(str(asset["id"]) for asset in assets)]
    events = _once(tx.rows(_OWN_EVENTS, ids=list(ids)), tx.rows(_EVENTS_ABOUT, ids=about))
    stripe = _once(tx.rows(_OWN_STRIPE, ids=list(ids)), tx.rows(_STRIPE_ABOUT, id=wanted))
    mails = tx.rows(_MAILS, ids=list(ids))
    subscriptions = tx.rows(_SUBSCRIPTIONS, id=wanted)
    if not subscriptions:  # whose many requests are stories of their own
        ids |= {
            str(row[name])
            for rows in (events, assets, calls, stripe, mails)
            for row in rows
            for name in ("correlation_id", "asset_id", "event_id", "request_id")
            if row.get(name)
        }
        events = _once(events, tx.rows(_OWN_EVENTS, ids=list(ids)))
        assets = tx.rows(_ASSETS, ids=list(ids | {str(e["asset_id"]) for e in events}))
        calls = tx.rows(_CALLS, ids=list(ids))
        stripe = _once(stripe, tx.rows(_OWN_STRIPE, ids=list(ids)))
    named = [str(event["id"]) for event in events]
    mails = _once(mails, tx.rows(_MAILS, ids=list({*ids, *named})))
    subjects = [wanted, *(str(e["subject_id"]) for e in events if e["subject_id"])]
    fees, counted = tx.rows(_FEES, ids=subjects), tx.rows(_COUNTED, ids=subjects)
    # Orders' and customers' events are another application's: no outbox of ours has them.
    named += [wanted, *(str(row["event_id"]) for row in (*fees, *counted))]
    return _Found(
        events,
        assets,
        calls,
        stripe,
        mails,
        tx.rows(_REPORTS, ids=[str(mail["id"]) for mail in mails]),
        tx.rows(_HANDLED, ids=named),
        fees,
        counted,
        tx.rows(_INVOICES, id=wanted),
        subscriptions,
    )


def _once(*lists: Iterable[Row]) -> list[Row]:
    """Return the rows of several lists, each once."""
    return list({str(row["id"]): row for rows in lists for row in rows}.values())


# ---- what happened


def _facts(found: _Found) -> Iterator[_Fact]:
    yield from _requests(found)
    for asset in found.assets:
        yield from _asset(asset)
    yield from _at_stripe(found)
    yield from _events(found)
    yield from _effects(found)
    for mail in found.mails:
        yield from _mail(mail)
    for report in found.reports:
        name = report["type"].removeprefix("email.").replace("_", " ")
        at, text = report["received_at"], f"Resend reports: {name}"
        yield _Fact(at, report["id"], text, report["message_id"])


def _at_stripe(found: _Found) -> Iterator[_Fact]:
    for call in found.calls:
        text = f"asked Stripe: {call['method'].upper()} {call['path']}"
        yield _Fact(call["called_at"], call["request_id"], text, call["correlation_id"])
    calls = {call["request_id"] for call in found.calls}
    for event in found.stripe:
        under = event["request_id"] if event["request_id"] in calls else event["correlation_id"]
        text = f"Stripe's {event['type']} by {event['source']}: {_outcome(event)}"
        yield _Fact(event["received_at"], event["id"], text, under or "")
    for invoice in found.invoices:
        currency, attempts = invoice["currency"].upper(), invoice["attempt_count"]
        amount = money.stripe_text(invoice["amount_due"], currency)
        text = f"invoice of {amount} {currency}: {invoice['status']}, {attempts} attempts"
        yield _Fact(invoice["created_at"], invoice["id"], text)
    for sub in found.subscriptions:
        access = f"; access {sub['access']}" if sub["access"] else ""
        text = f"subscription to {sub['plan_id'] or 'no plan of ours'}: {sub['status']}{access}"
        yield _Fact(sub["began_at"], sub["id"], text)


def _events(found: _Found) -> Iterator[_Fact]:
    """Yield our events, each under the upload or Stripe's event that caused it."""
    # An event of ours has the time of the transaction that processed Stripe's.
    processed = {event["processed_at"]: event["id"] for event in found.stripe}
    handled: dict[str, list[str]] = {}
    for row in found.handled:
        handled.setdefault(row["event_id"], []).append(row["consumer"])
    for mail in found.mails:
        handled.setdefault(mail["event_id"], []).append("send_email")
    assets = {asset["id"]: asset["correlation_id"] for asset in found.assets}
    ours = {event["id"] for event in found.events}
    for event_id, first in {row["event_id"]: row for row in reversed(found.handled)}.items():
        if event_id not in ours:
            text = "event of another application, which came over the bus"
            yield _Fact(first["received_at"], event_id, text)
    for event in found.events:
        under = event["asset_id"] if event["asset_id"] in assets else event["correlation_id"]
        whose = assets.get(event["asset_id"], event["correlation_id"])
        by = "" if whose == event["correlation_id"] else f", by {event['correlation_id']}"
        yield _Fact(
            event["created_at"],
            event["id"],
            f"{event['detail_type']}{by}{_on_the_bus(event)}",
            processed.get(event["created_at"]) or under or "",
            event["detail_type"] if event["published_at"] else "",
            tuple(handled.get(event["id"], ())),
            event["variants"],
        )


def _requests(found: _Found) -> Iterator[_Fact]:
    """Yield a line for each correlation id: what it began with is its first effect."""
    first: dict[str, datetime] = {}
    for rows, name in (
        (found.events, "created_at"),
        (found.assets, "created_at"),
        (found.calls, "called_at"),
        (found.stripe, "received_at"),
        (found.mails, "created_at"),
    ):
        for row in rows:
            if correlation := row["correlation_id"]:
                first[correlation] = min(row[name], first.get(correlation, row[name]))
    for correlation, at in first.items():
        yield _Fact(at, correlation, _BEGIN)


def _asset(asset: Row) -> Iterator[_Fact]:
    what = f"{asset['content_type']}, {asset['size']} bytes, of {asset['workspace_id']}"
    asked = f"upload asked for: {what}"
    yield _Fact(asset["created_at"], asset["id"], asked, asset["correlation_id"] or "")
    if asset["ready_at"]:
        yield _Fact(asset["ready_at"], f"{asset['id']}:ready", "verified: ready", asset["id"])
    if asset["ended_at"] and asset["status"] != "ready":
        why = f" ({asset['reject_reason']})" if asset["reject_reason"] else ""
        yield _Fact(
            asset["ended_at"], f"{asset['id']}:ended", f"{asset['status']}{why}", asset["id"]
        )
    if asset["cleaned_at"]:
        text = "objects that it does not need are deleted"
        yield _Fact(asset["cleaned_at"], f"{asset['id']}:cleaned", text, asset["id"])


def _effects(found: _Found) -> Iterator[_Fact]:
    """Yield what consumers did beside mail: fees and counts."""
    fees = {row["event_id"]: row for row in found.fees}
    counts = {row["event_id"]: row for row in found.counted}
    known = set()
    for row in found.handled:
        text, event_id = "handled", row["event_id"]
        known.add(event_id)
        if fee := fees.get(event_id):
            text = _fee(fee)
        elif row["consumer"] == "record_transaction_fee":
            text = "no fee of its own: a newer payment of the order counts"
        elif count := counts.get(event_id):
            text = f"counted as {count['kind']} on {count['day']} ({count['label']})"
        elif row["consumer"] == "update_analytics":
            text = "not counted: an earlier event of the same is"
        at, consumer = row["received_at"], row["consumer"]
        yield _Fact(at, f"{event_id}:{consumer}", f"{consumer}: {text}", event_id)
    for row in found.fees:  # of events that the outbox and inbox no longer have
        if row["event_id"] not in known and row["recorded_at"]:
            yield _Fact(row["recorded_at"], row["order_id"], _fee(row), row["event_id"])


def _mail(mail: Row) -> Iterator[_Fact]:
    reason = f" ({mail['reason']})" if mail["reason"] else ""
    tried = f", {mail['attempts']} attempts" if mail["attempts"] > 1 else ""
    text = f"send_email: mail {mail['template']} ({mail['locale']}) is {mail['status']}"
    yield _Fact(mail["created_at"], mail["id"], f"{text}{reason}{tried}", mail["event_id"])
    if mail["sent_at"]:
        yield _Fact(mail["sent_at"], f"{mail['id']}:sent", "the provider took it", mail["id"])


def _fee(fee: Row) -> str:
    if fee["amount"] is None:
        return f"no fee for {fee['order_id']}"
    amount = money.to_text(fee["amount"], fee["currency"])
    return f"fee of {amount} {fee['currency']} for {fee['order_id']} ({fee['method']})"


def _on_the_bus(event: Row) -> str:
    if not event["published_at"]:
        return ", not on the bus yet"
    after = (event["published_at"] - event["created_at"]).total_seconds()
    return f", on the bus after {after * 1000:.0f} ms"


def _outcome(event: Row) -> str:
    error = f" ({event['last_error']})" if event["last_error"] else ""
    tried = f" after {event['attempts']} attempts" if event["attempts"] > 1 else ""
    return f"{event['status']}{tried}{error}"


def _ordered(facts: Iterable[_Fact]) -> list[tuple[_Fact, int]]:
    """Return the facts with their depths: causes before effects, each level by time."""
    known = {fact.id: fact for fact in facts}
    children: dict[str, list[_Fact]] = {}
    for fact in known.values():
        above = fact.under if fact.under in known and fact.under != fact.id else ""
        children.setdefault(above, []).append(fact)
    # A request whose every effect stands under something else needs no line.
    children[""] = [
        fact for fact in children.get("", []) if fact.text != _BEGIN or fact.id in children
    ]
    listed: list[tuple[_Fact, int]] = []

    def add(above: str, depth: int) -> None:
        for fact in sorted(children.pop(above, []), key=lambda one: (one.at, one.id)):
            listed.append((fact, depth))
            add(fact.id, depth + 1)

    add("", 0)
    return listed


# ---- what is still to come


def _waits(found: _Found) -> Iterator[_Wait]:
    for event in found.events:
        yield from _event_waits(event)
    for asset in found.assets:
        if asset["status"] == "pending":
            text = "waits for its bytes and a confirmation, else it expires"
            yield _Wait(asset["id"], text, asset["confirm_deadline"])
        elif asset["status"] == "verifying":
            text = "is being verified; after this another worker may"
            yield _Wait(asset["id"], text, asset["lease_until"])
    for event in found.stripe:
        yield from _stripe_waits(event)
    for mail in found.mails:
        yield from _mail_waits(mail)
    for invoice in found.invoices:
        if invoice["status"] == "open":
            text = "is to be paid" + ("; Stripe tries again" if invoice["next_attempt_at"] else "")
            yield _Wait(invoice["id"], text, invoice["next_attempt_at"])
    for sub in found.subscriptions:
        yield from _subscription_waits(sub)


def _event_waits(event: Row) -> Iterator[_Wait]:
    if event["refused"]:
        yield _Wait(event["id"], f"never on the bus ({event['last_error']}): `make outbox`")
    elif not event["published_at"]:
        tried = f"{event['attempts']} attempts: {event['last_error']}"
        text = "relay_outbox publishes it" + (f"; {tried}" if event["attempts"] else "")
        yield _Wait(event["id"], text, event["next_attempt_at"])


def _stripe_waits(event: Row) -> Iterator[_Wait]:
    if event["status"] == "received":
        yield _Wait(event["id"], "sweep_billing processes it", event["next_at"])
    elif event["status"] == "failed":
        yield _Wait(event["id"], f"failed for good: fix it, `make replay EVENT={event['id']}`")
    elif event["status"] == "orphan":
        yield _Wait(event["id"], "its customer has no workspace: `make bind`")


def _mail_waits(mail: Row) -> Iterator[_Wait]:
    if mail["status"] == "queued":
        due = max(mail["next_attempt_at"], mail["held"] or mail["next_attempt_at"])
        yield _Wait(mail["id"], "send_email tries again", due)
    elif mail["status"] == "sending":
        yield _Wait(mail["id"], "is being sent; after this another worker may", mail["lease_until"])
    elif mail["status"] in ("sent", "delayed", "accepted_unknown"):
        yield _Wait(mail["id"], "the provider's webhook reports whether it arrived")
    elif mail["status"] in ("dead", "failed"):
        yield _Wait(mail["id"], f"is not sent: `make mails RESEND={mail['id']}` sends it again")


def _subscription_waits(sub: Row) -> Iterator[_Wait]:
    if sub["ended_at"]:
        return
    if sub["doubtful"]:
        yield _Wait(sub["id"], "sweep_billing reads it from Stripe again")
    dates: Mapping[str, str] = {
        "trial_end": "the trial ends",
        "cancel_at": "it ends",
        "pending_at": "a planned change begins",
        "resume_at": "it resumes",
        "period_end": "the period ends",
    }
    for name, text in dates.items():
        if sub[name] and not (name == "period_end" and sub["cancel_at"]):
            yield _Wait(sub["id"], text, sub[name])
    if sub["access"] == "grace":
        yield _Wait(sub["id"], "the grace period ends, and with it the access", sub["access_until"])
