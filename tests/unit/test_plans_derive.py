"""Which plans follow from Stripe's products and prices, and which faults are reported."""

from collections.abc import Mapping
from typing import Any

import pytest

from kyora import limits
from kyora.billing.plans import derive
from kyora.billing.plans.derive import Catalogue, Place, PlanRow

VALUES = dict.fromkeys(limits.NAMES, 500) | {"maxBusinesses": 3, "maxStorageBytes": -1}
LIMITS = {f"limit_{name}": str(value) for name, value in VALUES.items()}
MOST = 2**53 - 1


def product(number: int = 1, plan: str = "pro", **more: Any) -> dict[str, Any]:
    metadata = {"kyora_plan": plan, **LIMITS} | more.pop("metadata", {})
    return {
        "id": f"prod_{number}",
        "active": True,
        "created": 100 + number,
        "name": "Pro",
        "description": "For shops",
        "default_price": f"price_{number}",
        "metadata": {key: text for key, text in metadata.items() if text is not None},
    } | more


def price(number: int = 1, of: int | None = None, **more: Any) -> dict[str, Any]:
    recurring = {
        "interval": more.pop("interval", "month"),
        "interval_count": more.pop("interval_count", 1),
        "usage_type": "licensed",
    } | more.pop("recurring", {})
    return {
        "id": f"price_{number}",
        "active": True,
        "type": "recurring",
        "billing_scheme": "per_unit",
        "product": f"prod_{of or number}",
        "unit_amount": 5499,
        "currency": "aed",
        "created": 1000 + number,
        "recurring": recurring,
    } | more


def plan(number: int = 1, **more: Any) -> PlanRow:
    return PlanRow(
        id="pro",
        product_id=f"prod_{number}",
        price_id=f"price_{number}",
        name="Pro",
        description="For shops",
        amount=5499,
        currency="aed",
        interval="month",
        interval_count=1,
        features={},
        limits=VALUES,
        active=True,
    )._replace(**more)


def read(
    products: list[Any],
    prices: list[Any],
    known: Mapping[str, PlanRow] | None = None,
    mapped: Mapping[str, Place] | None = None,
) -> Catalogue:
    return derive.read(products, prices, known or {}, mapped or {})


def known(*plans: PlanRow) -> dict[str, PlanRow]:
    return {one.id: one for one in plans}


def offers(found: Catalogue) -> dict[str, str]:
    """The price that each plan is offered at."""
    return {one.id: one.price_id for one in found.plans.values() if one.active}


# ---- plans


def test_a_product_and_its_price_are_a_plan() -> None:
    found = read([product(metadata={"feature_ai": "true", "feature_import": "false"})], [price()])
    assert found.plans == {"pro": plan(features={"ai": True, "import": False})}
    assert found.prices == {"price_1": Place("pro", offered=True)}
    assert found.faults == []


def test_its_other_intervals_and_currencies_are_plans_with_a_suffix() -> None:
    prices = [
        price(1),
        price(2, 1, interval="year"),
        price(3, 1, currency="eur"),
        price(4, 1, interval="year", currency="eur"),
        price(5, 1, interval_count=3),
        price(6, 1, interval="week", interval_count=2),
        price(7, 1, interval="day"),
    ]
    found = read([product()], prices)
    assert offers(found) == {
        "pro": "price_1",
        "pro-year": "price_2",
        "pro-eur": "price_3",
        "pro-year-eur": "price_4",
        "pro-3month": "price_5",
        "pro-2week": "price_6",
        "pro-day": "price_7",
    }
    assert found.faults == []
    year, weeks = found.plans["pro-year"], found.plans["pro-2week"]
    assert (year.interval, year.interval_count, year.currency) == ("year", 1, "aed")
    assert (weeks.interval, weeks.interval_count, weeks.amount) == ("week", 2, 5499)


def test_a_price_without_a_count_is_charged_every_interval() -> None:
    assert read([product()], [price(interval_count=None)]).plans["pro"].interval_count == 1


def test_a_product_without_a_name_has_its_id() -> None:
    assert read([product(name=None, description=None)], [price()]).plans == {
        "pro": plan(name="prod_1", description="")
    }


def test_a_product_that_is_not_offered_is_a_plan_that_is_not() -> None:
    found = read([product(active=False)], [price()])
    assert found.plans == {"pro": plan(active=False)}
    assert found.prices == {"price_1": Place("pro", offered=False)}
    assert read([product()], [price(active=False)]).plans == {"pro": plan(active=False)}


def test_what_names_no_plan_is_not_ours() -> None:
    assert read([product(metadata={"kyora_plan": None})], [price()]) == Catalogue({}, {}, [])
    assert read([product() | {"metadata": "none"}], [price()]) == Catalogue({}, {}, [])
    assert read([product() | {"metadata": None}], [price()]) == Catalogue({}, {}, [])
    assert read([product()], [price(2)]) == Catalogue({}, {}, [])


def test_of_prices_that_are_alike_one_is_offered() -> None:
    """The default, else the one that was, else the oldest; every other one is reported."""
    alike = [price(1, created=3), price(2, 1, created=1), price(3, 1, created=2)]
    found = read([product(default_price="price_3")], alike)
    assert offers(found) == {"pro": "price_3"}
    assert found.faults == [
        "price_2: pro is offered by price_3",
        "price_1: pro is offered by price_3",
    ]
    assert found.prices == {
        "price_1": Place("pro", offered=False),
        "price_2": Place("pro", offered=False),
        "price_3": Place("pro", offered=True),
    }
    held = known(plan(price_id="price_3"))
    assert offers(read([product(default_price=None)], alike, held)) == {"pro": "price_3"}
    assert offers(read([product(default_price=None)], alike)) == {"pro": "price_2"}
    retired = [one | {"active": one["id"] == "price_1"} for one in alike]
    assert offers(read([product(default_price="price_3")], retired)) == {"pro": "price_1"}


def test_of_prices_of_one_second_the_last_in_stripes_list_is_the_oldest() -> None:
    same = [price(n, 1, created=7) for n in (1, 3, 2)]
    assert offers(read([product(default_price=None)], same)) == {"pro": "price_2"}
    unsaid = [price(n, 1, created=None) for n in (1, 3)]
    assert offers(read([product(default_price=None)], [*unsaid, price(2, 1)])) == {"pro": "price_3"}


def test_what_stripe_has_no_more_is_not_offered() -> None:
    mapped = {"price_1": Place("pro", offered=True)}
    found = read([], [], known(plan()), mapped)
    assert found.plans == {"pro": plan(active=False)}
    assert found.prices == {"price_1": Place("pro", offered=False)}


def test_an_archived_price_stays_of_the_plan_that_it_was_of() -> None:
    mapped = {"price_2": Place("old", offered=True)}
    found = read([product()], [price(), price(2, 1, active=False)], {}, mapped)
    assert found.prices == {
        "price_1": Place("pro", offered=True),
        "price_2": Place("old", offered=False),
    }
    # One that is sold is of the plan that sells it.
    found = read([product()], [price()], {}, {"price_1": Place("old", offered=False)})
    assert found.prices == {"price_1": Place("pro", offered=True)}


def test_former_plans_of_a_product_follow_its_terms() -> None:
    """They have subscribers."""
    year = plan(id="pro-year", interval="year", price_id="price_9", name="Was", limits={})
    found = read([product()], [price()], known(plan(), year))
    assert found.plans["pro-year"] == year._replace(active=False, name="Pro", limits=VALUES)


# ---- the plan without a suffix


DOUBTS: list[tuple[str, dict[str, Any], list[Any], PlanRow | None, str, list[str]]] = [
    (
        "the default's",
        {"default_price": "price_2"},
        [price(1), price(2, 1, interval="year")],
        None,
        "price_2",
        [],
    ),
    (
        "without a default the oldest one's",
        {"default_price": None},
        [price(1), price(2, 1, interval="year", created=1)],
        None,
        "price_2",
        ["prod_1: it has no default price, so pro stays AED for 1 year"],
    ),
    (
        "without a default the oldest one's that is offered",
        {"default_price": None},
        [price(1), price(2, 1, interval="year", created=1, active=False)],
        None,
        "price_1",
        [],
    ),
    (
        "a default may be expanded",
        {"default_price": {"id": "price_2"}},
        [price(1), price(2, 1, interval="year")],
        None,
        "price_2",
        [],
    ),
    (
        "the one that it was, whatever the default is",
        {"default_price": "price_2"},
        [price(1), price(2, 1, interval_count=3)],
        plan(),
        "price_1",
        ["prod_1: its default price is AED for 3 months, and pro stays AED for 1 month"],
    ),
    (
        "the one that it was, with no price any more",
        {"default_price": None},
        [price(2, 1, interval="year")],
        plan(),
        "",
        ["prod_1: pro stays AED for 1 month, and has no such price"],
    ),
    (
        "with a default that is not its own",
        {"default_price": "price_7"},
        [price(1), price(2, 1, interval="year")],
        None,
        "price_1",
        ["prod_1: it has no default price, so pro stays AED for 1 month"],
    ),
    (
        "a product that is not offered leaves no doubt",
        {"default_price": None, "active": False},
        [price(1), price(2, 1, interval="year")],
        None,
        "",
        [],
    ),
    ("without a price", {}, [], None, "", []),
]


@pytest.mark.parametrize(
    ("more", "prices", "held", "offered", "faults"),
    [row[1:] for row in DOUBTS],
    ids=[row[0] for row in DOUBTS],
)
def test_the_plan_without_a_suffix_is(
    more: dict[str, Any],
    prices: list[Any],
    held: PlanRow | None,
    offered: str,
    faults: list[str],
) -> None:
    found = read([product(**more)], prices, known(held) if held else {})
    assert offers(found).get("pro", "") == offered
    assert found.faults == faults


# ---- several products


def test_of_two_products_that_are_one_plan_the_first_is() -> None:
    both = [product(2), product(1)]
    prices = [price(1), price(2)]
    found = read(both, prices)
    assert offers(found) == {"pro": "price_1"}  # the older
    assert found.faults == ["prod_2: prod_1 is pro already"]
    assert found.prices == {"price_1": Place("pro", offered=True)}
    # The one that holds the plan before the older; one that is offered before both.
    assert offers(read(both, prices, known(plan(2)))) == {"pro": "price_2"}
    assert offers(read(both, prices, known(plan(2, active=False)))) == {"pro": "price_1"}
    archived = [product(2, active=False), product(1)]
    found = read(archived, prices, known(plan(2)))
    assert offers(found) == {"pro": "price_1"}
    assert found.faults == []
    same = [product(2, created=5), product(1, created=5)]
    assert offers(read(same, prices)) == {"pro": "price_1"}
    unsaid = [product(1), product(2, created=None)]
    assert offers(read(unsaid, prices)) == {"pro": "price_2"}


def test_prices_of_a_product_that_is_replaced_stay_of_the_plan() -> None:
    """They have subscribers; nothing about them is reported."""
    tiers = price(3, 2, billing_scheme="tiered")
    both = [product(2, active=False), product(1)]
    found = read(both, [price(1), price(2), tiers])
    assert found.prices == {
        "price_1": Place("pro", offered=True),
        "price_2": Place("pro", offered=False),
    }
    assert found.faults == []


def test_a_products_own_name_goes_before_a_suffix() -> None:
    """`pro-year` is what a product says that it is, not the year of `pro`."""
    found = read(
        [product(1), product(2, "pro-year")], [price(1), price(3, 1, interval="year"), price(2)]
    )
    assert offers(found) == {"pro": "price_1", "pro-year": "price_2"}
    assert found.faults == ["price_3: prod_2 is pro-year already"]
    assert "price_3" not in found.prices


def test_a_plan_that_is_known_keeps_its_id() -> None:
    year = plan(id="pro-year", interval="year", price_id="price_3")
    products = [product(1), product(2, "pro-year")]
    prices = [price(1), price(3, 1, interval="year"), price(2, interval="year")]
    found = read(products, prices, known(plan(), year))
    assert offers(found) == {"pro": "price_1", "pro-year": "price_3"}
    assert found.faults == ["price_2: prod_1 is pro-year already"]
    # No longer sold, it yields to a product of that name.
    sold = [price(1), price(3, 1, interval="year", active=False), price(2, interval="year")]
    found = read(products, sold, known(plan(), year))
    assert offers(found) == {"pro": "price_1", "pro-year": "price_2"}


def test_an_id_never_moves_to_another_interval() -> None:
    products = [product(1), product(2, "pro-year")]
    year = plan(2, id="pro-year", interval="year", product_id="prod_2")
    found = read(products, [price(1), price(2)], known(plan(), year))
    assert found.plans["pro-year"] == year._replace(active=False)
    assert found.faults == [
        "prod_2: its default price is AED for 1 month, and pro-year stays AED for 1 year",
    ]


def test_two_suffixes_that_are_spelt_alike_are_not_one_plan() -> None:
    """`pro-eur` in dirhams by the month, and `pro` in euros."""
    products = [product(1, "pro-eur", default_price="price_1"), product(2, "pro")]
    prices = [price(1), price(2), price(3, 2, currency="eur"), price(4, 1, interval="year")]
    found = read(products, prices)
    assert offers(found) == {"pro": "price_2", "pro-eur": "price_1", "pro-eur-year": "price_4"}
    assert found.faults == ["price_3: prod_1 is pro-eur already"]
    # A product that is known by that id, though of another interval than what takes it now.
    held = plan(5, id="pro-eur", interval="year")
    found = read([product(2, "pro")], [price(2), price(3, 2, currency="eur")], known(held))
    assert found.faults == ["price_3: pro-eur is AED for 1 year already"]
    assert found.plans["pro-eur"] == held._replace(active=False)


def test_a_suffix_that_two_products_come_to_is_the_firsts() -> None:
    """`a` by the month in euros, and `a-eur` has no price in dirhams."""
    products = [product(1, "a"), product(2, "a-b")]
    prices = [price(1), price(2), price(3, 2, interval="year"), price(4, 1, interval="year")]
    found = read(products, prices)
    assert offers(found) == {
        "a": "price_1",
        "a-year": "price_4",
        "a-b": "price_2",
        "a-b-year": "price_3",
    }


def test_of_two_products_that_come_to_one_suffix_the_first_has_it() -> None:
    """The prices of `a` by two weeks, and those of `a-2week` in its second currency, and so on."""
    products = [product(1, "a"), product(2, "a-year")]
    prices = [price(1), price(3, 1, interval="year", currency="eur")]
    prices += [price(2), price(4, 2, currency="eur")]
    found = read(products, prices)
    assert offers(found) == {"a": "price_1", "a-year-eur": "price_3", "a-year": "price_2"}
    assert found.faults == ["price_4: prod_1 is a-year-eur already"]


def test_a_suffix_that_is_known_and_no_longer_sold_stays_while_no_one_claims_it() -> None:
    year = plan(id="pro-year", interval="year", price_id="price_3")
    sold = [price(1), price(3, 1, interval="year", active=False)]
    found = read([product(1)], sold, known(plan(), year))
    assert found.plans["pro-year"] == year._replace(active=False)
    # A product's own name stays its own, sold or not.
    products = [product(1, active=False), product(2, "x")]
    other = [price(1), price(2), price(3, 2, interval="year")]
    found = read(products, other, known(plan()))
    assert found.plans["pro"] == plan(active=False)
    assert found.faults == []


def test_another_products_former_plans_keep_their_terms() -> None:
    former = plan(2, id="x-year", interval="year", name="X", limits={})
    found = read([product(1)], [price(1)], known(former))
    assert found.plans["x-year"] == former._replace(active=False)


def test_a_new_product_that_cannot_be_read_hides_no_other() -> None:
    bad = product(1, "a", metadata={"limit_maxTeamMembers": None})
    nameless = product(3, metadata={"kyora_plan": None})
    unnamed = product(4, "A!")
    found = read([nameless, unnamed, bad, product(2, "b")], [price(1), price(2)])
    assert offers(found) == {"b": "price_2"}


def test_an_archived_price_stays_of_its_plan_though_another_is_sold() -> None:
    mapped = {"price_2": Place("pro", offered=True)}
    retired = price(2, 1, interval="year", active=False)
    found = read([product(active=True)], [price(), retired], {}, mapped)
    assert found.prices["price_2"] == Place("pro", offered=False)


def test_of_alike_prices_only_those_on_sale_are_reported() -> None:
    found = read([product()], [price(1), price(2, 1, active=False)])
    assert found.faults == []


def test_prices_that_are_alike_in_everything_are_offered_by_their_id() -> None:
    same = price(2, 1, created=7), price(1, created=7)
    assert offers(read([product(default_price="price_1")], [*same])) == {"pro": "price_1"}


def test_a_price_of_no_product_is_nobodys() -> None:
    assert read([product()], [price(product=None)]).prices == {}


# ---- faults of products


def test_an_id_that_is_none_is_reported_and_the_plan_it_was_stays() -> None:
    bad = product(metadata={"kyora_plan": "Pro!"})
    fault = 'prod_1: kyora_plan is not a plan\'s id: "Pro!"'
    assert read([bad], [price()]) == Catalogue({}, {}, [fault])
    year = plan(id="pro-year", interval="year", price_id="price_2")
    found = read([bad], [price(), price(2, 1, interval="year")], known(year, plan()))
    assert offers(found) == {"pro": "price_1", "pro-year": "price_2"}
    assert found.faults == [fault]
    # The shortest of them, whatever the alphabet says.
    longer = [plan(id="a-year", interval="year", price_id="price_2"), plan(id="b")]
    assert "b" in offers(read([bad], [price()], known(*longer)))
    # Not that of another product, and not one that is not offered.
    assert read([bad], [price()], known(plan(2))).faults == [fault]
    assert offers(read([bad], [price()], known(plan(2)))) == {}
    assert offers(read([bad], [price()], known(plan(active=False)))) == {}


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a", True),
        ("0", True),
        ("a" * 40, True),
        ("a_b-c", True),
        ("a" * 41, False),
        ("-a", False),
        ("A", False),
        ("", False),
        ("a b", False),
        ("a\n", False),
    ],
)
def test_a_plans_id_is_lower_case_letters_digits_and_dashes(name: str, good: bool) -> None:
    assert (name in read([product(plan=name)], [price()]).plans) is good


@pytest.mark.parametrize("key", ["Kyora-Plan", "kyoraPlan", "KYORA_PLAN", "kyora plan"])
def test_a_key_that_is_spelt_wrongly_is_reported(key: str) -> None:
    wrong = product(metadata={"kyora_plan": None, key: "pro"})
    assert read([wrong], [price()]) == Catalogue(
        {}, {}, [f'prod_1: its metadata "{key}" must be written kyora_plan']
    )
    assert derive.ours(wrong)
    assert not derive.ours(product(metadata={"kyora_plan": None, "plan": "pro"}))


METADATA: list[tuple[str, dict[str, str | None], str]] = [
    ("no limit", {"limit_maxTeamMembers": None}, "limit_maxTeamMembers is missing"),
    ("an empty one", {"limit_maxTeamMembers": ""}, "limit_maxTeamMembers is missing"),
    (
        "words",
        {"limit_maxTeamMembers": "five"},
        'limit_maxTeamMembers is not a whole number from -1: "five"',
    ),
    (
        "below -1",
        {"limit_maxTeamMembers": "-2"},
        'limit_maxTeamMembers is not a whole number from -1: "-2"',
    ),
    (
        "a leading nought",
        {"limit_maxTeamMembers": "05"},
        'limit_maxTeamMembers is not a whole number from -1: "05"',
    ),
    (
        "too many",
        {"limit_maxTeamMembers": f"{MOST + 1}"},
        f'limit_maxTeamMembers is not a whole number from -1: "{MOST + 1}"',
    ),
    (
        "a limit that is not ours",
        {"limit_maxCats": "3"},
        "limit_maxCats is no limit that Kyora knows",
    ),
    ("a switch that is none", {"feature_ai": "yes"}, 'feature_ai is neither true nor false: "yes"'),
    (
        "another dash",
        {"limit-maxTeamMembers": "3"},
        'its metadata "limit-maxTeamMembers" must begin with limit_ or feature_',
    ),
    (
        "another case",
        {"Feature_ai": "true"},
        'its metadata "Feature_ai" must begin with limit_ or feature_',
    ),
    ("no name", {"feature": "true"}, 'its metadata "feature" must begin with limit_ or feature_'),
]


@pytest.mark.parametrize(
    ("metadata", "fault"), [row[1:] for row in METADATA], ids=[row[0] for row in METADATA]
)
def test_of_metadata_that_cannot_be_read_is_reported(
    metadata: dict[str, str | None], fault: str
) -> None:
    bad = product(metadata=metadata)
    assert read([bad], [price()]) == Catalogue({}, {}, [f"prod_1: {fault}"])
    # What we have stays, also of a plan that is not offered, and of another product.
    had = VALUES | {"maxTeamMembers": 9}
    for held in (plan(limits=had), plan(limits=had, active=False), plan(8, limits=had)):
        found = read([bad], [price()], known(held))
        unread = "limit_maxTeamMembers" in metadata
        assert found.plans["pro"].limits == (had if unread else VALUES)
        assert found.faults == [f"prod_1: {fault}"]


@pytest.mark.parametrize("text", ["-1", "0", "1", "10", str(MOST)])
def test_a_limit_is_a_whole_number_from_minus_one(text: str) -> None:
    found = read([product(metadata={"limit_maxTeamMembers": text})], [price()])
    assert found.plans["pro"].limits["maxTeamMembers"] == int(text)


def test_a_limit_is_no_switch() -> None:
    """`true` is a word that only a feature may say."""
    bad = product(metadata={"limit_maxTeamMembers": "true"})
    found = read([bad], [price()], known(plan()))
    assert found.plans["pro"].features == {}
    assert found.faults == ['prod_1: limit_maxTeamMembers is not a whole number from -1: "true"']


def test_a_limit_and_a_switch_that_never_were_are_left_out() -> None:
    bad = product(metadata={"limit_maxTeamMembers": "five", "feature_ai": "yes"})
    found = read([bad], [price()], known(plan(limits={}, features={"other": True})))
    assert "maxTeamMembers" not in found.plans["pro"].limits
    assert found.plans["pro"].features == {}
    found = read([bad], [price()], known(plan(features={"ai": True})))
    assert found.plans["pro"].features == {"ai": True}


def test_the_plan_that_stands_in_is_the_products_own_and_offered() -> None:
    bad = product(metadata={"limit_maxTeamMembers": None})
    ours = plan(limits=VALUES | {"maxTeamMembers": 1})
    others = plan(id="pro-year", interval="year", limits=VALUES | {"maxTeamMembers": 2})
    found = read([bad], [price()], known(others, ours))
    assert found.plans["pro"].limits["maxTeamMembers"] == 1  # the shorter id
    found = read([bad], [price()], known(others, ours._replace(active=False)))
    assert found.plans["pro"].limits["maxTeamMembers"] == 2  # the one that is offered
    elsewhere = plan(8, id="x", limits=VALUES | {"maxTeamMembers": 3})
    found = read([bad], [price()], known(elsewhere, ours))
    assert found.plans["pro"].limits["maxTeamMembers"] == 1


# ---- faults of prices


UNUSABLE: list[tuple[str, dict[str, Any], str]] = [
    ("paid once", {"type": "one_time"}, "it is paid once"),
    ("paid once, too", {"recurring": None}, "it is paid once"),
    ("tiers", {"billing_scheme": "tiered"}, "it has tiers"),
    ("metered", {"recurring": {"usage_type": "metered"}}, "it is metered"),
    ("a meter", {"recurring": {"meter": "mtr_1"}}, "it is metered"),
    ("divided", {"transform_quantity": {"divide_by": 2}}, "it divides quantities"),
    ("no amount", {"unit_amount": None}, "it is no whole number of minor units"),
    ("half a cent", {"unit_amount": 0.5}, "it is no whole number of minor units"),
    ("less than nothing", {"unit_amount": -1}, "it is no whole number of minor units"),
    ("too much", {"unit_amount": MOST + 1}, "it is no whole number of minor units"),
    ("another interval", {"interval": "era"}, "its interval is unknown"),
    ("another currency", {"currency": "AED"}, "its currency is unknown"),
    ("no currency", {"currency": None}, "its currency is unknown"),
]


@pytest.mark.parametrize(
    ("more", "why"), [row[1:] for row in UNUSABLE], ids=[row[0] for row in UNUSABLE]
)
def test_a_price_that_cannot_be_a_plans_is_reported(more: dict[str, Any], why: str) -> None:
    bad = price(**more) if more.get("recurring", ()) is not None else price() | more
    assert read([product()], [bad]) == Catalogue({}, {}, [f"price_1: {why}"])
    assert read([product()], [bad | {"active": False}]) == Catalogue({}, {}, [])
    # The others are none the worse.
    assert offers(read([product(default_price=None)], [bad, price(2, 1)])) == {"pro": "price_2"}


@pytest.mark.parametrize("amount", [0, 1, MOST])
def test_an_amount_is_a_whole_number_of_minor_units(amount: int) -> None:
    assert read([product()], [price(unit_amount=amount)]).plans == {"pro": plan(amount=amount)}


def test_what_a_price_does_not_say_is_the_usual() -> None:
    plain = price()
    del plain["billing_scheme"], plain["recurring"]["usage_type"]
    assert read([product()], [plain]).faults == []


def test_other_currencies_of_one_price_are_reported() -> None:
    more = price(currency_options={"aed": {}, "eur": {}})
    assert read([product()], [more]).faults == ["price_1: its currency_options are not used"]
    assert read([product()], [more | {"active": False}]).faults == []
    assert read([product()], [price(currency_options={"aed": {}})]).faults == []
    assert offers(read([product()], [more])) == {"pro": "price_1"}


# ---- the free plan


def free(
    *plans: PlanRow, chosen: str = "", held: str | None = "was"
) -> tuple[str | None, list[str]]:
    faults: list[str] = []
    return derive.free(known(*plans), chosen, held, faults), faults


COSTLESS = plan(amount=0, id="free")


def test_the_free_plan_is_the_only_one_of_amount_0() -> None:
    assert free(plan(2), COSTLESS) == ("free", [])
    assert free(plan(2)) == ("was", [])
    assert free(plan(2, id="x", amount=1)) == ("was", [])
    assert free(COSTLESS._replace(active=False)) == ("was", [])
    # A product's plans are one, named by the shortest id, then by the first.
    assert free(COSTLESS._replace(id="free-year"), COSTLESS) == ("free", [])
    assert free(COSTLESS._replace(id="frei"), COSTLESS) == ("free", [])
    assert free(COSTLESS, COSTLESS._replace(id="free-year")) == ("free", [])
    assert free(COSTLESS._replace(id="a-year"), COSTLESS._replace(id="zero")) == ("zero", [])


def test_two_free_plans_are_a_doubt() -> None:
    two = COSTLESS._replace(id="gratis", product_id="prod_2")
    fault = "several plans cost nothing: name one of free, gratis in billing.free_plan"
    assert free(COSTLESS, two) == ("was", [fault])
    assert free(COSTLESS, two, chosen="gratis") == ("gratis", [])


def test_a_free_plan_that_is_named_has_to_be_free() -> None:
    fault = "billing.free_plan: pro is no plan that is offered for 0"
    assert free(COSTLESS, plan(2), chosen="pro") == ("was", [fault])
    assert free(chosen="pro", held=None) == (None, [fault])


# ---- differences


def test_differences_name_each_field() -> None:
    wanted = Catalogue(
        {"pro": plan(amount=1, features={"ä": True, "a": False}), "new": plan(2, id="new")},
        {
            "price_1": Place("pro", offered=True),
            "price_2": Place("new", offered=False),
            "price_3": Place("new", offered=True),
        },
        [],
    )
    mapped = {"price_1": Place("pro", offered=True), "price_2": Place("pro", offered=False)}
    assert derive.differences(wanted, known(plan()), mapped) == [
        "new: price_2 ≠ no such plan",
        "price_2: new, not offered ≠ pro, not offered",
        "price_3: new ≠ no plan",
        "pro.amount: 1 ≠ 5499",
        'pro.features: {"a": false, "ä": true} ≠ {}',
    ]
    assert derive.differences(wanted, wanted.plans, wanted.prices) == []
    # A new plan hides no other.
    first = Catalogue({"a": plan(id="a"), "pro": plan(amount=1)}, {}, [])
    assert len(derive.differences(first, known(plan()), {})) == 2


def test_a_long_difference_is_cut_off() -> None:
    wanted = Catalogue({"pro": plan(description="x" * 300)}, {}, [])
    [line] = derive.differences(wanted, known(plan(description="")), {})
    assert line == f'pro.description: "{"x" * 199} ≠ ""'


def test_what_postgres_cannot_keep_is_left_out() -> None:
    found = read([product(name="P\0ro \ud800", description=7)], [price()])
    assert (found.plans["pro"].name, found.plans["pro"].description) == ("Pro ?", "")
