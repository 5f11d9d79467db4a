"""The tool that puts small faults into modules: which faults, and what its list may name."""

import ast
import functools
import re
import tomllib
from typing import Any

import pytest

from bench.mutants import LISTED, ROOT, Mutant, file, mutants, mutated

LIST: dict[str, dict[str, Any]] = tomllib.loads(LISTED.read_text())

SOURCE = '''
"""A module."""

_MOST = 3


def few(names: list[str], extra: int = 0) -> bool:
    """Whether there are few names."""
    if not names:
        return True
    logger().info("counted", count=len(names))
    return len(names) + extra < _MOST and find(names, key="a b") is None
'''
FAULTS = """
_MOST: 3 → 4
_MOST: 3 → 2
few: 0 → 1
few: 0 → -1
few: if not names: → if not not names:
few: if not names: → nothing
few: not names → names
few: return True → return None
few: True → False
few: return len(names) + extra < _MOST and find(names, key='a b') is None → return None
few: len(names) + extra < _MOST and find(names, key='a b') is None → len(names) + extra < _MOST or find(names, key='a b') is None
few: len(names) + extra < _MOST and find(names, key='a b') is None → find(names, key='a b') is None
few: len(names) + extra < _MOST and find(names, key='a b') is None → len(names) + extra < _MOST
few: len(names) + extra < _MOST → len(names) + extra <= _MOST
few: len(names) + extra < _MOST → len(names) + extra >= _MOST
few: len(names) + extra → len(names) - extra
few: find(names, key='a b') is None → find(names, key='a b') is not None
few: find(names, key='a b') → find(names)
"""  # noqa: E501


def test_each_of_a_modules_lines_that_decide_is_changed_and_no_other() -> None:
    """No types, no docstrings, no log lines and no sentences."""
    assert sorted(one.name for one in mutants(SOURCE)) == sorted(FAULTS.strip().splitlines())


@functools.cache
def faults(module: str) -> list[Mutant]:
    return mutants(file(module).read_text())


@pytest.mark.parametrize("module", LIST)
def test_a_fault_is_the_module_with_one_change(module: str) -> None:
    source = file(module).read_text()
    plain = ast.unparse(ast.parse(source))
    found = faults(module)
    for mutant in found[:: max(1, len(found) // 5)]:
        assert ast.unparse(mutated(source, mutant)) != plain


@pytest.mark.parametrize("module", LIST)
def test_what_the_list_names_is_there(module: str) -> None:
    source, listed = file(module).read_text(), LIST[module]
    elsewhere = listed.get("elsewhere", {})
    tests = [*listed["tests"], *elsewhere.values()]
    files = {test.partition("::")[0] for test in tests if test.startswith("tests/")}
    assert all((ROOT / file).exists() for file in files)
    assert set(listed.get("survivors", {})) <= {mutant.name for mutant in faults(module)}
    for name in elsewhere:
        assert re.search(rf"^(def {name}\W|{name} = )", source, re.MULTILINE), name
