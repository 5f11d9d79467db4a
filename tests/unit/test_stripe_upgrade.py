"""`make upgrade-check` on releases of the Stripe SDK that differ from ours in one place."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.stripe.sdk import upgrade
from local.stripe.sdk.types import installed

_ANCHOR = '"SubscriptionResumeParamsBillingCycleAnchor"'


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed release as links, a thousand of them: they are made once."""
    folder = tmp_path_factory.mktemp("release") / "stripe"
    ignore = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(installed().root, folder, copy_function=os.symlink, ignore=ignore)


@pytest.fixture
def release(links: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the installed release whose files can be replaced.

    Each test has it at a path of its own, by which what was parsed is remembered.
    """
    copy = links.rename(tmp_path / "stripe")
    yield tmp_path
    for path in copy.rglob("*.py"):
        if not path.is_symlink():
            path.unlink()
            path.symlink_to(installed().root / path.relative_to(copy))
    copy.rename(links)


def change(release: Path, file: str, old: str, new: str) -> None:
    path = release / "stripe" / file
    text = path.read_text()
    assert old in text, f"{file} has no {old!r} any more"
    path.unlink()
    path.write_text(text.replace(old, new))


def test_the_same_release_breaks_nothing(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert upgrade.main(str(release)) == 0
    assert "0 of what we send and read would break" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        pytest.param(
            *("params/_subscription_update_params.py", "    payment_behavior:", "    paying:"),
            "POST /v1/subscriptions/{}: payment_behavior: Received unknown parameter",
            id="a parameter is gone",
        ),
        pytest.param(
            "params/_subscription_resume_params.py",
            f"billing_cycle_anchor: NotRequired[\n        {_ANCHOR}\n    ]",
            "billing_cycle_anchor: NotRequired[str]",
            "POST /v1/subscriptions/{}/resume: billing_cycle_anchor: Invalid string",
            id="an object becomes a text",
        ),
        pytest.param(
            *("params/_price_create_params.py", '"day", "month", "week", "year"', '"day", "week"'),
            "POST /v1/prices: recurring[interval]: Invalid interval: must be one of day or week",
            id="a word that we send is gone",
        ),
        pytest.param(
            *("_subscription_item.py", "    current_period_end: int", "    period_end: int"),
            "subscription_item.current_period_end is gone",
            id="a field that we read is gone",
        ),
        pytest.param(
            *("_invoice.py", "    amount_due: int", "    amount_due: Decimal"),
            "invoice.amount_due was int, is Decimal",
            id="a number becomes a decimal",
        ),
        pytest.param(
            *("_subscription.py", '            "past_due",\n', ""),
            "subscription.status: 'past_due' is gone",
            id="a word that we know is gone",
        ),
        pytest.param(
            *("__init__.py", "RequestsClient", "HttpClient"),
            "stripe.RequestsClient is gone",
            id="a name of the package is gone",
        ),
    ],
)
def test_a_change_that_breaks_us_is_named(
    release: Path, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, said: str
) -> None:
    change(release, file, old, new)
    assert upgrade.main(str(release)) == 1
    assert f"  breaks  {said}" in capsys.readouterr().out


def test_a_word_that_we_do_not_name_is_reported_and_breaks_nothing(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(release, "_subscription.py", '            "past_due",\n', '"past_due", "asleep",')
    assert upgrade.main(str(release)) == 0
    assert "  other   subscription.status: 'asleep' is new" in capsys.readouterr().out
