"""Ids are prefixed, unique and sort by time."""

import re
import time

from kyora.ids import new_id


def test_an_id_has_its_prefix_and_26_characters() -> None:
    assert re.fullmatch(r"ast_[0-9a-hjkmnp-tv-z]{26}", new_id("ast"))


def test_ten_thousand_ids_differ() -> None:
    assert len({new_id("evt") for _ in range(10_000)}) == 10_000


def test_a_later_id_sorts_behind_an_earlier_one() -> None:
    ids = []
    for _ in range(20):
        ids.append(new_id("ast"))
        time.sleep(0.0015)
    assert ids == sorted(ids)


def test_an_id_does_not_reveal_the_next() -> None:
    """80 random bits: two ids of one moment share no more than chance."""
    tails = [new_id("x")[-16:] for _ in range(1000)]
    assert len({tail[:4] for tail in tails}) > 950
