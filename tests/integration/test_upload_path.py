"""The upload path in one piece, against PostgreSQL and the local store."""

from kyora import health


def test_a_migrated_database_is_healthy(database: str) -> None:
    assert health.check().status == "ok"
