"""Samples are read as of today, whatever the day they were written."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from local.progress import Trouble
from local.tools import samples


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """A year, two days and three hours after the samples were written."""
    moment = samples.WRITTEN + timedelta(days=367, hours=3)
    monkeypatch.setattr(samples.time, "time", moment.timestamp)
    return moment


@pytest.mark.parametrize(
    ("written", "moved"),
    [
        ('"2026-11-23T07:36:12Z"', '"2027-11-25T10:36:12Z"'),
        ('"2026-11-23T07:36:12.000Z"', '"2027-11-25T10:36:12.000Z"'),
        ('"2026-11-23T07:36:09.120+00:00"', '"2027-11-25T10:36:09.120+00:00"'),
        ('"2026-11-23T11:36:12+04:00"', '"2027-11-25T14:36:12+04:00"'),
        ('"2026-11-22"', '"2027-11-24"'),
        ("from=2026-11-22&to=2026-11-23", "from=2027-11-24&to=2027-11-25"),
        ('"23/Nov/2026:07:36:12 +0000"', '"25/Nov/2027:10:36:12 +0000"'),
        (r"{\"created\":1795419372,", r"{\"created\":1827138972,"),
        ('"timeEpoch": 1795419372000', '"timeEpoch": 1827138972000'),
    ],
)
@pytest.mark.usefixtures("now")
def test_every_form_of_a_time_is_moved_by_what_has_passed(written: str, moved: str) -> None:
    assert samples.move_to_now(written) == moved


@pytest.mark.parametrize(
    "text",
    [
        '"2026-10-28.endive"',
        '"evt_1795419372"',
        '"56761188-7520-42d8-8898-ff6fc54ce618"',
        '"Root=1-6922b9c4-1d2e3f405162738495a6b7c8"',
        '"17954193721"',
        '"accountId": "123456789012"',
    ],
)
@pytest.mark.usefixtures("now")
def test_what_is_no_time_is_left(text: str) -> None:
    assert samples.move_to_now(text) == text


def test_a_day_in_a_sample_is_the_day_of_the_times_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """WRITTEN is in the morning; here it is earlier in the day than that."""
    monkeypatch.setattr(samples.time, "time", datetime(2027, 3, 1, 0, 30, tzinfo=UTC).timestamp)
    moved = samples.move_to_now('"2026-11-23T07:36:12Z" "2026-11-23" "2026-11-22"')
    assert moved == '"2027-03-01T00:30:00Z" "2027-03-01" "2027-02-28"'


def test_a_sample_happened_just_now(now: datetime) -> None:
    event = samples.read(samples.EVENTS / "send_email.json", {})
    envelope = json.loads(event["Records"][0]["body"])
    happened = datetime.fromisoformat(envelope["detail"]["occurredAt"])
    assert timedelta(0) <= now.astimezone(UTC) - happened < timedelta(minutes=1)


def test_a_missing_or_broken_sample_is_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for file, words in ((broken, "is not JSON"), (tmp_path / "none.json", "there is no event")):
        with pytest.raises(Trouble, match=words):
            samples.read(file, {})
