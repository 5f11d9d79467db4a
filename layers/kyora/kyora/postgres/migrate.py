"""Numbered SQL files, applied once each, in order, by one runner at a time.

Forward only: a file that was applied and has changed since is an error, never re-applied.
The runner owns what the files make; the functions' role is given what it needs of it, no more.
"""

import hashlib
from pathlib import Path

from kyora import config
from kyora.postgres.connection import Transaction, transaction

_FOLDER = Path(__file__).parent / "migrations"
_PATIENCE = 580.0  # seconds: an index on a large table, or the runner before us (Lambda gives 600)
_LOCK = 7_305_210_117  # any constant; held to the end of the transaction, so one runner at a time

# Of everything we own but the runner's own book. PostgreSQL quotes the names. An identity column
# needs no right on its sequence.
_GRANTS = """
WITH ours AS (
    SELECT format('%I.%I', current_schema, relname) AS name, relkind = 'v' AS is_view
    FROM pg_class
    WHERE relnamespace = current_schema::regnamespace AND relowner = current_user::regrole
      AND relkind IN ('r', 'p', 'v') AND relname <> 'schema_migration'
)
SELECT format('GRANT USAGE ON SCHEMA %I TO %I', current_schema, :role::text) AS sql
UNION ALL
SELECT format('REVOKE ALL ON %s FROM %I', name, :role::text) FROM ours
UNION ALL
SELECT format(
    CASE WHEN is_view THEN 'GRANT SELECT ON %s TO %I'
         ELSE 'GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I' END, name, :role::text
) FROM ours
"""
# A superuser is a member of every role; the database's owner may create in its schema.
_POWERS = """
SELECT pg_has_role(:role::name, current_user, 'MEMBER')
    OR has_schema_privilege(:role::name, current_schema, 'CREATE')
    OR EXISTS (
        SELECT FROM pg_class
        WHERE relnamespace = current_schema::regnamespace
          AND relowner = (SELECT oid FROM pg_roles WHERE rolname = :role)
    ) AS too_many
"""


class ChangedMigration(Exception):
    """A migration differs from what was applied under its name."""


class WrongEncoding(Exception):
    """The database cannot hold every text: people's names, in Arabic for one."""


class PowerfulRole(Exception):
    """The role of the functions, though not the owner, could still change the schema."""


def migrate(folder: Path = _FOLDER) -> list[str]:
    """Apply what is missing in one transaction and return the names applied.

    In the same transaction the functions' role gets its rights, so no table is ever without them.
    Raises WrongEncoding, ChangedMigration and PowerfulRole; then nothing was applied.
    """
    role = config.settings("database_owner").database_role
    files = {path.stem: path.read_bytes() for path in sorted(folder.glob("[0-9]*.sql"))}
    with transaction(timeout=_PATIENCE, owner=True) as tx:
        _require_utf8(tx)
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
        _grant(tx, role)
    return missing


def _require_utf8(tx: Transaction) -> None:
    row = tx.row("SELECT current_setting('server_encoding') AS name, current_database() AS base")
    if row and row["name"] != "UTF8":
        raise WrongEncoding(
            f"the database {row['base']} has the encoding {row['name']}; Kyora needs UTF8:"
            " CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


def _grant(tx: Transaction, role: str) -> None:
    """Let the functions read and write rows; what else they were given by hand is taken away."""
    if tx.row("SELECT current_user = :role AS same", role=role) == {"same": True}:
        return  # one role does both, which prod refuses
    tx.run("; ".join(str(row["sql"]) for row in tx.rows(_GRANTS, role=role)))
    if tx.row(_POWERS, role=role) == {"too_many": True}:
        raise PowerfulRole(role)


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
