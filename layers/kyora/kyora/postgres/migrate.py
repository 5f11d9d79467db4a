"""Numbered SQL files, applied once each, in order, by one runner at a time.

Forward only: a file that was applied and has changed since is an error, never re-applied.
"""

import hashlib
from pathlib import Path

from kyora.postgres.connection import transaction

_FOLDER = Path(__file__).parent / "migrations"
_PATIENCE = 580.0  # seconds: an index on a large table, or the runner before us (Lambda gives 600)
_LOCK = 7_305_210_117  # any constant; held to the end of the transaction, so one runner at a time


class ChangedMigration(Exception):
    """A migration differs from what was applied under its name."""


def migrate(folder: Path = _FOLDER) -> list[str]:
    """Apply what is missing in one transaction and return the names applied."""
    files = {path.stem: path.read_bytes() for path in sorted(folder.glob("[0-9]*.sql"))}
    with transaction(timeout=_PATIENCE) as tx:
        tx.rows("SELECT pg_advisory_xact_lock(:key)", key=_LOCK)
        tx.run(
            "CREATE TABLE IF NOT EXISTS schema_migration ("
            " name text PRIMARY KEY, checksum text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = {
            str(row["name"]): row["checksum"]
            for row in tx.rows("SELECT name, checksum FROM schema_migration")
        }
        changed = [n for n in applied if n in files and applied[n] != _checksum(files[n])]
        if changed:
            raise ChangedMigration(", ".join(changed))
        missing = [name for name in files if name not in applied]
        for name in missing:
            tx.run(files[name].decode())
            tx.run(
                "INSERT INTO schema_migration (name, checksum) VALUES (:name, :checksum)",
                name=name,
                checksum=_checksum(files[name]),
            )
    return missing


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
