"""Plans follow Stripe's products and prices, in whatever order changes and requests come."""

import json
import random
import re
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kyora import config, limits, postgres
from kyora.billing import stripe_client, stripe_objects
from kyora.billing.events import ingest
from kyora.billing.plans import derive, offers, push, sync
from kyora.errors import ConfigError, Conflict, Invalid, NotFound, Unavailable
from kyora.postgres.connection import connect
from local.settings import ROOT
from tests.integration.support.plan_server import (
    KEY,
    StripeServer,
    stripe_server,
    sync_plans,
)
from tests.integration.support.workers import Crew
from tests.scripted import Answer, Request, scripted
from tests.unit.functions import CONTEXT, function

ALLOWED = dict.fromkeys(limits.NAMES, -1)
ALLOWED |= {"maxBusinesses": 3, "maxTeamMembers": 5, "maxOrdersPerMonth": 500}
LIMITS = {f"limit_{name}": str(allowed) for name, allowed in ALLOWED.items()}


@pytest.fixture(scope="module")
def _stripe() -> Iterator[StripeServer]:
    with stripe_server() as found:
        yield found


@pytest.fixture
def stripe(
    _stripe: StripeServer, database: str, environment: pytest.MonkeyPatch
) -> Iterator[StripeServer]:
    _stripe.reset()
    environment.setenv("BILLING_STRIPE_API_KEY", KEY)
    environment.setenv("BILLING_STRIPE_BASE_URL", _stripe.url)
    config.forget()
    config.require(config.database_url, config.bus_name, config.billing)
    yield _stripe
    stripe_client._clients.clear()


def product(stripe: StripeServer, plan: str, **metadata: str) -> str:
    given = {"kyora_plan": plan, **LIMITS, **metadata}
    return str(stripe.post("products", name=plan.title(), metadata=given)["id"])


def price(stripe: StripeServer, of: str, amount: int = 5499, **more: Any) -> str:
    recurring = {"interval": more.pop("interval", "month")}
    given = {"currency": "aed", "unit_amount": amount, "recurring": recurring, **more}
    return str(stripe.post("prices", product=of, **given)["id"])


def default(stripe: StripeServer, of: str, price_id: str) -> None:
    stripe.post(f"products/{of}", default_price=price_id)


def listed() -> list[dict[str, Any]]:
    """The plans of the catalogue that the API offers."""
    found = [p.model_dump(by_alias=True) for p in offers.listed().items]
    return [plan for plan in found if plan["stripePriceId"]]


def shown(plan_id: str) -> dict[str, Any] | None:
    """A plan as the API shows it, or None."""
    try:
        return offers.get(plan_id).model_dump(by_alias=True)
    except NotFound:
        return None


def rows(sql: str) -> list[dict[str, Any]]:
    with postgres.transaction() as tx:
        return tx.rows(sql)


def offered() -> dict[str, str]:
    return {str(p["id"]): str(p["stripePriceId"]) for p in listed()}


def places() -> dict[str, str]:
    return {r["price_id"]: r["plan_id"] for r in rows("SELECT price_id, plan_id FROM plan_price")}


def deliver(events: list[dict[str, Any]]) -> None:
    for event in events:
        found = stripe_objects.event(event)
        assert found is not None
        ingest.take(found, json.dumps(event), "webhook")


def test_a_product_is_a_plan_for_each_interval_and_currency(stripe: StripeServer) -> None:
    pro = product(stripe, "professional", feature_dataImport="true", feature_ai="false")
    month = price(stripe, pro)
    default(stripe, pro, month)
    year = price(stripe, pro, 54900, interval="year")
    euro = price(stripe, pro, 1499, currency="eur")
    both = price(stripe, pro, 14900, currency="eur", interval="year")

    report = sync.sync()

    assert offered() == {
        "professional": month,
        "professional-year": year,
        "professional-eur": euro,
        "professional-year-eur": both,
    }
    assert report.created == sorted(offered())
    assert shown("professional") == {
        "id": "professional",
        "name": "Professional",
        "description": "",
        "stripeProductId": pro,
        "stripePriceId": month,
        "amount": 5499,
        "currency": "AED",
        "interval": "month",
        "intervalCount": 1,
        "features": {"dataImport": True, "ai": False},
        "limits": ALLOWED,
        "active": True,
    }


def test_a_second_sync_finds_nothing_and_emits_nothing(stripe: StripeServer) -> None:
    price(stripe, product(stripe, "professional"))
    sync.sync()
    assert sync.sync() == sync.Report([], [], [], [], [])
    reported = rows("SELECT detail FROM outbox WHERE detail_type = 'PlansSynced'")
    assert [row["detail"]["data"] for row in reported] == [
        {"created": ["professional"], "updated": [], "archived": []}
    ]


def test_a_check_says_what_differs_and_changes_nothing(stripe: StripeServer) -> None:
    pro = product(stripe, "professional")
    month = price(stripe, pro)
    sync.sync()
    stripe.post(f"products/{pro}", metadata={"limit_maxBusinesses": "9"}, name="Pro")

    report = sync.sync(check=True)

    assert 'professional.name: "Pro" ≠ "Professional"' in report.drift
    assert len(report.drift) == 2
    assert report.updated == ["professional"]
    assert sync.sync(check=True) == report
    sync.sync()
    assert sync.sync(check=True).drift == []
    assert offered() == {"professional": month}


def test_a_sync_counts_what_no_event_had_reported_and_a_check_does_not(
    stripe: StripeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    pro = product(stripe, "professional")
    price(stripe, pro)
    sync.sync()
    stripe.post(f"products/{pro}", metadata={"limit_maxBusinesses": "9"})
    capsys.readouterr()
    sync.sync(check=True)
    assert "PlanDrift" not in capsys.readouterr().out
    sync.sync()
    sync.sync()
    assert re.findall(r'"PlanDrift":\[(\S+?)\]', capsys.readouterr().out) == ["1.0", "0.0"]


def test_an_archived_price_keeps_its_subscribers_and_is_not_offered(stripe: StripeServer) -> None:
    pro = product(stripe, "professional")
    old = price(stripe, pro)
    sync.sync()
    new = price(stripe, pro, 6499)
    default(stripe, pro, new)
    stripe.post(f"prices/{old}", active=False)
    sync.sync()
    assert offered() == {"professional": new}
    assert places() == {old: "professional", new: "professional"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("limit_maxBusinesses", v) for v in ("-2", "1.5", "many", "01", "1e3", "9" * 17, "٣")),
        ("limit_maxBusinesses", ""),  # Stripe takes it away
        *(("feature_dataImport", v) for v in ("yes", "TRUE", "1", " true")),
    ],
)
def test_a_bad_value_keeps_the_old_one_and_makes_no_new_plan(
    stripe: StripeServer, key: str, value: str
) -> None:
    pro = product(stripe, "professional", feature_dataImport="true")
    price(stripe, pro)
    sync.sync()
    before = shown("professional")
    stripe.post(f"products/{pro}", metadata={key: value})
    fresh = product(stripe, "enterprise", **{"feature_dataImport": "true", key: value})
    price(stripe, fresh)

    report = sync.sync()

    assert shown("professional") == before
    assert shown("enterprise") is None
    assert [f.split(":")[0] for f in report.faults] == [fresh, pro]
    assert all(key in fault for fault in report.faults)


@pytest.mark.parametrize(
    "more",
    [
        {"recurring": None},
        {"recurring": {"interval": "month", "usage_type": "metered"}},
        {"unit_amount": None, "unit_amount_decimal": "0.5"},
        {"unit_amount": None, "billing_scheme": "tiered", "tiers_mode": "volume",
         "tiers": [{"up_to": "inf", "unit_amount": 5}]},
    ],
)  # fmt: skip
def test_a_price_that_is_no_plan_is_reported(stripe: StripeServer, more: dict[str, Any]) -> None:
    pro = product(stripe, "professional")
    given = {k: v for k, v in more.items() if v is not None}
    gone = {k for k, v in more.items() if v is None}
    base = {"currency": "aed", "unit_amount": 5, "recurring": {"interval": "month"}, **given}
    odd = stripe.post("prices", product=pro, **{k: v for k, v in base.items() if k not in gone})
    good = price(stripe, pro)
    default(stripe, pro, str(odd["id"]))
    report = sync.sync()
    assert offered() == {"professional": good}
    assert [fault.split(":")[0] for fault in report.faults] == [odd["id"]]


def test_of_two_alike_the_default_price_is_offered_and_both_are_of_the_plan(
    stripe: StripeServer,
) -> None:
    pro = product(stripe, "professional")
    first = price(stripe, pro)
    default(stripe, pro, first)
    second = price(stripe, pro, 1)
    report = sync.sync()
    assert offered() == {"professional": first}
    assert places() == {first: "professional", second: "professional"}
    assert report.faults == [f"{second}: professional is offered by {first}"]


def test_a_product_without_our_metadata_is_none_of_ours(stripe: StripeServer) -> None:
    price(stripe, str(stripe.post("products", name="Mug")["id"]))
    assert sync.sync() == sync.Report([], [], [], [], [])


def test_a_renamed_plan_is_another_one_and_the_old_one_is_archived(stripe: StripeServer) -> None:
    pro = product(stripe, "professional")
    month = price(stripe, pro)
    sync.sync()
    stripe.post(f"products/{pro}", metadata={"kyora_plan": "pro"})
    report = sync.sync()
    assert (report.created, report.archived) == (["pro"], ["professional"])
    assert offered() == {"pro": month}


@pytest.mark.parametrize("renamed", ["basic", "pro"])  # read before and after the other one
def test_a_name_that_a_product_gave_up_is_free_for_another(
    stripe: StripeServer, renamed: str
) -> None:
    first = product(stripe, "gold")
    month = price(stripe, first)
    sync.sync()
    stripe.post(f"products/{first}", metadata={"kyora_plan": renamed})
    second = price(stripe, product(stripe, "gold"))
    assert sync.sync().faults == []
    assert offered() == {renamed: month, "gold": second}


def test_a_product_of_a_suffixs_name_waits_until_that_is_not_sold(stripe: StripeServer) -> None:
    gold = product(stripe, "gold")
    month = price(stripe, gold)
    default(stripe, gold, month)
    year = price(stripe, gold, 54900, interval="year")
    sync.sync()
    own = price(stripe, product(stripe, "gold-year"), 49900, interval="year")
    report = sync.sync()
    assert offered() == {"gold": month, "gold-year": year}
    assert report.faults == [f"{own}: {gold} is gold-year already"]
    stripe.post(f"prices/{year}", active=False)
    sync.sync()
    assert offered() == {"gold": month, "gold-year": own}


def test_new_limits_reach_the_workspaces_of_the_plan_and_of_the_free_one(
    stripe: StripeServer,
) -> None:
    pro, free = product(stripe, "professional"), product(stripe, "starter")
    month = price(stripe, pro)
    sync.sync()
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO workspace_billing (workspace_id, plan_id, access, limits, status) VALUES"
            " ('ws_demo', 'professional', 'full', '{}', 'active'),"
            " ('ws_other', 'free', 'free', '{}', 'free')"
        )
        tx.run(
            "INSERT INTO subscription (id, customer_id, status, price_id, began_at, as_of)"
            " VALUES ('sub_1', 'cus_1', 'active', :price, now(), 0)",
            price=month,
        )
    stripe.post(f"products/{pro}", metadata={"limit_maxBusinesses": "7"})
    stripe.post(f"products/{free}", metadata={"limit_maxBusinesses": "2"})
    price(stripe, free, 0)

    sync.sync()

    found = rows("SELECT plan_id, limits FROM workspace_billing ORDER BY workspace_id")
    assert [(r["plan_id"], r["limits"]["maxBusinesses"]) for r in found] == [
        ("professional", 7),
        ("starter", 2),
    ]
    assert rows("SELECT plan_id, doubtful FROM subscription") == [
        {"plan_id": "professional", "doubtful": True}
    ]


def test_new_limits_reach_a_workspace_that_is_settled_at_the_same_moment(
    stripe: StripeServer, database: str
) -> None:
    """Its worker has locked the row and read the plan, and has not written yet."""
    push.push(SAMPLE)
    sync.sync()
    with postgres.transaction() as tx:
        limits.lock(tx, "ws_demo")
    raised = tomllib.loads((ROOT / "plans.toml").read_text())
    raised["plans"]["professional"]["limits"]["maxBusinesses"] = 77
    push.push(raised)
    other = connect(database, development=True)
    other.run("BEGIN")
    other.run("SELECT 1 FROM workspace_billing WHERE workspace_id = 'ws_demo' FOR UPDATE")
    [[before]] = other.run("SELECT limits::text FROM plan WHERE id = 'professional'")
    with ThreadPoolExecutor(1) as second:
        done = second.submit(sync.sync)
        with suppress(TimeoutError):
            done.result(1)
        other.run(
            "UPDATE workspace_billing SET plan_id = 'professional', access = 'full',"
            " limits = CAST(:before AS jsonb) WHERE workspace_id = 'ws_demo'",
            before=before,
        )
        other.run("COMMIT")
        done.result(60)
    other.close()
    [row] = rows("SELECT limits FROM workspace_billing WHERE workspace_id = 'ws_demo'")
    assert row["limits"]["maxBusinesses"] == 77


@pytest.mark.parametrize("archived", [False, True])
def test_the_built_in_free_plan_is_offered_while_no_catalogue_has_one(
    stripe: StripeServer, *, archived: bool
) -> None:
    if archived:
        its = product(stripe, "free")
        default(stripe, its, price(stripe, its, 900))
        sync.sync()
        stripe.post(f"products/{its}", active=False)
        sync.sync()
    assert [(plan.id, plan.amount) for plan in offers.listed().items] == [("free", 0)]
    assert offers.offered("free").stripe_price_id is None


@pytest.mark.parametrize("seed", range(4))
def test_webhooks_in_any_order_and_twice_end_where_a_sync_does(
    stripe: StripeServer, seed: int
) -> None:
    pro = product(stripe, "professional")
    old = price(stripe, pro)
    new = price(stripe, pro, 6499)
    default(stripe, pro, new)
    stripe.post(f"prices/{old}", active=False)
    gone = product(stripe, "gone")
    stripe.delete(f"products/{gone}")
    events = [e for e in stripe.events() if e["type"].startswith(("product.", "price."))]
    assert {e["type"] for e in events} >= {"product.deleted", "price.updated"}
    twice = events * 2
    random.Random(seed).shuffle(twice)

    deliver(twice)

    assert sync.sync(check=True).drift == []
    assert offered() == {"professional": new}
    assert {r["status"] for r in rows("SELECT status FROM stripe_event")} == {"processed"}


def test_an_answer_that_someone_overtook_is_not_applied(
    stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pro = product(stripe, "professional")
    price(stripe, pro)
    ask, asked = sync._ask, []

    def overtaken() -> Any:
        found = ask()
        asked.append(found)
        if len(asked) == 1:
            stripe.post(f"products/{pro}", name="Newer")
            sync.sync()
        return found

    monkeypatch.setattr(sync, "_ask", overtaken)
    sync.sync()
    assert len(asked) == 3
    assert [plan["name"] for plan in listed()] == ["Newer"]


def test_a_product_that_is_gone_leaves_its_plan_archived(stripe: StripeServer) -> None:
    pro = product(stripe, "professional")
    price(stripe, pro)
    sync.sync()
    stripe.reset()
    assert sync.sync().archived == ["professional"]
    assert listed() == []
    assert shown("professional") is not None


# ---- push

SAMPLE = tomllib.loads((ROOT / "plans.toml").read_text())


def sample(amount: int = 5499) -> dict[str, Any]:
    found = tomllib.loads((ROOT / "plans.toml").read_text())
    found["plans"]["professional"]["prices"][0]["amount"] = amount
    return found


def test_the_sample_is_pushed_once_and_is_then_what_is_synced(stripe: StripeServer) -> None:
    assert len(push.push(SAMPLE).created) == 6
    reported = len(stripe.events())
    assert push.push(SAMPLE) == push.Pushed([], [], [])
    assert len(stripe.events()) == reported
    sync.sync()
    assert sync.sync(check=True) == sync.Report([], [], [], [], [])
    found = {str(p["id"]): (p["amount"], p["limits"]) for p in listed()}
    assert found == {
        name: (plan["prices"][0]["amount"], plan["limits"])
        for name, plan in SAMPLE["plans"].items()
    }
    [free] = rows("SELECT id FROM free_plan")
    assert free["id"] == "starter"


def test_a_changed_price_is_a_new_one_and_the_old_one_is_archived(stripe: StripeServer) -> None:
    push.push(sample())
    sync.sync()
    old = offered()["professional"]
    pushed = push.push(sample(6499))
    assert (len(pushed.created), pushed.archived) == (1, [old])
    sync.sync()
    assert offered()["professional"] == pushed.created[0]
    assert places()[old] == "professional"
    assert push.push(sample(6499)) == push.Pushed([], [], [])
    # and back again, within the day that Stripe remembers idempotency keys
    push.push(sample())
    sync.sync()
    assert (shown("professional") or {})["amount"] == 5499


def test_a_push_touches_nothing_else_of_the_account(stripe: StripeServer) -> None:
    mug = str(stripe.post("products", name="Mug", metadata={"limit_x": "1"})["id"])
    price(stripe, mug)
    own = price(stripe, product(stripe, "professional", mine="kept", feature_old="true"))
    before = stripe_client.call("get", f"products/{mug}").object
    push.push(SAMPLE)
    assert stripe_client.call("get", f"products/{mug}").object == before
    assert stripe_client.call("get", f"prices/{own}").object["active"]
    of = str(stripe_client.call("get", f"prices/{own}").object["product"])
    metadata = stripe_client.call("get", f"products/{of}").object["metadata"]
    assert metadata["mine"] == "kept"
    assert "feature_old" not in metadata


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prices", []),
        ("prices", [{"amount": 5.5, "currency": "aed", "interval": "month"}]),
        ("prices", [{"amount": 5, "currency": "AED", "interval": "month"}]),
        ("prices", [{"amount": 5, "currency": "aed", "interval": "month"}] * 2),
        ("limits", {"maxBusinesses": 1}),
        ("limits", {**dict(SAMPLE["plans"]["starter"]["limits"]), "maxBusinesses": -2}),
        ("features", ["no blanks"]),
        ("colour", "blue"),
    ],
)
def test_a_faulty_catalogue_is_refused_before_anything_is_pushed(
    stripe: StripeServer, field: str, value: object
) -> None:
    given = sample()
    given["plans"]["starter"][field] = value
    with pytest.raises(Invalid) as refusal:
        push.push(given)
    assert refusal.value.errors[0]["field"].startswith(f"plans.starter.{field}")
    assert stripe.events() == []


def test_two_products_that_are_the_same_plan_stop_a_push(stripe: StripeServer) -> None:
    product(stripe, "starter")
    product(stripe, "starter")
    with pytest.raises(Conflict) as refusal:
        push.push(SAMPLE)
    assert refusal.value.code == "billing.catalogue_ambiguous"


# ---- any catalogue, in parallel, and the function


KINDS = [(i, c) for i in ("month", "year") for c in ("aed", "eur")]
CATALOGUES = st.dictionaries(
    st.sampled_from(["a", "b", "a-year"]),
    st.lists(st.tuples(st.sampled_from(KINDS), st.booleans()), max_size=5),
    max_size=3,
)


@given(drawn=CATALOGUES, order=st.randoms(use_true_random=False))
def test_any_catalogue_offers_the_oldest_active_price_of_each_kind(
    drawn: dict[str, list[tuple[tuple[str, str], bool]]], order: random.Random
) -> None:
    products = [
        {"id": f"prod_{name}", "active": True, "created": 1, "name": name,
         "metadata": {"kyora_plan": name, **LIMITS}}
        for name in drawn
    ]  # fmt: skip
    prices = [
        {"id": f"price_{name}_{at}", "product": f"prod_{name}", "active": active, "created": at,
         "type": "recurring", "unit_amount": at, "currency": kind[1],
         "recurring": {"interval": kind[0], "interval_count": 1}}
        for name, listed in drawn.items()
        for at, (kind, active) in enumerate(listed)
    ]  # fmt: skip
    order.shuffle(products)
    order.shuffle(prices)

    found = derive.read(products, prices, {}, {})

    offers = {(p.product_id, p.interval, p.currency): p for p in found.plans.values() if p.active}
    for name, listed in drawn.items():
        oldest = {kind: at for at, (kind, active) in reversed([*enumerate(listed)]) if active}
        for kind, at in oldest.items():
            plan = offers.pop((f"prod_{name}", *kind), None)
            clash = any("already" in fault for fault in found.faults)
            assert clash if plan is None else plan.price_id == f"price_{name}_{at}"
        if oldest:
            [base] = [p for p in found.plans.values() if p.id == name]
            assert base.price_id == f"price_{name}_{min(oldest.values())}"
        if len(oldest) > 1:
            assert any(f"prod_{name}: it has no default price" in it for it in found.faults)
    assert offers == {}
    again = derive.read(products, prices, found.plans, found.prices)
    assert derive.differences(again, found.plans, found.prices) == []


@given(drawn=CATALOGUES, more=CATALOGUES, at=st.sampled_from(range(6)))
# Another product's suffix, of prices that are not sold or are, and a product of a suffix's name.
@example(
    drawn={"a-year": [(("year", "eur"), True), (("year", "aed"), True)]},
    more={"a": [*[(("month", "aed"), False)] * 3, (("month", "eur"), False),
                (("year", "aed"), False)]},
    at=3,
)  # fmt: skip
@example(
    drawn={"a-year": [(("year", "eur"), True), (("year", "aed"), True)]},
    more={"a": [(("month", "eur"), True), (("year", "aed"), True)]},
    at=0,
)
@example(
    drawn={"a": [(("month", "aed"), True), (("year", "aed"), True)]},
    more={"a-year": [(("year", "aed"), True)]},
    at=0,
)
def test_whatever_is_added_to_a_catalogue_no_id_changes_its_kind(
    drawn: dict[str, list[tuple[tuple[str, str], bool]]],
    more: dict[str, list[tuple[tuple[str, str], bool]]],
    at: int,
) -> None:
    def given_(catalogue_: dict[str, Any], default: int = -1) -> tuple[list[Any], list[Any]]:
        products = [
            {"id": f"prod_{name}", "active": True, "created": 1, "name": name,
             "default_price": f"price_{name}_{default}",
             "metadata": {"kyora_plan": name, **LIMITS}}
            for name in catalogue_
        ]  # fmt: skip
        prices = [
            {"id": f"price_{name}_{at}", "product": f"prod_{name}", "active": active,
             "created": at, "type": "recurring", "unit_amount": at, "currency": kind[1],
             "recurring": {"interval": kind[0], "interval_count": 1}}
            for name, listed in catalogue_.items()
            for at, (kind, active) in enumerate(listed)
        ]  # fmt: skip
        return products, prices

    before = derive.read(*given_(drawn), {}, {})
    grown = {name: [*drawn.get(name, []), *more.get(name, [])] for name in {*drawn, *more}}
    after = derive.read(*given_(grown, at), before.plans, before.prices)
    for name, plan in before.plans.items():
        now = after.plans[name]
        assert (now.interval, now.currency) == (plan.interval, plan.currency)
        if plan.active:  # and is still sold for what it was, unless the default price says so
            assert now.active
            assert now.product_id == plan.product_id
            assert now.price_id == plan.price_id or now.price_id.endswith(f"_{at}")


def test_a_yearly_price_beside_a_monthly_one_leaves_the_plan_alone(stripe: StripeServer) -> None:
    gold = product(stripe, "gold")
    month = price(stripe, gold, 9900)
    sync.sync()
    year = price(stripe, gold, 99000, interval="year")
    report = sync.sync()
    assert offered() == {"gold": month, "gold-year": year}
    assert report.faults == [f"{gold}: it has no default price, so gold stays AED for 1 month"]
    default(stripe, gold, year)
    report = sync.sync()
    assert offered() == {"gold": month, "gold-year": year}
    assert report.faults == [
        f"{gold}: its default price is AED for 1 year, and gold stays AED for 1 month"
    ]
    default(stripe, gold, month)
    assert sync.sync().faults == []


def test_a_second_price_beside_the_one_that_is_sold_is_not_sold_for_it(
    stripe: StripeServer,
) -> None:
    gold = product(stripe, "gold")
    month = price(stripe, gold, 9900)
    sync.sync()
    dearer = price(stripe, gold, 19900)
    report = sync.sync()
    assert offered() == {"gold": month}
    assert report.faults == [f"{dearer}: gold is offered by {month}"]


def test_a_plan_whose_last_price_is_archived_is_not_sold_by_the_year(stripe: StripeServer) -> None:
    gold = product(stripe, "gold")
    month = price(stripe, gold, 9900)
    year = price(stripe, gold, 99000, interval="year")
    default(stripe, gold, month)
    sync.sync()
    default(stripe, gold, year)
    stripe.post(f"prices/{month}", active=False)
    report = sync.sync()
    assert offered() == {"gold-year": year}
    assert len(report.faults) == 1


@pytest.mark.parametrize("key", ["Kyora_Plan", "kyora-plan", "KYORA_PLAN", "kyoraPlan"])
def test_a_name_that_is_written_otherwise_is_reported(stripe: StripeServer, key: str) -> None:
    gold = stripe.post("products", name="Gold", metadata={key: "gold", **LIMITS})["id"]
    price(stripe, str(gold))
    report = sync.sync()
    assert offered() == {}
    assert report.faults == [f'{gold}: its metadata "{key}" must be written kyora_plan']


@pytest.mark.parametrize("key", ["Limit_maxBusinesses", "limit-maxBusinesses", "Feature_ai"])
def test_a_limit_that_is_written_otherwise_is_reported(stripe: StripeServer, key: str) -> None:
    gold = product(stripe, "gold", limited="yes")
    price(stripe, gold)
    assert sync.sync().faults == []
    stripe.post(f"products/{gold}", metadata={key: "9"})
    assert sync.sync().faults == [
        f'{gold}: its metadata "{key}" must begin with limit_ or feature_'
    ]


# ---- the free plan


def free_id() -> str:
    [row] = rows("SELECT id FROM free_plan")
    return str(row["id"])


def test_a_second_plan_at_0_changes_nothing_and_is_a_fault(stripe: StripeServer) -> None:
    first = price(stripe, product(stripe, "starter"), 0)
    sync.sync()
    other = product(stripe, "anything", limit_maxBusinesses="-1")
    price(stripe, other, 0)
    report = sync.sync()
    assert free_id() == "starter"
    assert "several plans cost nothing" in report.faults[0]
    stripe.post(f"prices/{first}", active=False)
    assert sync.sync().faults == []
    assert free_id() == "anything"


def test_two_plans_at_0_from_the_beginning_are_none(stripe: StripeServer) -> None:
    for plan in ("starter", "anything"):
        price(stripe, product(stripe, plan), 0)
    assert len(sync.sync().faults) == 1
    assert free_id() == "free"


def test_the_free_plan_is_the_one_that_is_configured(
    stripe: StripeServer, environment: pytest.MonkeyPatch
) -> None:
    for plan in ("starter", "anything"):
        price(stripe, product(stripe, plan), 0)
    environment.setenv("BILLING_FREE_PLAN", "starter")
    config.forget()
    report = sync.sync()
    assert report.faults == []
    assert "free plan: starter ≠ None" in report.drift
    assert free_id() == "starter"
    assert sync.sync(check=True).drift == []


@pytest.mark.parametrize("named", ["gold", "nothing"])
def test_a_free_plan_that_is_none_changes_nothing_and_is_a_fault(
    named: str, stripe: StripeServer, environment: pytest.MonkeyPatch
) -> None:
    price(stripe, product(stripe, "starter"), 0)
    price(stripe, product(stripe, "gold"))
    sync.sync()
    environment.setenv("BILLING_FREE_PLAN", named)
    config.forget()
    assert sync.sync().faults == [f"billing.free_plan: {named} is no plan that is offered for 0"]
    assert free_id() == "starter"


def test_a_free_plan_by_the_month_and_the_year_is_one(stripe: StripeServer) -> None:
    starter = product(stripe, "starter")
    default(stripe, starter, price(stripe, starter, 0))
    price(stripe, starter, 0, interval="year")
    assert sync.sync().faults == []
    assert free_id() == "starter"


def test_a_subscription_is_looked_at_again_when_a_price_behind_its_first_becomes_a_plans(
    stripe: StripeServer,
) -> None:
    month = price(stripe, product(stripe, "gold"))
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO subscription (id, customer_id, status, price_id, prices, unplanned_since,"
            " began_at, as_of) VALUES ('sub_1', 'cus_1', 'active', 'price_addon',"
            " CAST(:prices AS text[]), now(), now(), 0)",
            prices=["price_addon", month],
        )
    sync.sync()
    assert rows("SELECT doubtful FROM subscription") == [{"doubtful": True}]


def test_syncs_at_once_do_no_harm(stripe: StripeServer, crew: Crew) -> None:
    push.push(SAMPLE)
    outcomes = crew.each(sync_plans, [()] * crew.size)
    assert set(outcomes) <= {"synced", "billing.busy"}
    assert sync.sync(check=True).drift == []
    assert len(rows("SELECT 1 FROM outbox WHERE detail_type = 'PlansSynced'")) == 1


def deploy(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Call the function as CloudFormation does; return what the stack gets."""
    reported: list[Request] = []

    def stack(request: Request) -> Answer:
        reported.append(request)
        return Answer()

    with scripted(stack) as server:
        event = {
            "RequestType": "Create",
            "ResponseURL": server.url,
            "StackId": "stack",
            "RequestId": "1",
            "LogicalResourceId": "PlanSync",
            "ResourceProperties": {"Migration": "1"},
        }
        function("sync_plans").handler(event, CONTEXT)
    answer: dict[str, Any] = json.loads(reported[0].body)
    return answer


def test_a_deploy_syncs(stripe: StripeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    price(stripe, product(stripe, "professional"))
    assert deploy(monkeypatch)["Status"] == "SUCCESS"
    assert list(offered()) == ["professional"]


def test_a_deploy_goes_on_when_stripe_is_down_and_the_schedule_fails(
    stripe: StripeServer, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("BILLING_STRIPE_BASE_URL", "http://127.0.0.1:9")
    environment.setattr(stripe_client, "_RETRIES", 0)
    config.forget()
    assert deploy(environment)["Status"] == "SUCCESS"
    with pytest.raises(Unavailable):
        function("sync_plans").handler({"source": "aws.scheduler"}, CONTEXT)


def test_a_deploy_goes_on_when_stripe_refuses_the_key_and_the_schedule_fails(
    stripe: StripeServer, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("BILLING_STRIPE_API_KEY", "sk_test_refused")
    config.forget()
    assert deploy(environment)["Status"] == "SUCCESS"
    with pytest.raises(ConfigError):
        function("sync_plans").handler({"source": "aws.scheduler"}, CONTEXT)


def test_nothing_happens_automatically_when_it_is_turned_off(
    stripe: StripeServer, environment: pytest.MonkeyPatch
) -> None:
    price(stripe, product(stripe, "professional"))
    environment.setenv("BILLING_AUTO_SYNC_PLANS", "false")
    config.forget()
    function("sync_plans").handler({"source": "aws.scheduler"}, CONTEXT)
    assert listed() == []
    function("sync_plans").handler({"sync": True}, CONTEXT)
    assert list(offered()) == ["professional"]


def test_a_faulty_catalogue_is_reported_to_who_pushes_it(stripe: StripeServer) -> None:
    answer = function("sync_plans").handler({"push": {"plans": {"a": {}}}}, CONTEXT)
    assert answer["refused"]["code"] == "request.validation_failed"


class Cut(Exception):
    """The push ends here, as a function's time limit ends it."""


@pytest.mark.parametrize("answered", [False, True])
def test_a_push_that_stops_anywhere_is_finished_by_the_next(
    stripe: StripeServer, monkeypatch: pytest.MonkeyPatch, *, answered: bool
) -> None:
    whole = stripe_client.call
    calls = 0

    def cut(method: str, path: str, **params: Any) -> stripe_client.Answer:
        nonlocal calls
        calls += method == "post"
        last = method == "post" and calls == at
        if last and not answered:
            raise Cut
        answer = whole(method, path, **params)
        if last:
            raise Cut
        return answer

    for at in range(1, 20):
        stripe.reset()
        push.push(sample())
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(stripe_client, "call", cut)
            try:
                push.push(dearer())
            except Cut:
                stopped = True
            else:
                stopped = False
        push.push(dearer())
        active = [p for p in stripe_client.pages("prices") if p["active"]]
        assert sorted(p["unit_amount"] for p in active) == [0, 6499, 15599, 64900]
        assert push.push(dearer()) == push.Pushed([], [], [])
        if not stopped:
            assert calls == at - 1
            return
    raise AssertionError("a push has no end")


def dearer() -> dict[str, Any]:
    found = sample(6499)
    professional = found["plans"]["professional"]
    professional["name"] = "Pro"
    professional["prices"].append({"amount": 64900, "currency": "aed", "interval": "year"})
    return found
