"""The registry of Stripe's event types: what derives from it, and what the documents list."""

import re

from kyora.billing.events import types
from kyora.billing.jobs import reconcile
from local.settings import ROOT
from local.stripe.sdk.contract import read_shape

SUBSCRIBED = sorted({*types.HANDLERS, *types.CATALOGUE})


def test_reconcile_lists_by_no_more_types_than_stripe_takes() -> None:
    assert sorted(types.HANDLERS) == [kind for batch in reconcile.BATCHES for kind in batch]
    assert all(0 < len(batch) <= types.LISTED_AT_MOST for batch in reconcile.BATCHES)


def test_every_type_is_one_of_stripes_and_the_catalogue_has_all_of_its_own() -> None:
    known = read_shape("event", "type")
    assert known is not None
    assert set(SUBSCRIBED) <= known.words
    ours = {word for word in known.words if re.fullmatch(r"(product|price)\.\w+", word)}
    assert ours == types.CATALOGUE


def test_a_type_is_written_once_and_can_be_searched_for() -> None:
    source = (ROOT / "layers/kyora/kyora/billing/events/types.py").read_text()
    for kind in SUBSCRIBED:
        assert source.count(f'"{kind}"') == 1, kind


def test_the_documents_list_what_the_endpoint_subscribes_to() -> None:
    """One fenced block of one document, a type a line."""
    texts = [(ROOT / "README.md").read_text()]
    texts += [path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))]
    blocks = [block for text in texts for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)]
    lists = [sorted(block.split()) for block in blocks if "invoice.paid\n" in block]
    assert lists == [SUBSCRIBED]
