"""Event schemas: what the models say, what has been promised, and samples of each."""

import json
import re
import subprocess
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from kyora.bus import outbox
from kyora.bus.events import EVENTS
from local.commands import events
from local.progress import Trouble
from local.settings import ROOT
from local.tools import event_samples, schemas
from local.tools.event_samples import sample
from local.tools.schemas import FOLDER, RELEASED


def test_the_committed_files_are_what_the_models_say() -> None:
    for path, text in schemas.files().items():
        assert path.read_text() == text, f"run `make schemas`: {path.name}"
    assert {path.stem for path in FOLDER.glob("*.json")} == set(EVENTS)


def promises() -> dict[str, schemas.Promise]:
    return {name: schemas.promises(schema) for name, schema in schemas.documents().items()}


def test_every_promise_is_kept_and_every_event_has_promised() -> None:
    assert schemas.broken(schemas.read_released(), promises()) == []
    assert schemas.read_released() == promises()


@pytest.mark.parametrize("revision", ["HEAD", "HEAD~1", "origin/main"])
def test_what_was_promised_in_git_is_promised_still(revision: str) -> None:
    name = RELEASED.relative_to(ROOT).as_posix()
    found = subprocess.run(
        ["git", "show", f"{revision}:{name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip(f"this checkout has no {revision} with promises")
    assert schemas.broken(json.loads(found.stdout), schemas.read_released()) == []


type Change = Callable[[dict[str, Any]], object]
REFUSED: dict[str, Change] = {
    "AssetReady is gone": lambda d: d.pop("AssetReady"),
    "AssetReady.data.size is gone": lambda d: fields(d).pop("size"),
    "AssetReady.data.assetId is gone": lambda d: fields(d).pop("assetId"),
    "AssetReady.workspaceId is gone": lambda d: d["AssetReady"]["properties"].pop("workspaceId"),
    "AssetReady.data.size is newly required": lambda d: required(d).append("size"),
    "AssetReady.data.assetId is not required any more": lambda d: required(d).remove("assetId"),
    "AssetReady.data.color is new and required": lambda d: (
        fields(d).update(color={"type": "string"}),
        required(d).append("color"),
    ),
    "AssetReady.data.assetId has changed": lambda d: fields(d).update(assetId={"type": "integer"}),
    "AssetReady.data.size has changed": lambda d: fields(d)["size"].update(maximum=10),
    "AssetReady.version has changed": lambda d: d["AssetReady"]["properties"]["version"].update(
        const=2
    ),
    "AssetReady.data has changed": lambda d: d["AssetReady"]["properties"]["data"].update(
        additionalProperties=False
    ),
}


def fields(documents: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = documents["AssetReady"]["properties"]["data"]["properties"]
    return found


def required(documents: dict[str, Any]) -> list[str]:
    found: list[str] = documents["AssetReady"]["properties"]["data"]["required"]
    return found


def changed(change: Change) -> dict[str, schemas.Promise]:
    documents = deepcopy(schemas.documents())
    change(documents)
    return {name: schemas.promises(schema) for name, schema in documents.items()}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_change_that_breaks_someone_is_refused(reason: str) -> None:
    [fault] = schemas.broken(schemas.read_released(), changed(REFUSED[reason]))
    assert fault.startswith(reason)


def test_what_only_grows_is_accepted() -> None:
    def grow(documents: dict[str, Any]) -> None:
        fields(documents)["color"] = {"type": "string"}
        fields(documents)["size"]["description"] = "Octets."
        documents["AssetArchived"] = documents["AssetReady"]

    assert schemas.broken(schemas.read_released(), changed(grow)) == []


@pytest.mark.parametrize("name", EVENTS)
def test_the_sample_is_valid_and_new_each_time(name: str) -> None:
    from jsonschema import Draft202012Validator

    schema = json.loads((FOLDER / f"{name}.json").read_text())
    Draft202012Validator.check_schema(schema)
    data, workspace = sample(name)
    Draft202012Validator(schema).validate(
        json.loads(json.dumps(outbox.envelope("evt_1", data, workspace)))
    )
    assert not re.search(r"\{\w+\}", json.dumps(data)), "a placeholder is left"
    if name not in {"UserWelcomed", "PlansSynced"}:
        assert sample(name)[0] != data


def test_every_event_has_a_sample_and_every_sample_an_event() -> None:
    assert {path.stem for path in event_samples.SAMPLES.glob("*.json")} == set(EVENTS)


def test_samples_name_no_real_person() -> None:
    for path in event_samples.SAMPLES.glob("*.json"):
        for address in re.findall(r"[\w.+-]+@[\w.-]+", path.read_text()):
            assert address == "delivered@resend.dev"


def test_a_file_wins_over_the_sample(tmp_path: Any) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"locale": "ar"}')
    data, workspace = sample("UserWelcomed", file)
    assert (data["locale"], data["workspaceName"], workspace) == ("ar", "Olive & Thyme", "ws_demo")
    file.write_text('{"workspaceId": "ws_1", "data": {"name": "Mona"}}')
    data, workspace = sample("UserWelcomed", file)
    assert (data["name"], workspace) == ("Mona", "ws_1")
    file.write_text("[]")
    with pytest.raises(Trouble, match="must hold a JSON object"):
        sample("UserWelcomed", file)


def test_a_tail_shows_no_token_address_or_link() -> None:
    for name in EVENTS:
        data, workspace = sample(name)
        shown = events.line(
            {"detail-type": name, "detail": outbox.envelope("evt_1", data, workspace)}
        )
        assert not re.search(r"_sample-|delivered@|https?:", shown), shown
