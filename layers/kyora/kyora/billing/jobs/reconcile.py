"""Daily reconciliation: process missed events, repair rows that differ from Stripe.

    events         of the last 30 days, or since the last run, that we do not have: processed as if
                   they came late, with their mails and other effects
    subscriptions  all of the account; live ones of ours that are not listed, by id
    invoices       of the last 90 days (in the first run: all); older open ones, by id
    customers      ours without a live subscription, by id, some in each run

A run continues over many invocations: `billing_run` holds the position after each page. One
invocation works at a time; the lease of one that died ends after a minute. Every step is
idempotent, so a crash costs a page. What Stripe does not know is reported; when its customer is
gone as well, it is ended (`gone`).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from kyora import config
from kyora.billing import access, rate_limit, stripe_objects
from kyora.billing.events import gone, ingest, resync, types
from kyora.billing.mirror import invoices, plan_items, subscriptions, terms
from kyora.billing.mirror.plan_items import Placed
from kyora.billing.stripe_objects import TERMINAL, TERMINAL_SQL, StripeInvoice, Unreadable
from kyora.errors import ConfigError, Unavailable
from kyora.observability import count, fault, logger
from kyora.postgres import Transaction, transaction

# The types that one request lists events by. The catalogue has a full sync of its own, every hour.
_TYPES = sorted(types.HANDLERS)
BATCHES = [
    _TYPES[first : first + types.LISTED_AT_MOST]
    for first in range(0, len(_TYPES), types.LISTED_AT_MOST)
]
MARGIN = 25.0  # seconds: three attempts at Stripe, of eight each
_LEASE = 60.0  # seconds; an invocation takes at most 55
_DAY = 86_400.0
_OVERLAP = 3600.0  # seconds of the previous run that are listed again
_KEPT = 30 * _DAY  # for as long as Stripe lists events
_SETTLED = 90 * _DAY  # long after Stripe's last attempt to collect an invoice
_LATE = 3600.0  # seconds after which an event is missed, not on its way
_ASKED = 500  # customers that a run reads by id
_SHOWN = 100  # differences that a report names; the rest are counted
_PAGE = 100

type Json = dict[str, Any]
type Row = dict[str, Any]


class Work(NamedTuple):
    """An invocation: the run's state, the seconds left, and how to wait."""

    state: Json
    remaining: Callable[[], float]
    sleep: Callable[[float], None]


class _OutOfTime(Exception):
    """The rest is for the next invocation."""


def run(
    remaining: Callable[[], float],
    *,
    start: bool = False,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Json:
    """Continue the run, or start one after a day or with `start`; return its report.

    `remaining` returns the seconds left. The report is the last run's when none is due; `finished`
    says that nothing is left to do, `busy` that another invocation is doing it.
    Raises Unavailable when the database is away and ConfigError when Stripe refuses the key.
    """
    if not config.billing().stripe_api_key:
        return {"finished": True, "skipped": "no Stripe key is configured"}
    with transaction() as tx:
        claimed = _claim(tx, start=start)
    if not isinstance(claimed, tuple):
        return claimed
    version, state = claimed
    work = Work(state, remaining, sleep)
    try:
        with rate_limit.at(now=now, sleep=sleep):
            while state["phase"]:
                _PHASES[state["phase"]](work)
                version = _save(version, state)
                if (
                    not version
                ):  # the lease expired while we were held up: another invocation continues
                    return {"finished": False, "busy": True}
    except _OutOfTime:
        _save(version, state | {"lease": 0})
        return {"finished": False, **_report(state)}
    return _finish(version, state)


def _claim(tx: Transaction, *, start: bool) -> tuple[int, Json] | Json:
    """Take the run for this invocation; otherwise return the answer."""
    row: Row = (
        tx.row(
            "SELECT version, state, result, extract(epoch FROM now())::float8 AS now,"
            " extract(epoch FROM started_at)::float8 AS started"
            " FROM billing_run WHERE name = 'reconcile' FOR UPDATE"
        )
        or {}
    )
    now, state, last = row["now"], row["state"], row["result"]
    if state.get("lease", 0) > now:
        return {"finished": False, "busy": True}
    # Also when an earlier release stopped in a phase that no longer exists.
    fresh = state.get("phase", "none") not in (*_PHASES, "")
    if fresh:
        if not start and row["started"] and row["started"] > now - _DAY:
            return {"finished": True, **{k: v for k, v in last.items() if k != "customers_after"}}
        began = last.get("began")
        state = {
            "phase": "events",
            "began": now,
            "since": max(now - _KEPT, began - _OVERLAP if began else 0),
            "horizon": now - _SETTLED if began else 0,
            "listed": dict.fromkeys(("events", "subscriptions", "invoices", "customers"), 0),
            "repaired": dict.fromkeys(("events", "subscriptions", "invoices", "customers"), 0),
            "customers_after": last.get("customers_after", ""),
            "failed": 0,
            "missed": 0,
            "differences": 0,
            "drift": [],
        }
    state["lease"] = now + _LEASE
    tx.run(
        "UPDATE billing_run SET version = version + 1, state = CAST(:state AS jsonb),"
        " started_at = CASE WHEN :fresh THEN now() ELSE started_at END,"
        " finished_at = NULL WHERE name = 'reconcile'",
        state=json.dumps(state),
        fresh=fresh,
    )
    return int(row["version"]) + 1, state


def _save(version: int, state: Json) -> int:
    """Save the position; return the new version, or 0 when another invocation took the run."""
    with transaction() as tx:
        kept = tx.run(
            "UPDATE billing_run SET version = version + 1, state = CAST(:state AS jsonb)"
            " WHERE name = 'reconcile' AND version = :version",
            version=version,
            state=json.dumps(state),
        )
    return version + 1 if kept else 0


def _finish(version: int, state: Json) -> Json:
    with transaction() as tx:
        orphans = tx.row(
            "SELECT count(*) AS count FROM billing_customer c"
            " WHERE workspace_id IS NULL AND deleted_at IS NULL"
            " AND EXISTS (SELECT 1 FROM subscription WHERE customer_id = c.id)"
        )
        report = _report(state) | {"orphans": orphans["count"] if orphans else 0}
        kept = tx.run(
            "UPDATE billing_run SET version = version + 1, state = jsonb_build_object(),"
            " finished_at = now(), result = CAST(:report AS jsonb)"
            " WHERE name = 'reconcile' AND version = :version",
            version=version,
            report=json.dumps(report | {"customers_after": state.get("customers_after", "")}),
        )
    if not kept:
        return {"finished": False, "busy": True}
    count("StripeEventsMissed", state["missed"])  # its alarm is in template.yaml
    count("StripeDrift", state["differences"])
    summary = {k: v for k, v in report.items() if k != "drift"}
    logger().info("billing reconciled", extra=summary)
    return {"finished": True, **report}


def _report(state: Json) -> Json:
    shown = ("began", "phase", "listed", "repaired", "failed", "missed", "differences", "drift")
    return {name: state[name] for name in shown if state[name] != ""}


def _next(state: Json, phase: str) -> None:
    state.update(phase=phase, cursor=None, asked=None, above=None, edge=[])


# ---- phases: each call does one page


def _events(work: Work) -> None:
    """Process the events of a page that we do not have, oldest first; one batch after another."""
    state = work.state
    batch = state.get("batch", 0)
    since = {"gte": int(state["since"])}
    found, more = _list(work, "events", types=BATCHES[batch], created=since)
    with transaction() as tx:
        rows = tx.rows(
            "SELECT id FROM stripe_event WHERE id = ANY(CAST(:ids AS text[]))", ids=_ids(found)
        )
    known = {row["id"] for row in rows}
    live = config.stage() == "prod"
    for payload in reversed(found):
        event = stripe_objects.event(payload)
        if event is None or event.livemode != live or event.id in known:
            continue
        _in_time(work)
        try:
            ingest.take(event, json.dumps(payload), "reconcile")
        except ConfigError:
            raise
        except Unavailable as error:
            if error.code.startswith("database"):
                raise
            # Kept already: sweep_billing processes it.
        except Exception:  # logged and counted where it happened; sweep_billing retries
            state["failed"] += 1
        state["repaired"]["events"] += 1
        # Events from before the first run are not missed: we did not exist yet.
        if state["horizon"] and event.created < state["began"] - _LATE:
            state["missed"] += 1
        _differs(state, event.id, {"event": (None, event.type)})
    state["listed"]["events"] += len(found)
    last = batch + 1 >= len(BATCHES)
    _turn_page(state, found, more, "subscriptions" if last else "events")
    if not more:
        state["batch"] = 0 if last else batch + 1


def _subscriptions(work: Work) -> None:
    """Compare a page of Stripe's subscriptions, and ours of that period that are not on it."""
    state = work.state
    listed, more = _list(work, "subscriptions", status="all", expand=["data.schedule"])
    found = _readable(state, listed, stripe_objects.subscription)
    with transaction() as tx:
        rows = _rows(tx, "subscription", _ids(listed))
        planned = terms.kept(tx, _ids(listed))
        placed = plan_items.place_all(tx, found)
        lowest = listed[-1]["created"] if more else 0
        unlisted = tx.rows(
            "SELECT id, customer_id FROM subscription"
            f" WHERE status NOT IN {TERMINAL_SQL}"
            " AND began_at > to_timestamp(:lowest)"
            " AND (CAST(:above AS float8) IS NULL OR began_at <= to_timestamp(:above))"
            " AND NOT id = ANY(CAST(:seen AS text[])) AND id > :asked ORDER BY id",
            lowest=float(lowest),
            above=None if state.get("above") is None else float(state["above"]),
            seen=_ids(listed) + state.get("edge", []),
            asked=state.get("asked") or "",
        )
    for place in placed:
        one = place.found
        drift = _compare_subscription(rows.get(one.id), place)
        if one.id in rows and not one.terminal:
            drift |= terms.drift(planned.get(one.id), one.terms)
        if drift:
            _resync(work, one.customer, one.id, drift)
    for row in unlisted:
        _resync(work, str(row["customer_id"]), str(row["id"]), {})
        state["asked"] = row["id"]  # so that a page that does not fit into one invocation ends
    state["listed"]["subscriptions"] += len(listed)
    edge = [item["id"] for item in listed if item["created"] == lowest]
    _turn_page(state, listed, more, "invoices")
    if more:
        state.update(above=lowest, edge=edge)


def _invoices(work: Work) -> None:
    """Compare a page of Stripe's invoices."""
    state = work.state
    since = {"created": {"gte": int(state["horizon"])}} if state["horizon"] else {}
    listed, more = _list(work, "invoices", **since)
    _compare_invoices(work, listed)
    state["listed"]["invoices"] += len(listed)
    _turn_page(state, listed, more, "open invoices" if state["horizon"] else "gone customers")


def _open_invoices(work: Work) -> None:
    """Read our open invoices that are too old to be listed."""
    from kyora.billing import stripe_client

    state = work.state
    with transaction() as tx:
        rows = tx.rows(
            "SELECT id FROM invoice WHERE status = 'open' AND created_at < to_timestamp(:horizon)"
            " AND id > :after ORDER BY id LIMIT 20",
            horizon=float(state["horizon"]),
            after=state.get("cursor") or "",
        )
    for row in rows:
        try:
            _compare_invoices(work, [_ask(work, "get", f"invoices/{row['id']}")])
        except stripe_client.Missing:
            _differs(state, str(row["id"]), {"id": (row["id"], None)})
        state["cursor"] = row["id"]
    if not rows:
        _next(state, "gone customers")


def _customers(work: Work) -> None:
    """Read our customers without a live subscription, some of them in each run."""
    state = work.state
    for figures in (
        state["listed"],
        state["repaired"],
    ):  # the run may have begun before this phase existed
        figures.setdefault("customers", 0)
    with transaction() as tx:
        rows = tx.rows(
            "SELECT id FROM billing_customer c WHERE deleted_at IS NULL"
            " AND workspace_id IS NOT NULL AND id > :after AND NOT EXISTS (SELECT 1"
            "   FROM subscription WHERE customer_id = c.id"
            f"   AND status NOT IN {TERMINAL_SQL})"
            " ORDER BY id LIMIT 20",
            after=state.get("customers_after") or "",
        )
    for row in rows:
        _end_customer(work, str(row["id"]))
        state["customers_after"] = row["id"]
    state["listed"]["customers"] += len(rows)
    if not rows:
        state["customers_after"] = ""  # the next run begins at the first again
    if not rows or state["listed"]["customers"] >= _ASKED:
        _next(state, "")


_PHASES: dict[str, Callable[[Work], None]] = {
    "events": _events,
    "subscriptions": _subscriptions,
    "invoices": _invoices,
    "open invoices": _open_invoices,
    "gone customers": _customers,
}


# ---- what differs


def _compare_subscription(row: Row | None, placed: Placed) -> dict[str, tuple[object, object]]:
    """Return what differs, by field: ours and Stripe's."""
    found = placed.found
    if row is None:
        return {"id": (None, found.id)}
    wanted = subscriptions.columns(placed)
    if not access.known(found.status):  # ours stays until we know that status
        del wanted["status"]
    if placed.plan_id:
        wanted["plan_id"] = placed.plan_id
    if (
        found.price and not placed.plan_id and row["unplanned_since"] is None
    ):  # its price was a plan's until now
        wanted["unplanned_since"] = found.began_at
    if found.entitled:
        wanted["entitled"] = True
    # A row that has ended never changes again.
    return {} if row["status"] in TERMINAL else _differences(row, wanted)


def _resync(
    work: Work, customer_id: str, subscription_id: str, drift: Mapping[str, tuple[object, object]]
) -> None:
    """Mirror a subscription again; without a known `drift`, report what that changed."""
    state = work.state
    with transaction() as tx:
        before = _rows(tx, "subscription", [subscription_id]).get(subscription_id)
    try:
        known = _patiently(work, lambda: resync.subscription(customer_id, subscription_id))
    except (ConfigError, Unavailable, _OutOfTime):
        raise
    except Exception as error:
        _failed(state, subscription_id, error)
        return
    if not known:
        _differs(state, subscription_id, {"id": (subscription_id, None)})
        _end_customer(work, customer_id)
        return
    with transaction() as tx:
        after = _rows(tx, "subscription", [subscription_id]).get(subscription_id)
    if before != after:
        state["repaired"]["subscriptions"] += 1
    if not drift and before and after:
        names = set(before) - {"as_of", "doubtful"}
        drift = _differences(before, {name: after[name] for name in names})
    _differs(state, subscription_id, drift)


def _end_customer(work: Work, customer_id: str) -> None:
    """End a customer that is gone at Stripe and whose event never came."""
    try:
        over = _patiently(work, lambda: gone.customer(customer_id))
    except (ConfigError, Unavailable, _OutOfTime):
        raise
    except Exception as error:
        _failed(work.state, customer_id, error)
        return
    if over:
        repaired = work.state["repaired"]
        repaired["customers"] = repaired.get("customers", 0) + 1
        _differs(work.state, customer_id, {"deleted": (False, True)})


def _compare_invoices(work: Work, listed: Sequence[Json]) -> None:
    state = work.state
    # Drafts are mirrored once finalized: until then they change and may be deleted.
    found = [i for i in _readable(state, listed, stripe_objects.invoice) if i.status != "draft"]
    with transaction() as tx:
        rows = _rows(tx, "invoice", [one.id for one in found])
    for one in found:
        drift = _compare_invoice(rows.get(one.id), one)
        if not drift:
            continue
        _in_time(work)
        try:
            repaired = resync.invoice(one.customer, one)
        except Unavailable:
            raise
        except Exception as error:
            _failed(state, one.id, error)
            continue
        state["repaired"]["invoices"] += repaired
        _differs(state, one.id, drift)


def _compare_invoice(row: Row | None, found: StripeInvoice) -> dict[str, tuple[object, object]]:
    if row is None:
        return {"id": (None, found.id)}
    wanted = invoices.columns(found)
    for name in ("hosted_url", "pdf_url"):  # Stripe renews them; an old one works as well
        if row[name] or not wanted[name]:
            del wanted[name]
    for name in ("number", "subscription_id"):  # once known they stay
        if wanted[name] is None:
            del wanted[name]
    return _differences(row, wanted)


def _differences(row: Row, wanted: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    return {
        name: (row[name], value) for name, value in sorted(wanted.items()) if row[name] != value
    }


def _differs(state: Json, object_id: str, drift: Mapping[str, tuple[object, object]]) -> None:
    """Record what differed. The address of an invoice is a secret, so it is not shown."""
    for field, values in drift.items():
        state["differences"] += 1
        if len(state["drift"]) < _SHOWN:
            ours, theirs = ("…" if field.endswith("_url") else _plain(value) for value in values)
            state["drift"].append({"id": object_id, "field": field, "ours": ours, "stripe": theirs})


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


# ---- asking


def _list(work: Work, path: str, **params: Any) -> tuple[list[Json], bool]:
    """Return the page after the cursor, and whether there are more."""
    after = work.state.get("cursor")
    params |= {"starting_after": after} if after else {}
    page = _ask(work, "get", path, limit=_PAGE, **params)
    return page["data"], bool(page.get("has_more") and page["data"])


def _ask(work: Work, method: str, path: str, **params: Any) -> Json:
    from kyora.billing import stripe_client

    return _patiently(work, lambda: stripe_client.call(method, path, **params).object)


def _patiently[T](work: Work, ask: Callable[[], T]) -> T:
    """Call until there is an answer, pausing for as long as Stripe says. Raises _OutOfTime."""
    while True:
        _in_time(work)
        try:
            return ask()
        except Unavailable as error:
            if error.code.startswith("database"):
                raise
            pause = float(error.headers.get("Retry-After", 2))
        if work.remaining() - pause < MARGIN:
            raise _OutOfTime
        work.sleep(pause)


def _in_time(work: Work) -> None:
    if work.remaining() < MARGIN:
        raise _OutOfTime


def _turn_page(state: Json, found: Sequence[Json], more: bool, following: str) -> None:
    if more:
        state.update(cursor=found[-1]["id"], asked=None)
    else:
        _next(state, following)


def _readable[T](state: Json, listed: Sequence[Json], read: Callable[[Json], T]) -> list[T]:
    """Read Stripe's objects; one that cannot be read does not stop the rest."""
    found = []
    for one in listed:
        try:
            found.append(read(one))
        except Unreadable as error:
            _failed(state, str(one.get("id")), error)
    return found


def _failed(state: Json, object_id: str, error: Exception) -> None:
    state["failed"] += 1
    logger().error("Stripe object not reconciled", object_id=object_id[:60], **fault(error))


def _rows(
    tx: Transaction, table: Literal["subscription", "invoice"], ids: Sequence[str]
) -> dict[str, Row]:
    rows = tx.rows(f"SELECT * FROM {table} WHERE id = ANY(CAST(:ids AS text[]))", ids=list(ids))
    return {str(row["id"]): row for row in rows}


def _ids(found: Sequence[Json]) -> list[str]:
    return [str(one["id"]) for one in found]
