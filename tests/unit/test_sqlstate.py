"""What becomes of a statement and its connection, by SQLSTATE."""

import pytest

from kyora.postgres.sqlstate import VERDICTS, Verdict, judge

# PostgreSQL's classes, appendix A of its manual (versions 14 to 18).
CLASSES = (
    *("00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21"),
    *("22", "23", "24", "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D"),
    *("3F", "40", "42", "44", "53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX"),
)
GONE, BUSY, BUG = Verdict(retry=True, drop=True), Verdict(retry=True), Verdict()
COLLIDED = Verdict(retry=True, contention=True)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_of_postgresql_has_a_verdict(name: str) -> None:
    assert name in VERDICTS


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ("", GONE),
        ("08000", GONE),
        ("08003", GONE),
        ("08006", GONE),
        ("08P01", GONE),  # pgbouncer: query_wait_timeout, no more connections, shutting down
        ("22001", BUG),
        ("22021", BUG),
        ("22P02", BUG),
        ("23505", BUG),
        ("25001", Verdict(drop=True)),
        ("25006", GONE),
        ("25P01", Verdict(drop=True)),
        ("2D000", Verdict(drop=True)),
        ("25P02", BUG),
        ("25P03", GONE),
        ("25P04", GONE),
        ("26000", GONE),
        ("28000", GONE),
        ("28P01", GONE),
        ("3D000", GONE),
        ("3F000", BUG),
        ("40000", COLLIDED),
        ("40001", COLLIDED),
        ("40002", BUG),
        ("40003", GONE),
        ("40P01", COLLIDED),
        ("42501", BUG),
        ("42P01", BUG),
        ("53000", BUSY),
        ("53100", BUSY),
        ("53200", BUSY),
        ("53300", GONE),
        ("54000", BUG),
        ("55000", BUG),
        ("55006", COLLIDED),
        ("55P03", COLLIDED),
        ("57000", BUSY),
        ("57014", BUSY),
        ("57P01", GONE),
        ("57P02", GONE),
        ("57P03", GONE),
        ("57P04", GONE),
        ("57P05", GONE),
        ("58000", BUSY),
        ("58030", BUSY),
        ("72000", COLLIDED),
        ("XX000", Verdict(drop=True)),
        ("ZZ999", BUG),
    ],
)
def test_a_state_has_its_verdict(state: str, verdict: Verdict) -> None:
    assert judge(state) == verdict
