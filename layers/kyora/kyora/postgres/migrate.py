"""Numbered SQL files, applied once each, in order, by one runner at a time.

Forward only: a file that has changed since it was applied is an error, never applied again. The
role that runs them owns the tables; the functions' role is granted what it needs, and no more.
"""

import hashlib
from pathlib import Path

from kyora import config, database_url
from kyora.postgres.connection import Transaction, transaction

_FOLDER = Path(__file__).parent / "migrations"
# Seconds a statement may take: an index on a large table, or a wait for the runner before us. The
# function has 600.
_TIMEOUT = 580.0
_LOCK = 7_305_210_117  # any constant; held to the end of the transaction, so one runner at a time

# Rights on every relation we own, except schema_migration. PostgreSQL quotes the names. An identity
# column needs no right on its sequence. The functions only read what accounts keep: they must not
# be able to change who is an admin, or of which workspace.
_OURS = """
WITH ours AS (
    SELECT c.oid, format('%I.%I', current_schema, relname) AS name, CASE
        WHEN relkind = 'v' OR relname IN ('workspace', 'app_user') THEN '{SELECT}'::text[]
        WHEN relname = 'business' THEN '{INSERT,SELECT}'
        ELSE '{DELETE,INSERT,SELECT,UPDATE}' END AS rights
    FROM pg_class c
    WHERE relnamespace = current_schema::regnamespace AND relowner = current_user::regrole
      AND relkind IN ('r', 'p', 'v') AND relname <> 'schema_migration'
)
"""
_GRANTS = f"""
{_OURS}
SELECT format('REVOKE ALL ON %I.%I FROM PUBLIC, %I', current_schema, relname, :role::text) AS sql
FROM pg_class
WHERE relnamespace = current_schema::regnamespace AND relowner = current_user::regrole
  AND relkind IN ('r', 'p', 'v', 'm', 'S')
UNION ALL
SELECT format('GRANT %s ON %s TO %I', array_to_string(rights, ', '), name, :role::text) FROM ours
UNION ALL
SELECT format('GRANT USAGE ON SCHEMA %I TO %I', current_schema, :role::text)
"""
# Everything the role may do beyond that list: its attributes, memberships, what it owns, its
# entries in access lists, and what PUBLIC may do.
_EXCESS = f"""
{_OURS},
role AS (SELECT * FROM pg_roles WHERE rolname = :role),
database AS (SELECT oid FROM pg_database WHERE datname = current_database()),
-- An extension brings rights for PUBLIC that are not our grants.
brought AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
given AS (  -- object, its name, who, what, and whether it may be handed on
    SELECT 'pg_class'::regclass AS kind, c.oid, 'relation ' || c.oid::regclass::text AS name, a.*
    FROM pg_class c, aclexplode(c.relacl) a
    WHERE relnamespace <> ALL (ARRAY['pg_catalog', 'information_schema']::regnamespace[])
    UNION ALL
    SELECT 'pg_class', attrelid, 'a column of ' || attrelid::regclass::text, a.*
    FROM pg_attribute, aclexplode(attacl) a
    WHERE attrelid::regclass::text !~ '^(pg_catalog|information_schema)\\.'
      AND attrelid >= 16384
    UNION ALL
    SELECT 'pg_namespace', n.oid, 'schema ' || nspname, a.*
    FROM pg_namespace n,
        aclexplode(coalesce(nspacl, acldefault('n', nspowner))) a
    WHERE nspname NOT IN ('pg_catalog', 'information_schema')
    UNION ALL
    SELECT 'pg_database', d.oid, 'this database', a.*
    FROM pg_database d JOIN database USING (oid),
        aclexplode(coalesce(datacl, acldefault('d', datdba))) a
),
excess AS (
    SELECT 'it is ' || attribute AS fault FROM role, LATERAL (VALUES
        (rolsuper, 'a superuser'), (rolcreaterole, 'CREATEROLE'), (rolcreatedb, 'CREATEDB'),
        (rolreplication, 'REPLICATION'), (rolbypassrls, 'BYPASSRLS')
    ) AS attributes (has, attribute) WHERE has
    UNION ALL
    SELECT 'it is a member of ' || roleid::regrole::text FROM pg_auth_members, role
    WHERE member = role.oid
    UNION ALL
    SELECT 'it owns ' || pg_describe_object(classid, objid, objsubid)
    FROM pg_shdepend, role, database
    WHERE refclassid = 'pg_authid'::regclass AND refobjid = role.oid AND deptype = 'o'
      AND dbid IN (0, database.oid)
    UNION ALL  -- rights on what is neither a relation, a schema nor this database
    SELECT 'it has rights on ' || pg_describe_object(classid, objid, objsubid)
    FROM pg_shdepend, role, database
    WHERE refclassid = 'pg_authid'::regclass AND refobjid = role.oid AND deptype IN ('a', 'r')
      AND dbid IN (0, database.oid)
      AND classid NOT IN (
          'pg_class'::regclass, 'pg_namespace'::regclass, 'pg_database'::regclass)
    UNION ALL
    SELECT CASE grantee WHEN 0 THEN 'everyone' ELSE 'it' END || ' may ' || privilege_type
        || CASE WHEN is_grantable THEN ' and hand that on, on ' ELSE ' on ' END || given.name
    FROM given LEFT JOIN ours USING (oid), role
    WHERE grantee IN (role.oid, 0)
      AND NOT EXISTS (SELECT FROM brought WHERE classid = kind AND objid = given.oid)
      AND NOT CASE kind
          WHEN 'pg_class'::regclass THEN coalesce(
              grantee = role.oid AND privilege_type = ANY (rights) AND NOT is_grantable
              AND given.name LIKE 'relation %', false)
          WHEN 'pg_namespace'::regclass THEN privilege_type = 'USAGE' AND NOT is_grantable
          ELSE privilege_type IN ('CONNECT', 'TEMPORARY') AND NOT is_grantable END
    UNION ALL
    SELECT 'it may run ' || p.oid::regprocedure::text || ' with its owner''s rights'
    FROM pg_proc p, role
    WHERE prosecdef AND has_function_privilege(role.oid, p.oid, 'EXECUTE')
      AND pronamespace <> ALL (ARRAY['pg_catalog', 'information_schema']::regnamespace[])
      AND NOT EXISTS (
          SELECT FROM brought WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
)
SELECT fault FROM excess ORDER BY fault
"""


class ChangedMigration(Exception):
    """A migration differs from what was applied under its name."""


class WrongEncoding(Exception):
    """The database cannot store every text, such as a name in Arabic."""


class PowerfulRole(Exception):
    """The functions' role may do more than it is granted here; the message names what."""


def migrate(folder: Path = _FOLDER) -> list[str]:
    """Apply the missing files in one transaction and return their names.

    The same transaction grants the functions' role its rights, so no table is ever without them.
    Raises WrongEncoding, ChangedMigration and PowerfulRole; then nothing was applied.
    """
    role = database_url.parse(config.database_url()).user
    files = {path.stem: path.read_bytes() for path in sorted(folder.glob("[0-9]*.sql"))}
    with transaction(timeout=_TIMEOUT, owner=True) as tx:
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
    """Grant the role what the functions need, and revoke anything else on our tables.

    Raises PowerfulRole for rights that cannot be revoked here, because another role granted them.
    """
    if tx.row("SELECT current_user = :role AS same", role=role) == {"same": True}:
        return  # one role for both, which prod refuses
    tx.run("; ".join(str(row["sql"]) for row in tx.rows(_GRANTS, role=role)))
    if excess := [str(row["fault"]) for row in tx.rows(_EXCESS, role=role)]:
        raise PowerfulRole(f"{role}: {'; '.join(excess)}")


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
