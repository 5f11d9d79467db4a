"""Whatever people do, in whatever order, with webhooks late and answers lost: one subscription.

Each example is a workspace of its own on one stand-in; what it holds must follow from what Stripe
holds, once everything that was sent has arrived.
"""

import os

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.integration.support.shops import CATALOGUE, Shop
from tests.integration.support.workspaces import Workspace

WRITES_ACCOUNTS = True

# KYORA_SEEDS=200 for a thousand lives and more; a run of the suite has some.
EXAMPLES = 6 * int(os.environ.get("KYORA_SEEDS", "4"))

PLANS = st.sampled_from(sorted(CATALOGUE))
CARDS = st.sampled_from(["pm_card_visa", "pm_card_chargeCustomerFail"])
NAMES = (
    *("resume", "pay", "pay_page", "deliver", "portal_end", "portal_keep"),
    *("pause", "take_back", "later", "next_period"),
)
STEPS = st.lists(
    st.one_of(
        # Twice as often as anything else, and every second time the answer is lost.
        st.tuples(st.just("choose"), PLANS, st.booleans()),
        st.tuples(st.just("choose"), PLANS, st.booleans()),
        st.tuples(st.just("choose_now"), PLANS, st.booleans()),
        st.tuples(st.sampled_from(["page", "portal_switch"]), PLANS, st.just(False)),
        st.tuples(st.just("cancel"), st.sampled_from(["period_end", "now"]), st.booleans()),
        st.tuples(st.sampled_from(NAMES), st.just(""), st.just(False)),
        st.tuples(st.just("card"), CARDS, st.just(False)),
    ),
    max_size=8,
)
_PAID = (("choose", "professional", False), ("pay", "", False), ("deliver", "", False))
BEGINNINGS = st.sampled_from(
    [
        (),
        _PAID,
        (*_PAID, ("choose", "enterprise", True)),
        (("page", "enterprise", False), ("pay_page", "", False), ("deliver", "", False)),
        (("page", "professional", False), ("pay_page", "", False)),  # and not reported yet
    ]
)
type Step = tuple[str, str, bool]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(beginning=BEGINNINGS, steps=STEPS)
# There and back and there again, and every answer was lost: Stripe repeats the first one.
@example(
    beginning=(*_PAID, ("choose", "enterprise", True), ("choose", "professional", True)),
    steps=[("choose", "enterprise", False)],
)
@example(
    beginning=(*_PAID, ("cancel", "now", False), ("choose", "professional", True)),
    steps=[("cancel", "now", True), ("choose", "professional", False)],
)
@example(
    beginning=(*_PAID, ("cancel", "period_end", True), ("resume", "", True)),
    steps=[("cancel", "period_end", True), ("resume", "", False)],
)
@example(
    beginning=(("page", "professional", True),),
    steps=[("page", "professional", True), ("page", "enterprise", False)],
)
# The plan that is to come is switched to before that, and left again, each a moment later.
@example(
    beginning=(*_PAID, ("choose", "starter", False)),
    steps=[("portal_switch", "starter", False)],
)
@example(
    beginning=(*_PAID, ("choose", "starter", False), ("later", "", False)),
    steps=[("portal_switch", "starter", False), ("later", "", False)],
)
@example(
    beginning=(*_PAID, ("choose", "starter", False), ("later", "", False)),
    steps=[
        *(("portal_switch", "starter", False), ("later", "", False)),
        *(("portal_switch", "enterprise", False), ("later", "", False)),
    ],
)
@example(
    beginning=(*_PAID, ("choose", "starter", False)),
    steps=[("portal_end", "", False)],
)
def test_a_workspace_has_one_subscription_and_it_is_stripes(
    beginning: tuple[Step, ...], steps: list[Step], shop: Shop
) -> None:
    workspace = Workspace(shop)
    for name, what, lost in (*beginning, *steps):
        workspace.do(name, what, lost=lost)
    workspace.agrees_with_stripe()
