"""docs/recipes: the steps of a recipe, applied as they are written, make a copy that passes.

A step names a file in backticks. A `diff` block changes it: its lines without a `+` must be in the
file once. A block of another language is the whole content of a new file. An `sh` block is run.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kyora.assets import rules
from local.settings import ROOT

RECIPES = ROOT / "docs" / "recipes"
BLOCK = re.compile(r"^( *)```([a-z]+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# The recipes that are applied, in this order; each with those that it begins with.
APPLIED: dict[str, list[str]] = {
    "new-event": [],
    "new-mail": ["new-event"],
    "new-limit": [],
    "scheduled-function": [],
    "storage-provider": [],
    "asset-field": [],
    "image-size": [],
    "stripe-event": [],
}
PYTHON = ".venv/bin/python"
# Tests that a change of a recipe's kind can break: what a recipe forgets is red here.
CHECKS = [
    "tests/unit/test_architecture.py",
    "tests/unit/test_mails.py",
    "tests/unit/test_events.py",
    "tests/unit/test_rules.py",
    "tests/unit/test_config.py",
    "tests/contract/test_readme.py",
    "tests/contract/test_event_schemas.py",
    "tests/contract/test_stripe_events.py",
    "tests/contract/test_never.py::test_no_sentence_of_a_mail_stands_outside_its_templates",
    "tests/infra/test_rules.py",
    "tests/infra/test_least_privilege.py",
    "tests/infra/test_configuration.py",
    "tests/infra/test_operations.py",
    "tests/infra/test_samples.py",
    "tests/infra/test_sections.py",
    "tests/infra/test_bus.py",
    "tests/infra/test_schedules.py",
    "tests/integration/test_upload_path.py::test_every_type_of_file_is_uploaded_verified_downloaded_and_deleted[local]",
    "tests/integration/test_upload_requests.py::test_a_field_that_is_wrong_is_named",
    "tests/integration/test_status.py",
    "tests/integration/test_billing_reconcile.py",
    "tests/integration/test_invariants.py::test_the_consumers_are_those_of_the_rules",
    "tests/integration/test_businesses.py",
    "tests/integration/test_email_delivery.py::test_each_event_has_its_mail",
    "tests/integration/test_stripe_crashes.py::test_each_kind_that_is_handled_is_crashed_in",
]


def steps(recipe: str) -> Iterator[tuple[str, str, str]]:
    """Return the path, the language and the text of each block that is to be applied."""
    text = (RECIPES / f"{recipe}.md").read_text()
    for block in BLOCK.finditer(text):
        paths = re.findall(r"`([\w./-]+/[\w.-]+|\w+\.(?:md|toml|yaml))`", text[: block.start()])
        yield paths[-1] if paths else "", block[2], textwrap.dedent(block[3])


def changed(text: str, block: str) -> str:
    """Return a file's text after a `diff` block."""
    lines = block.splitlines(keepends=True)
    before = "".join(line[1:] or "\n" for line in lines if not line.startswith("+"))
    after = "".join(line[1:] or "\n" for line in lines if not line.startswith("-"))
    assert text.count(before) == 1, f"{text.count(before)} places look like this:\n{before}"
    return text.replace(before, after)


def apply(recipe: str, copy: Path) -> None:
    """Take the steps of a recipe in a copy of the repository."""
    for path, language, text in steps(recipe):
        if language == "sh":
            for command in text.splitlines():
                run_step(command, copy)
        elif language == "diff":
            (copy / path).write_text(changed((copy / path).read_text(), text))
        else:
            assert not (copy / path).exists(), f"{recipe}: {path} is not new"
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).write_text(text)


def run_step(command: str, copy: Path) -> None:
    """Run a step's command; `make test` without installing anything."""
    words = shlex.split(command)
    variables = dict(words.pop(0).split("=", 1) for _ in list(words) if "=" in words[0])
    if words[:2] == ["make", "test"]:
        words = [PYTHON, "-m", "pytest", "-q", "-n", "0", *words[2].removeprefix("T=").split()]
    run(copy, *words, **variables)


def run(copy: Path, *command: str, **variables: str) -> None:
    """Run a command in a copy; what it says is the reason when it fails."""
    # A worker of xdist hands down what makes a program a worker.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        command,
        check=False,
        cwd=copy,
        env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # the test's own time limit ends it
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}"


def copy_to(folder: Path) -> Path:
    """Copy what git has, and share what is installed."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
    ).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / ".local").mkdir()
    for name in ("ministack", "uv", "checkov"):
        if (ROOT / ".local" / name).exists():
            (folder / ".local" / name).symlink_to(ROOT / ".local" / name)
    subprocess.run(["git", "init", "-q"], check=True, cwd=folder)
    subprocess.run(["git", "add", "-A"], check=True, cwd=folder)
    return folder


def test_the_recipes_that_are_marked_are_applied() -> None:
    table = re.findall(
        r"\]\(([\w-]+)\.md\) \|( ✓)? \|$", (RECIPES / "README.md").read_text(), re.MULTILINE
    )
    assert {name for name, mark in table if mark} == APPLIED.keys()
    assert {name for name, _ in table} | {"README"} == {path.stem for path in RECIPES.glob("*")}


def test_a_name_is_in_the_file_that_a_document_says() -> None:
    pattern = r"`(\w+)`(?::[^`|\n]*)?\s(?:of|in)\s`([\w./-]+\.(?:py|yaml|toml))`"
    for document in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for name, path in re.findall(pattern, document.read_text()):
            assert re.search(rf"\b{name}\b", (ROOT / path).read_text()), (document.name, name, path)


def write_digest(copy: Path) -> None:
    """Write what `make check` says about `Configuration` of the migration."""
    said = subprocess.run(
        [PYTHON, "-m", "pytest", "-q", "-n", "0", "tests/infra/test_rules.py", "-k", "no_version"],
        check=False,
        cwd=copy,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    [digest] = set(re.findall(r"Configuration: write (\w+)", said))
    template = copy / "template.yaml"
    text, count = re.subn(r'(?<=  - ")[0-9a-f]{12}(?=")', digest, template.read_text())
    assert count == 1
    template.write_text(text)


@pytest.mark.parametrize("recipe", APPLIED)
def test_the_steps_of_a_recipe_fit_the_code(recipe: str, tmp_path: Path) -> None:
    copy = copy_to(tmp_path)
    for one in (*APPLIED[recipe], recipe):
        apply(one, copy)


def test_the_sizes_of_the_recipe_reach_the_deploy_as_they_are() -> None:
    from samcli.cli.types import CfnParameterOverridesType

    text = (RECIPES / "image-size.md").read_text()
    [line] = re.findall("^ +('StorageMaxBytes=.*'),$", text, re.MULTILINE)
    given = tomllib.loads(f"given = {line}")["given"]
    found = CfnParameterOverridesType().convert((given,), None, None)
    assert json.loads(found["StorageMaxBytes"]).keys() == rules.MAX_BYTES.keys()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that PostgreSQL can run from, as another user when we are root.

    Each pytest that starts closes the folder that holds every tmp_path.
    """
    with tempfile.TemporaryDirectory(prefix="recipes-") as folder:
        yield Path(folder)


@pytest.mark.timeout(1800)
def test_a_copy_with_every_recipe_passes(open_folder: Path) -> None:
    copy = copy_to(open_folder)
    for recipe in APPLIED:
        apply(recipe, copy)
    write_digest(copy)
    subprocess.run(["git", "add", "-A"], check=True, cwd=copy)
    run(copy, PYTHON, "-m", "ruff", "check", "-q", ".")
    run(copy, PYTHON, "-m", "ruff", "format", "--check", "-q", ".")
    if (ROOT / ".mypy_cache").exists():
        shutil.copytree(ROOT / ".mypy_cache", copy / ".mypy_cache")
    run(copy, PYTHON, "-m", "mypy")
    run(copy, PYTHON, "-m", "local.tools.openapi", "--check")
    # Nothing changes from here on: a module is compiled once. The seeds are for the suite itself.
    last = {"PYTHONDONTWRITEBYTECODE": "", "KYORA_SEEDS": "1"}
    pytest_there = (PYTHON, "-m", "pytest", "-q", "-x", "-n", "0")
    run(copy, *pytest_there, *CHECKS, **last)
    # Of the tests for each mail those for the new one: the others' mails are what they were.
    run(
        copy,
        *pytest_there,
        "tests/unit/test_email_render.py",
        "-k",
        "order_shipped or not [",
        **last,
    )
