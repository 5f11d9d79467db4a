"""Ids are prefixed, unique and sort by time."""

import re

from kyora.ids import new_id


def test_an_id_has_its_prefix_and_26_characters() -> None:
    assert re.fullmatch(r"ast_[0-9a-hjkmnp-tv-z]{26}", new_id("ast"))


def test_ten_thousand_ids_differ() -> None:
    assert len({new_id("evt") for _ in range(10_000)}) == 10_000
