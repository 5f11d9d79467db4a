"""README.md and docs/ name what exists, and everything a reader has to know is named in them."""

import json
import re
import tomllib

import pytest

from kyora.assets import rules
from kyora.bus.events import EVENTS
from kyora.errors import KyoraError
from local import template
from local.commands.acts import ACTS
from local.settings import ROOT
from local.tools.openapi import document as openapi
from local.tools.openapi import problems
from local.web.console.acts import describe
from tests.integration.support.old_rows import PURGES

DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
}
# A changelog speaks of what is no more.
TEXT = "\n".join(text for name, text in DOCUMENTS.items() if name != "CHANGELOG.md")
OWN = "Parameters of the template alone"
TEMPLATE = template.read()
PARAMETERS = TEMPLATE["Parameters"]
FUNCTIONS = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}
VARIABLES = {
    name
    for function in template.functions(TEMPLATE).values()
    for name in function["Environment"]
    if name != "CONFIGURATION"  # the template's own device, see there
}


def rows(document: str, section: str) -> list[list[str]]:
    """Return the cells of every table row of a section."""
    text = DOCUMENTS[document].partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    assert text, f"{document} has no section {section}"
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def code(text: str) -> list[str]:
    """Return what stands in backticks, outside of blocks."""
    return re.findall(
        r"`([^`\n]+)`", re.sub(r"^```\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    )


def fences(text: str) -> list[str]:
    """Return the blocks of commands and their output."""
    return re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def quoted(text: str) -> str:
    """Return all that is set as code."""
    return "\n".join([*code(text), *fences(text)])


def test_make_targets_exist_and_all_are_named() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", quoted(TEXT)))
    assert named <= targets
    table = [row for name in ("Every day", "Functions", "Operation", "Upkeep")
             for row in rows("docs/commands.md", name)[1:]]  # fmt: skip
    described = set(re.findall(r"`make ([a-z-]+)", "\n".join(row[0] for row in table)))
    assert described == targets - {"help"}


def test_files_and_folders_exist() -> None:
    text = quoted(TEXT)
    named = re.findall(r"(?<![\w./])(?:functions|layers|local|tests|events|bench)/[\w./-]*", text)
    assert len(named) > 10
    missing = {name for name in named if "<" not in name and not (ROOT / name).exists()}
    assert not missing
    written = (ROOT / "local" / "stack" / "guide.py").read_text()
    for name in set(re.findall(r"\.local/([\w.-]+)", text)):
        assert f'"{name}"' in written, name


def test_the_layout_is_the_folders_that_are_there() -> None:
    _, _, text = DOCUMENTS["README.md"].partition("\n## Layout\n")
    hidden = {"tmp"}
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")}
    named = set(re.findall(r"^([a-z]+)/", text.partition("\n## ")[0], re.MULTILINE))
    assert {name.partition("/")[0] for name in named} == folders - hidden


def test_every_function_has_a_row_and_every_row_a_function() -> None:
    table = rows("README.md", "Functions")[1:]
    assert {code(row[0])[0] for row in table} == FUNCTIONS
    for row in table:
        for event in [] if row[3] == "what waits" else filter(None, row[3].split(", ")):
            assert event in EVENTS


def test_the_picture_shows_every_function_but_the_services_own() -> None:
    picture = fences(DOCUMENTS["README.md"])[0]
    assert {name for name in FUNCTIONS if name not in picture} == {
        "check_health",
        "reject_unrouted",
    }


def test_every_route_is_named() -> None:
    for path in openapi.document()["paths"]:
        assert path in DOCUMENTS["README.md"]


def test_every_key_has_its_variable_parameter_and_default() -> None:
    table = {row[0]: row for row in rows("docs/configuration.md", "Keys")[1:]}
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
    tables = [*rows("docs/configuration.md", "Keys")[1:], *rows("docs/configuration.md", OWN)[1:]]
    named = {name: row for row in tables for name in code(" ".join(row[:3]))}
    assert named.keys() >= PARAMETERS.keys()
    for name, row in named.items():
        if len(row) == 3 and name in PARAMETERS and (default := PARAMETERS[name].get("Default")):
            assert str(default) in row[1].split(", "), name
    known = PARAMETERS | TEMPLATE["Resources"] | TEMPLATE["Outputs"] | EVENTS
    known |= dict.fromkeys(PARAMETERS["SnapStart"]["AllowedValues"])
    known |= {"DisableExecuteApiEndpoint": "a property that the template leaves out"}
    for document, text in DOCUMENTS.items():
        if document == "docs/contributing.md" or "recipes/" in document:  # they speak of the code
            continue
        for name in re.findall(r"`([A-Z][a-z]\w+[A-Z]\w+)`", text):
            assert name in known, (document, name)


def test_the_files_that_are_taken_are_the_rules() -> None:
    table = {row[0]: row[1:] for row in rows("docs/uploads.md", "What is accepted")[1:]}
    assert {kind: tuple(row[0].split()) for kind, row in table.items()} == rules.ALLOWED
    sizes = {kind: int(row[1].removesuffix(" MiB")) << 20 for kind, row in table.items()}
    assert sizes == rules.MAX_BYTES


def test_every_code_stands_beside_its_status() -> None:
    table = {row[0]: code(row[1]) for row in rows("docs/errors.md", "Codes")[1:]}
    named = {
        name: int(status)
        for status, names in table.items()
        for name in names
        if re.fullmatch(r"[a-z]+\.[a-z_]+", name)
    }
    assert named == {name: known.error.status for name, known in problems.PROBLEMS.items()}
    for name in problems.STORE_PROBLEMS:
        assert f"`{name}`" in DOCUMENTS["docs/errors.md"]


def test_the_refusal_shown_is_the_real_one() -> None:
    [shown] = [
        json.loads(block)
        for block in fences(DOCUMENTS["docs/errors.md"])
        if block.startswith('{"type"')
    ]
    with pytest.raises(KyoraError) as refusal:
        rules.accept("logo.svg", "image/svg+xml", 900)
    assert shown == refusal.value.document() | {"instance": "/v1/assets/upload"}


def test_every_alarm_says_what_to_do() -> None:
    alarms = {
        name for name, one in TEMPLATE["Resources"].items() if one["Type"].endswith("::Alarm")
    }
    assert {code(row[0])[0] for row in rows("docs/operate.md", "Alarms")[1:]} == alarms


def test_every_table_that_is_purged_is_reported() -> None:
    purged = {name.split(maxsplit=1)[0] for name in PURGES}
    assert {code(row[0])[0] for row in rows("docs/operate.md", "Retention")[1:]} == purged


def test_every_dead_letter_queue_that_is_redriven_has_a_queue() -> None:
    names = {
        one["Properties"]["QueueName"]["Fn::Sub"]
        for one in TEMPLATE["Resources"].values()
        if one["Type"] == "AWS::SQS::Queue"
    }
    for queue in re.findall(r"QUEUE=(\w+)", TEXT):
        assert {f"kyora-${{Stage}}-{queue}", f"kyora-${{Stage}}-{queue}-dead"} <= names


def test_the_stages_are_those_of_samconfig() -> None:
    known = tomllib.loads((ROOT / "samconfig.toml").read_text())
    assert known.keys() >= {"dev", "staging", "prod"}
    for stage in re.findall(r"(?:ENV=|--config-env )(\w+)", TEXT):
        assert stage in known


def test_the_samples_named_beside_functions_exist() -> None:
    for name in FUNCTIONS:
        assert (ROOT / "events" / f"{name}.json").exists(), name


def test_every_threat_names_tests_that_exist() -> None:
    threats = rows("docs/security.md", "Threats")[1:]
    assert len(threats) > 10
    for threat, _, shown in threats:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", shown)
        assert named, threat
        assert len(named) == len(shown.split()), threat
        for file, name in named:
            assert f"\ndef {name}(" in (ROOT / file).read_text(), (threat, name)


def test_every_event_names_its_consumers() -> None:
    wanted = {}
    for rule in TEMPLATE["Resources"].values():
        names = rule.get("Properties", {}).get("EventPattern", {}).get("detail-type", [])
        queue = str(rule.get("Properties", {}).get("Targets"))
        wanted |= {name: queue for name in names if isinstance(name, str) and name in EVENTS}
    consumers = {"EmailQueue": "send_email", "FeeQueue": "record_transaction_fee"}
    consumers |= {"AnalyticsQueue": "update_analytics", "VariantQueue": "make_variants"}
    named = {}
    for source, names, consumer in rows("docs/events.md", "Catalogue")[1:]:
        for name in names.split(" · "):
            assert EVENTS[name].source == source
            named[name] = code(consumer)
    assert named.keys() == EVENTS.keys()
    for name, consumer in named.items():
        [*found] = [consumers[q] for q in consumers if f"'{q}'" in wanted.get(name, "")]
        assert consumer == found, name


def test_what_is_named_with_its_module_is_there() -> None:
    """`outbox.add`, say."""
    modules: dict[str, str] = {}
    for path in (ROOT / "layers" / "kyora" / "kyora").rglob("*.py"):
        module = path.parent.name if path.stem == "__init__" else path.stem
        modules[module] = modules.get(module, "") + path.read_text()
    others = {row[0] for row in rows("docs/configuration.md", "Keys")} | {
        *problems.PROBLEMS,
        *problems.STORE_PROBLEMS,
    }
    named = set(re.findall(r"`(\w+)\.([a-z_]+)[(`]", TEXT))
    assert ("outbox", "add") in named
    for module, name in named:
        if module in modules and name not in ("py", "toml") and f"{module}.{name}" not in others:
            assert re.search(rf"\b{name}\b", modules[module]), f"{module}.{name}"


def test_no_link_is_dead() -> None:
    links = 0
    for document, text in DOCUMENTS.items():
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if re.match(r"https?://", target):
                continue
            links += 1
            path, _, anchor = target.partition("#")
            file = (ROOT / document).parent / path if path else ROOT / document
            assert file.exists(), f"{document}: {target}"
            if anchor:
                assert anchor in anchors(file.read_text()), f"{document}: {target}"
    assert links > 20


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    found = re.findall(r"^#{1,4} (.+)$", re.sub(r"(?ms)^```.*?^```", "", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_document_is_named_in_the_one_to_begin_with() -> None:
    for document in DOCUMENTS.keys() - {"README.md"}:
        if document.count("/") < 2:
            assert f"]({document})" in DOCUMENTS["README.md"], document
    assert len(DOCUMENTS["README.md"].splitlines()) <= 165


def test_readme_shows_as_many_routes_as_there_are() -> None:
    routes = [
        event
        for resource in TEMPLATE["Resources"].values()
        for event in resource.get("Properties", {}).get("Events", {}).values()
        if event["Type"] == "HttpApi"
    ]
    assert f"✓ HTTP API with {len(routes)} routes" in DOCUMENTS["README.md"]


def test_the_console_s_verbs_are_documented_with_their_parameters() -> None:
    text = (ROOT / "docs" / "console.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \|([^|]*)\| [^|]+ \|$", text, re.MULTILINE)
    documented = {name: sorted(re.findall(r"`(\w+)\??`", given)) for name, given in rows}
    assert documented == {name: sorted(describe(name, act)["takes"]) for name, act in ACTS.items()}
