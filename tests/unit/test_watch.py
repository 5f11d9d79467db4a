"""What a save needs beyond a quick redeploy is named."""

import pytest

from local import watch
from local.settings import ROOT


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
