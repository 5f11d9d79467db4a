"""README.md names what exists, and everything a reader has to know is named in it."""

import json
import re
import tomllib

import pytest

from kyora.assets import rules
from kyora.bus.events import EVENTS
from kyora.errors import KyoraError
from local import template
from local.settings import ROOT
from local.tools.openapi import document as openapi
from local.tools.openapi import problems
from tests.integration.support.old_rows import PURGES

README = (ROOT / "README.md").read_text()
TEMPLATE = template.read()
PARAMETERS = TEMPLATE["Parameters"]
FUNCTIONS = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}
VARIABLES = {
    name
    for function in template.functions(TEMPLATE).values()
    for name in function["Environment"]
    if name != "CONFIGURATION"  # the template's own device, see there
}


def rows(section: str) -> list[list[str]]:
    """Return the cells of every table row of a section."""
    text = README.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def code(text: str) -> list[str]:
    """Return what stands in backticks, outside of blocks."""
    return re.findall(
        r"`([^`\n]+)`", re.sub(r"^```\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    )


def test_make_targets_exist_and_all_are_named() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", "\n".join([*code(README), *fences()])))
    assert named == targets - {"help"}


def fences() -> list[str]:
    """Return the blocks of commands and their output."""
    return re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_files_and_folders_exist() -> None:
    text = "\n".join([*code(README), *fences()])
    named = re.findall(r"(?<![\w./])(?:functions|layers|local|tests|events|bench)/[\w./-]*", text)
    assert len(named) > 10
    missing = {name for name in named if "<" not in name and not (ROOT / name).exists()}
    assert not missing
    written = (ROOT / "local" / "stack" / "guide.py").read_text()
    for name in set(re.findall(r"\.local/([\w.-]+)", text)):
        assert f'"{name}"' in written, name


def test_the_layout_is_the_folders_that_are_there() -> None:
    _, _, text = README.partition("\n## Layout\n")
    hidden = {"tmp"}
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")}
    named = set(re.findall(r"^([a-z]+)/", text.partition("\n## ")[0], re.MULTILINE))
    assert {name.partition("/")[0] for name in named} == folders - hidden


def test_every_function_has_a_row_and_every_row_a_function() -> None:
    table = rows("Functions")[1:]
    assert {code(row[0])[0] for row in table} == FUNCTIONS
    for row in table:
        for event in [] if row[3] == "what waits" else filter(None, row[3].split(", ")):
            assert event in EVENTS


def test_the_picture_shows_every_function_but_the_services_own() -> None:
    picture = fences()[0]
    assert {name for name in FUNCTIONS if name not in picture} == {
        "check_health",
        "reject_unrouted",
    }


def test_every_route_is_named() -> None:
    for path in openapi.document()["paths"]:
        assert path in README


def test_every_key_has_its_variable_parameter_and_default() -> None:
    table = {row[0]: row for row in rows("Configuration") if "." in row[0] or row[0] == "stage"}
    assert {code(row[1])[0] for row in table.values()} == VARIABLES
    for key, (_, variable, parameter, default, _) in table.items():
        name = code(variable)[0]
        assert name.removesuffix("_ARN") == key.upper().replace(".", "_")
        if not code(parameter):
            continue
        given = PARAMETERS[code(parameter)[0]]
        assert code(parameter)[0] == "".join(word.capitalize() for word in name.split("_"))
        wanted = given.get("Default", "required")
        if wanted:
            assert default.startswith(str(wanted)), key


def test_every_parameter_is_named_with_its_default() -> None:
    named = {name: row for row in rows("Configuration") for name in code(" ".join(row[:3]))}
    assert named.keys() >= PARAMETERS.keys()
    for name, row in named.items():
        if len(row) == 3 and name in PARAMETERS and (default := PARAMETERS[name].get("Default")):
            assert str(default) in row[1].split(", "), name
    known = PARAMETERS | TEMPLATE["Resources"] | TEMPLATE["Outputs"] | EVENTS
    known |= dict.fromkeys(PARAMETERS["SnapStart"]["AllowedValues"])
    for name in re.findall(r"`([A-Z][a-z]\w+[A-Z]\w+)`", README):
        assert name in known, name


def test_the_files_that_are_taken_are_the_rules() -> None:
    table = {row[0]: row[1:] for row in rows("Configuration") if row[0] in rules.ALLOWED}
    assert {kind: tuple(row[0].split()) for kind, row in table.items()} == rules.ALLOWED
    sizes = {kind: int(row[1].removesuffix(" MiB")) << 20 for kind, row in table.items()}
    assert sizes == rules.MAX_BYTES


def test_every_code_stands_beside_its_status() -> None:
    table = {row[0]: code(row[1]) for row in rows("Refusals")[1:]}
    named = {
        name: int(status)
        for status, names in table.items()
        for name in names
        if re.fullmatch(r"[a-z]+\.[a-z_]+", name)
    }
    assert named == {name: known.error.status for name, known in problems.PROBLEMS.items()}
    for name in problems.STORE_PROBLEMS:
        assert f"`{name}`" in README


def test_the_refusal_shown_is_the_real_one() -> None:
    [shown] = [json.loads(block) for block in fences() if block.startswith('{"type"')]
    with pytest.raises(KyoraError) as refusal:
        rules.accept("logo.svg", "image/svg+xml", 900)
    assert shown == refusal.value.document() | {"instance": "/v1/assets/upload"}


def test_every_alarm_says_what_to_do() -> None:
    alarms = {
        name for name, one in TEMPLATE["Resources"].items() if one["Type"].endswith("::Alarm")
    }
    assert {code(row[0])[0] for row in rows("Operate")[1:]} == alarms


def test_every_table_that_is_purged_is_told() -> None:
    purged = {name.split(maxsplit=1)[0] for name in PURGES}
    assert {code(row[0])[0] for row in rows("Retention")[1:]} == purged


def test_every_dead_letter_queue_that_is_redriven_has_a_queue() -> None:
    names = {
        one["Properties"]["QueueName"]["Fn::Sub"]
        for one in TEMPLATE["Resources"].values()
        if one["Type"] == "AWS::SQS::Queue"
    }
    for queue in re.findall(r"QUEUE=(\w+)", README):
        assert {f"kyora-${{Stage}}-{queue}", f"kyora-${{Stage}}-{queue}-dead"} <= names


def test_the_stages_are_those_of_samconfig() -> None:
    known = tomllib.loads((ROOT / "samconfig.toml").read_text())
    assert known.keys() >= {"dev", "staging", "prod"}
    for stage in re.findall(r"(?:ENV=|--config-env )(\w+)", README):
        assert stage in known


def test_the_samples_named_beside_functions_exist() -> None:
    for name in FUNCTIONS:
        assert (ROOT / "events" / f"{name}.json").exists(), name


def test_every_threat_names_tests_that_exist() -> None:
    threats = rows("Security")[1:]
    assert len(threats) > 10
    for threat, _, shown in threats:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", shown)
        assert named, threat
        assert len(named) == len(shown.split()), threat
        for file, name in named:
            assert f"\ndef {name}(" in (ROOT / file).read_text(), (threat, name)
