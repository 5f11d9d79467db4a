"""A year of a few workspaces in a minute or two, on the clock of the whole stack.

A run of the suite plays two months of one; `KYORA_YEAR_DAYS=365 KYORA_SEEDS=5` plays five years,
and `KYORA_FIRST` chooses the first seed. A failure shows everything that was done.
"""

import os
import random

import pytest

from tests.e2e.conftest import Stack
from tests.e2e.year import Person, Year, check_the_stack

DAYS = int(os.environ.get("KYORA_YEAR_DAYS", "60"))
FIRST = int(os.environ.get("KYORA_FIRST", "1"))
COUNT = int(os.environ.get("KYORA_SEEDS", "1")) if "KYORA_YEAR_DAYS" in os.environ else 1
PEOPLE = 3


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_at_the_end_of_a_year_every_ledger_mirror_and_mail_is_right(
    moved: Stack, seed: int
) -> None:
    year = Year(moved, random.Random(seed))
    year.people = [Person(year, f"ws_year_{seed}_{number}") for number in range(PEOPLE)]
    for person in year.people:
        person.arrive()
        person.subscribe()
    passed = 0.0
    while passed < DAYS:
        if year.dice.random() < 0.3:
            year.fault()
        for person in year.people:
            for _ in range(year.dice.randint(1, 3)):
                person.act()
        days = year.dice.uniform(2, 12)
        year.pass_time(days)
        passed += days
    year.calm()
    for person in year.people:
        person.check()
    check_the_stack(moved)
