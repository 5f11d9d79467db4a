"""A save is noticed, and what it needs beyond a quick redeploy is named."""

import asyncio
from pathlib import Path

import pytest

from local.settings import ROOT, Settings
from local.stack import watch


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("functions/check_health/app.py", ""),
        ("layers/kyora/kyora/health.py", ""),
        ("functions/count_stars/app.py", "declare it in template.yaml"),
        ("layers/kyora/kyora/postgres/migrations/9999_x.sql", "`make migrate` applies it"),
        ("pyproject.toml", "uv lock"),
        ("layers/vendor/requirements.txt", "`make run` again"),
        ("template.yaml", "`make run` again"),
    ],
)
def test_a_change_is_deployed_or_named_with_what_to_do(name: str, advice: str) -> None:
    found = watch.advice(ROOT / name, {"check_health"})
    assert advice in found
    assert bool(found) == bool(advice)


def test_a_snapshot_shows_what_was_added_changed_and_removed(tmp_path: Path) -> None:
    functions = tmp_path / "functions"
    (functions / "check_health").mkdir(parents=True)
    kept, changed, gone = (functions / "check_health" / name for name in ("a.py", "b.py", "c.py"))
    for path in (kept, changed, gone):
        path.write_text("1")
    before = watch.snapshot(tmp_path)
    changed.write_text("10")
    gone.unlink()
    # The folder and what is in it come at once: a watch on the folder would be too late.
    added = functions / "count_stars" / "app.py"
    added.parent.mkdir()
    added.write_text("1")
    assert watch.differences(before, watch.snapshot(tmp_path)) == {changed, gone, added}


def test_a_snapshot_passes_over_what_editors_and_the_interpreter_leave(tmp_path: Path) -> None:
    folder = tmp_path / "layers" / "kyora"
    (folder / "__pycache__").mkdir(parents=True)
    before = watch.snapshot(tmp_path)
    for name in ("__pycache__/a.cpython-313.pyc", "a.pyc", "a.py~", ".a.py.swp"):
        (folder / name).write_text("1")
    assert watch.snapshot(tmp_path) == before


def test_a_file_that_is_saved_while_the_stack_starts_is_noticed_when_it_is_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = Settings(tmp_path, 8000, 1, 1, 1, {}, {})
    at_the_start = watch.snapshot() | {str(ROOT / "template.yaml"): (0, 0, 0)}

    async def until_it_speaks() -> str:
        watching = asyncio.create_task(watch.watch(stack, {}, at_the_start))
        while not (said := capsys.readouterr().out):  # noqa: ASYNC110  # output has no event
            await asyncio.sleep(0.01)
        watching.cancel()
        return str(said)

    assert "template.yaml changed" in asyncio.run(until_it_speaks())
