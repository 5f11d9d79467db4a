"""The local stack's folder, and what is said when a program that it runs fails."""

import asyncio
import os
import random
import socket
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest

from local import settings
from local.progress import Trouble
from local.stack import deploy, postgres, runtime, starting
from tests.scripted import Answer, Request, Script, scripted


def test_an_exported_env_of_an_earlier_run_is_no_server_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    first = settings.load(tmp_path, 8000, {})
    exported = {
        "DATABASE_URL": first.database_url,
        "DATABASE_OWNER_URL": first.database_owner_url,
        "AUTH_JWT_SECRET": first.secrets["AUTH_JWT_SECRET"],
    }
    again = settings.load(tmp_path, 8000, exported)
    assert again.own_postgres
    assert again.secrets == first.secrets
    theirs = settings.load(tmp_path, 8000, {"DATABASE_URL": "postgresql://me@127.0.0.1:5432/db"})
    assert not theirs.own_postgres


def test_programs_that_seed_their_dice_alike_choose_other_ports(tmp_path: Path) -> None:
    """As all workers of a test run do: each would take the other's server for its own."""
    chosen = []
    for name in ("one", "two"):
        (tmp_path / name / "logs").mkdir(parents=True)
        random.seed(7)
        stack = settings.load(tmp_path / name, 8000, {})
        chosen += [stack.gateway_port, stack.postgres_port, *runtime._free_ports(2)]
    assert chosen[:4] != chosen[4:]


def test_a_command_with_a_port_reads_the_stack_on_that_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KYORA_LOCAL_DIR", str(tmp_path))
    monkeypatch.delenv("PORT", raising=False)
    home, first = settings.claim_home(os.environ, 8000)
    second, other = settings.claim_home({"KYORA_LOCAL_DIR": str(tmp_path / "8132")}, 8132)
    with first, other:
        (home / "env").write_text("PORT=8000\n")
        (second / "env").write_text("PORT=8132\n")
        assert settings.read_env() == {"PORT": "8000"}
        monkeypatch.setenv("PORT", "8132")
        assert settings.read_env() == {"PORT": "8132"}
        monkeypatch.setenv("PORT", "8000")
        assert settings.read_env() == {"PORT": "8000"}


def test_a_command_with_a_port_that_no_stack_has_acts_on_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KYORA_LOCAL_DIR", str(tmp_path))
    monkeypatch.setenv("PORT", "8132")
    home, lock = settings.claim_home(os.environ, 8000)
    (home / "env").write_text("PORT=8000\n")
    (home / "clock").touch()
    with lock:
        for ask in (settings.read_env, lambda: settings.running(os.environ)):
            with pytest.raises(Trouble, match=r"no stack .* on port 8132; one runs at .*:8000"):
                ask()
        assert settings.running_clock(os.environ) is None
    assert settings.running(os.environ) is None


def test_a_stack_runs_as_long_as_its_folder_is_claimed(tmp_path: Path) -> None:
    environ = {"KYORA_LOCAL_DIR": str(tmp_path / "new")}
    assert settings.running(environ) is None
    _, lock = settings.claim_home(environ, 8000)
    with lock:
        assert settings.running(environ) == os.getpid()
        with pytest.raises(Trouble, match=rf"process {os.getpid()}.*make stop"):
            settings.claim_home(environ, 8001)
    assert settings.running(environ) is None


OFFLINE = """\
error: Failed to fetch: `https://pypi.example/simple/pg8000/`
  Caused by: Request failed after 3 retries
  Caused by: dns error: failed to lookup address information
make: *** [/x/layers/packages.mk:27: build-VendorLayer] Error 2
Build Failed
Error: CustomMakeBuilder:MakeBuild - Make Failed: make: *** [build-VendorLayer] Error 2
"""
NO_FILE = """\
Build Failed
Error: CustomMakeBuilder:MakeBuild - Make Failed: /x/Makefile:2: packages.mk: No such file
"""
QUIET = "Deploying\nChangeset creation failed for another reason\n"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (OFFLINE, "dns error: failed to lookup address information"),
        (NO_FILE, "packages.mk: No such file"),
        (QUIET, "Changeset creation failed for another reason"),
        ("", "it said nothing"),
    ],
)
def test_the_reason_shown_is_the_first_error_with_its_cause(
    tmp_path: Path, log: str, reason: str
) -> None:
    file = tmp_path / "build.log"
    file.write_text(log)
    said = deploy.reason(file)
    assert reason in said
    assert "Error 2" not in said


type Event = tuple[str, str, str]  # resource, status, reason

STACK = deploy.STACK
FAILED = ("DatabaseMigration", "CREATE_FAILED", "no server\n  at this address")
ROLLED_BACK: list[Event] = [
    (STACK, "REVIEW_IN_PROGRESS", ""),
    (STACK, "CREATE_IN_PROGRESS", ""),
    *((f"Log{n}", "CREATE_COMPLETE", "") for n in range(150)),
    FAILED,
    ("StripeWebhookUrl", "CREATE_FAILED", "Resource creation cancelled"),
    (STACK, "ROLLBACK_IN_PROGRESS", "Rollback requested"),
    *((f"Log{n}", "DELETE_COMPLETE", "") for n in range(150)),
    (STACK, "ROLLBACK_COMPLETE", "Rollback complete"),
]


def cloudformation(events: Iterable[Event]) -> Script:
    """Answer DescribeStackEvents as CloudFormation does: newest first, a hundred at a time."""
    newest_first = list(events)[::-1]

    def answer(request: Request) -> Answer:
        asked = parse_qs(request.body.decode() or urlsplit(request.path).query)
        start = int(asked.get("NextToken", ["0"])[0])
        members = "".join(
            f"<member><StackId>s</StackId><EventId>e</EventId><StackName>{STACK}</StackName>"
            f"<Timestamp>2026-01-01T00:00:00Z</Timestamp><LogicalResourceId>{resource}"
            f"</LogicalResourceId><ResourceStatus>{status}</ResourceStatus>"
            f"<ResourceStatusReason>{escape(reason)}</ResourceStatusReason></member>"
            for resource, status, reason in newest_first[start : start + 100]
        )
        more = f"<NextToken>{start + 100}</NextToken>" if newest_first[start + 100 :] else ""
        body = (
            '<DescribeStackEventsResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">'
            f"<DescribeStackEventsResult><StackEvents>{members}</StackEvents>{more}"
            "</DescribeStackEventsResult></DescribeStackEventsResponse>"
        )
        return Answer(body=body.encode(), headers={"Content-Type": "text/xml"})

    return answer


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (ROLLED_BACK, "DatabaseMigration: no server at this address"),
        (
            [
                *ROLLED_BACK,
                (STACK, "UPDATE_IN_PROGRESS", ""),
                ("HttpApi", "UPDATE_FAILED", "no such route"),
                (STACK, "UPDATE_ROLLBACK_IN_PROGRESS", ""),
            ],
            "HttpApi: no such route",
        ),
        ([*ROLLED_BACK, (STACK, "UPDATE_IN_PROGRESS", "")], ""),
    ],
    ids=["a long rollback", "a failure of before", "nothing failed"],
)
def test_a_failed_deploy_names_the_resource_that_failed_first(
    tmp_path: Path, events: list[Event], said: str
) -> None:
    with scripted(cloudformation(events)) as server:
        port = urlsplit(server.url).port or 0
        found = replace(settings.load(tmp_path, 8000, {}), gateway_port=port)
        assert deploy._first_failure(found) == said


def test_what_sam_leaves_behind_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sam package` makes a temporary folder for each function, and keeps it."""
    program, log = tmp_path / "sam", tmp_path / "log"
    program.write_text("#!/bin/sh\nmktemp -d\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    asyncio.run(deploy.sam([], env={"PATH": os.environ["PATH"]}, log=log, failed="It failed"))
    made = Path(log.read_text().strip())
    assert made.is_absolute()
    assert not made.exists()


def test_functions_that_start_are_not_imported_again_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (deploy, starting):
        monkeypatch.setattr(module, "BUILD", tmp_path)  # without layers no function starts
    built = tmp_path / ".built"
    built.write_text("one")
    assert starting.failures_of_build([]) == {}
    assert starting.failures_of_build(["check_health"]) == {}
    built.write_text("two")
    for _ in range(2):  # a failure is not remembered
        assert starting.failures_of_build(["check_health"]).keys() == {"check_health"}


@pytest.mark.parametrize(
    ("address", "first"),
    [
        ("postgresql://me:it@127.0.0.1:{}/db", b"\0\3\0\0"),  # version 3.0 of the protocol
        ("postgresql://me:it@127.0.0.1:{}/db?sslmode=prefer", b"\x04\xd2\x16\x2f"),
    ],
)
def test_tls_is_offered_to_a_server_on_this_machine_only_if_its_address_says_so(
    address: str, first: bytes
) -> None:
    """To offer it reads the certificates of every authority: 20 ms of each question."""
    said = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                said.append(connection.recv(8)[4:])

        answering = threading.Thread(target=answer)
        answering.start()
        assert not postgres.answers(address.format(server.getsockname()[1]))
        answering.join(10)
    assert said == [first]
