"""What a person meets after `make run`: the commands, the files, the pages, a saved file."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from stripe import WebhookSignature

from local.settings import STACK
from local.stack import emulator
from tests.e2e.commands import PNG, client, run, said_after, save
from tests.e2e.conftest import UP, Answer, Stack, request, wait
from tests.ports import free_port


def _paste(stack: Stack, shell: str) -> list[str]:
    said = []
    for command in stack.commands:
        done = subprocess.run(
            [shell, "-c", command],
            cwd="/",
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        )
        said.append(done.stdout)
    return said


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_three_printed_commands_end_with_a_ready_asset(stack: Stack, shell: str) -> None:
    asked, put, confirmed = _paste(stack, shell)
    assert put.strip() == "200"
    # The bucket's event may have come first, and be at it.
    assert json.loads(confirmed)["status"] in {"ready", "verifying"}
    asset_id = json.loads(asked)["assetId"]
    assert json.loads(confirmed)["assetId"] == asset_id
    wait(lambda: stack.asset(asset_id)["status"] == "ready", 120, "the asset is ready")
    assert request("GET", stack.asset(asset_id)["downloadUrl"], headers={}).body == PNG


def test_env_names_everything_other_tools_need(stack: Stack) -> None:
    env = stack.env
    for name in (
        *("KYORA_URL", "KYORA_TOKEN", "KYORA_MEMBER_TOKEN", "KYORA_WORKSPACE_ID"),
        *("KYORA_BUSINESS_ID", "DATABASE_URL", "AWS_ENDPOINT_URL", "AUTH_JWT_SECRET"),
        *("BILLING_STRIPE_WEBHOOK_SECRET", "EMAIL_RESEND_WEBHOOK_SECRET"),
    ):
        assert env[name], name
    assert env["KYORA_URL"] == f"http://127.0.0.1:{stack.port}"
    assert (stack.home / "env").stat().st_mode & 0o077 == 0
    for name in ("functions.json", "sam-env.json", "sam-template.json"):
        assert (stack.home / name).stat().st_mode & 0o077 == 0


def test_env_can_be_read_by_a_shell(stack: Stack) -> None:
    script = f'. {shlex.quote(str(stack.home))}/env; printf %s "$DATABASE_URL"'
    found = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == stack.env["DATABASE_URL"]


def test_a_member_may_upload_too(stack: Stack) -> None:
    answer = stack.call("GET", "/v1/assets/ast_unknown", token="KYORA_MEMBER_TOKEN")
    assert answer.status in {404, 422}
    assert answer.problem


def test_refusals_are_problem_documents_wherever_they_are_made(stack: Stack) -> None:
    # by the gateway, before any function
    missing = stack.call("GET", "/v1/assets/ast_1", token=None)
    assert (missing.status, missing.problem) == (401, "auth.token_missing")
    # by the function behind the authorizer
    wrong = stack.call("GET", "/v1/assets/ast_1", token="not.a.token")
    assert (wrong.status, wrong.problem) == (401, "auth.token_invalid")
    # by reject_unrouted
    unknown = stack.call("GET", "/v1/nothing/here", token=None)
    assert (unknown.status, unknown.problem) == (404, "request.not_found")
    method = stack.call("PUT", "/v1/health", token=None)
    assert (method.status, method.problem) == (405, "request.method_not_allowed")
    assert method.headers["allow"]
    # by the front, as the gateway would
    huge = stack.call("POST", "/v1/assets/upload", b"0" * (11 * 1024 * 1024))
    assert (huge.status, huge.problem) == (413, "request.body_too_large")
    assert stack.call("POST", "/webhooks/nobody", token=None).problem == "request.not_found"


def test_a_malformed_request_leaves_nothing_of_itself_on_the_terminal(stack: Stack) -> None:
    before = len(stack.said())
    with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as client:
        client.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nAuthorization: secret\x00\r\n\r\n")
        assert b" 400 " in client.recv(100)
    assert "secret" not in stack.said()[before:]
    assert "Traceback" not in stack.said()[before:]


def test_the_request_id_of_the_client_is_kept(stack: Stack) -> None:
    answer = stack.call("GET", "/v1/health", token=None, X_Request_Id="from-the-client")
    assert answer.headers["x-request-id"] == "from-the-client"


def test_the_console_shows_the_upload_and_its_event_and_no_secret(stack: Stack) -> None:
    asset = stack.upload(PNG)
    page = request("GET", f"{stack.env['KYORA_URL']}/")
    assert b"<title>Kyora Integrations" in page.body
    assert not re.search(rb"(src|href)=\"https?://", page.body)  # nothing from elsewhere
    wait(lambda: {asset["assetId"], "AssetReady"} <= _words(_state(stack)), 60)
    state = _state(stack)
    assert {asset["assetId"], "AssetReady"} <= _words(state)
    for secret in ("KYORA_TOKEN", "AUTH_JWT_SECRET"):
        assert stack.env[secret] not in state
    assert "X-Amz-Signature" not in state


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def _state(stack: Stack) -> str:
    return request("GET", f"{stack.env['KYORA_URL']}/_local/state").body.decode()


def test_logs_show_the_functions_without_tokens_or_signatures(stack: Stack) -> None:
    stack.upload(PNG)
    command = [sys.executable, "-m", "local", "logs", "--once"]
    environment = {**os.environ, "KYORA_LOCAL_DIR": str(stack.home)}

    said = ""

    def is_there() -> bool:
        nonlocal said
        said = subprocess.run(
            command, cwd=stack.checkout, env=environment, capture_output=True, text=True, check=True
        ).stdout
        return "confirm_upload" in said

    wait(is_there, 60, "a line of confirm_upload")
    everything = said + "".join(p.read_text(errors="replace") for p in stack.home.glob("logs/*"))
    assert stack.env["KYORA_TOKEN"] not in everything
    assert "X-Amz-Signature" not in everything


def test_functions_share_one_unpacked_copy_of_a_layer(stack: Stack) -> None:
    assert stack.call("GET", "/v1/health", token=None).status == 200
    workers = list(stack.home.glob("emulator/tmp/ministack-lambda-*/layer_*/python"))
    assert workers
    assert all(worker.is_symlink() for worker in workers)


def test_a_saved_layer_and_a_saved_function_run_at_once(stack: Stack) -> None:
    before = stack.call("GET", "/v1/health", token=None).json["version"]
    layer = stack.checkout / "layers/kyora/kyora/__init__.py"
    original = layer.read_text()
    try:
        assert "layer kyora redeployed" in save(stack, layer, original.replace(before, "9.9.9"))
        assert stack.call("GET", "/v1/health", token=None).json["version"] == "9.9.9"
    finally:
        save(stack, layer, original)
    function = stack.checkout / "functions/check_health/app.py"
    original = function.read_text()
    changed = 'health.check().model_copy(update={"version": "9.9.8"})'
    try:
        said = save(stack, function, original.replace("health.check()", changed))
        assert "check_health redeployed" in said
        assert stack.call("GET", "/v1/health", token=None).json["version"] == "9.9.8"
    finally:
        save(stack, function, original)
    assert stack.call("GET", "/v1/health", token=None).json["version"] == before


def test_a_syntax_error_is_one_line_and_the_old_version_stays(stack: Stack) -> None:
    function = stack.checkout / "functions/check_health/app.py"
    original = function.read_text()
    line = save(stack, function, "def broken(:\n")
    assert "functions/check_health/app.py:1" in line
    assert "keeps running" in line
    assert stack.call("GET", "/v1/health", token=None).status == 200
    assert "check_health redeployed" in save(stack, function, original)


def test_code_that_cannot_be_imported_is_shown_with_its_traceback_and_the_old_version_stays(
    stack: Stack,
) -> None:
    layer = stack.checkout / "layers/kyora/kyora/health.py"
    original = layer.read_text()
    try:
        said = said_after(stack, layer, f"import nowhere\n{original}", "keeps running")
        assert "check_health" in said
        assert "layers/kyora/kyora/health.py" in said
        assert "No module named 'nowhere'" in said
        status = run(stack, "status")
        assert status.returncode == 1
        assert re.search(
            r"✗ saved code .* cannot start: .*No module named 'nowhere'", status.stdout
        )
        [code] = [one for one in _overview(stack)["attention"] if one["what"] == "code"]
        assert "layers/kyora/kyora/health.py" in code["text"]
        assert stack.call("GET", "/v1/health", token=None).status == 200
    finally:
        assert "layer kyora redeployed" in save(stack, layer, original)
    assert "✓ saved code" in run(stack, "status").stdout
    assert not any(one["what"] == "code" for one in _overview(stack)["attention"])


def _overview(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = request("GET", f"{stack.env['KYORA_URL']}/_console/overview").json
    return found


def test_a_new_migration_is_applied_by_make_migrate_which_names_it(stack: Stack) -> None:
    folder = stack.checkout / "layers/kyora/kyora/postgres/migrations"
    added = folder / "9999_loyalty.sql"
    try:
        assert "make migrate" in save(stack, added, "CREATE TABLE loyalty (id text);\n")
        assert "applied 9999_loyalty" in run(stack, "migrate").stdout
        assert "nothing to apply" in run(stack, "migrate").stdout
    finally:
        save(stack, added, None)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("pyproject.toml", "uv lock"),
        ("template.yaml", "`make run` again"),
    ],
)
def test_what_a_save_cannot_deploy_is_named_with_what_to_do(
    stack: Stack, name: str, advice: str
) -> None:
    path = stack.checkout / name
    original = path.read_text() if path.exists() else None
    try:
        said = said_after(stack, path, f"{original or ''}\n", rf"! {name} changed.*\n")
        assert advice in said
    finally:
        save(stack, path, original)


@pytest.mark.late(1)
def test_a_deploy_that_is_cut_off_is_undone_and_made_again(stack: Stack) -> None:
    kept, variables, before = stack.upload(PNG), stack.variables, _deployed_at(stack)
    assert stack.stop() == 0
    stack.variables = {**variables, "MEMORY_SIZE": "640"}  # nearly every function has it
    try:
        stack.start(until="sam deploy to the emulator")
        wait(lambda: _deployed_at(stack) != before, 120, "the deploy changes the stack")
        assert stack.stop() == 0
        stack.start()
        assert "it is undone" in stack.said()
        sizes = [f["MemorySize"] for f in client(stack, "lambda").list_functions()["Functions"]]
        assert 640 in sizes
        asset = stack.call("GET", f"/v1/assets/{kept['assetId']}")
        assert request("GET", asset.json["downloadUrl"]).body == PNG
    finally:
        stack.variables = variables


def _deployed_at(stack: Stack) -> object:
    """When a deploy last began to change the stack in the emulator."""
    port = json.loads((stack.home / "ports.json").read_text())["gateway"]
    found = emulator.client("cloudformation", port).describe_stacks(StackName=STACK)["Stacks"][0]
    return found["LastUpdatedTime"]


@pytest.mark.late(4)  # the next would have to start it
def test_make_stop_ends_the_stack_as_ctrl_c_does(stack: Stack) -> None:
    said = run(stack, "stop").stdout
    assert said.splitlines()[-1] == "Stopped."
    assert stack.process is not None
    assert stack.process.wait(120) == 0
    assert "not running" in run(stack, "stop").stdout


@pytest.mark.late(3)
def test_ctrl_c_and_even_kill_leave_nothing_and_the_next_run_finds_its_data(stack: Stack) -> None:
    kept = stack.upload(PNG)
    token = stack.env["KYORA_TOKEN"]
    for number, code in ((signal.SIGINT, 0), (signal.SIGKILL, -9)):
        customer = _at_stripe(stack, "POST", "customers", email="kept@demo.example").json["id"]
        state = stack.home / "stripe.json"
        wait(lambda c=customer, s=state: c in s.read_text(), 60, f"{customer} in the state file")
        before = len(stack.said())
        assert stack.stop(number) == code
        wait(lambda: not stack.leftovers(), 60)
        assert stack.leftovers() == []
        assert "Traceback" not in stack.said()[before:]
        stack.start()
        asset = stack.call("GET", f"/v1/assets/{kept['assetId']}", token=token)  # still good
        assert asset.json["status"] == "ready"
        assert request("GET", asset.json["downloadUrl"]).body == PNG
        found = _at_stripe(stack, "GET", f"customers/{customer}")
        assert found.json["email"] == "kept@demo.example"


def _at_stripe(
    stack: Stack, method: str, path: str, *, at: str = "", key: str = "", **form: str
) -> Answer:
    """Ask Stripe's API: by default of the stack's own stand-in."""
    sent = {
        "Authorization": f"Bearer {key or stack.env['BILLING_STRIPE_API_KEY']}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    body = urlencode(form).encode() if form else None
    return request(method, f"{at or stack.env['STRIPE_URL']}/v1/{path}", body, sent)


@contextmanager
def _somebodys_account(stack: Stack, key: str) -> Iterator[str]:
    """An account at Stripe: a stand-in that this stack does not know to be one."""
    output = stack.checkout / "account.txt"
    with output.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "local.stripe", "--key", key],
            cwd=stack.checkout,
            stdin=subprocess.DEVNULL,
            stdout=said,
        )
    try:
        started = "the address of the stand-in"
        wait(
            lambda: re.search(rb"http\S+\s", output.read_bytes()) or process.poll() is not None,
            120,
            started,
        )
        yield output.read_text().split()[-1]
    finally:
        process.terminate()
        process.wait(60)


def _hear(stack: Stack, secret: str) -> Answer:
    """Send an event to the webhook, signed with this secret."""
    event = {
        "id": f"evt_{time.time_ns()}",
        "object": "event",
        "type": "topup.created",
        "created": int(time.time()),
        "livemode": False,
        "data": {"object": {"id": "tu_1", "object": "topup"}},
    }
    body = json.dumps(event)
    headers = {"Stripe-Signature": WebhookSignature.generate_signature_header(body, secret)}
    return request("POST", f"{stack.env['KYORA_URL']}/webhooks/stripe", body.encode(), headers)


@pytest.mark.late(2)
def test_a_key_of_stripe_s_makes_the_stand_in_step_aside_while_it_is_given(stack: Stack) -> None:
    own, before = stack.env, stack.variables
    key, secret = "sk_test_theirs", "whsec_that-their-tool-prints"
    assert _hear(stack, own["BILLING_STRIPE_WEBHOOK_SECRET"]).status == 200
    with _somebodys_account(stack, key) as account:
        assert stack.stop() == 0
        stack.variables = {
            **before,
            "STRIPE_API_KEY": key,  # the name that Stripe's own tools use
            "BILLING_STRIPE_BASE_URL": account,
            "BILLING_STRIPE_WEBHOOK_SECRET": secret,
            "BILLING_AUTO_SYNC_PLANS": "false",
        }
        try:
            stack.start()
            assert stack.children("local.stripe") == []
            assert stack.env["STRIPE_URL"] == ""
            assert "Try billing" not in stack.said()
            pushed = run(stack, "push-plans", "plans.toml")
            assert "created" in pushed.stdout, pushed.stdout + pushed.stderr
            theirs = _at_stripe(stack, "GET", "products", at=account, key=key).json["data"]
            assert len(theirs) == 3
            assert _hear(stack, secret).status == 200
            assert _hear(stack, own["BILLING_STRIPE_WEBHOOK_SECRET"]).status == 400
        finally:
            stack.stop()
            stack.variables = before
            stack.start()
    # What was given for one run is not remembered.
    functions = json.loads((stack.home / "functions.json").read_text())
    given = functions["SyncPlansFunction"]
    assert given["BILLING_STRIPE_BASE_URL"] == stack.env["STRIPE_URL"] != ""
    assert given["BILLING_AUTO_SYNC_PLANS"] == "true"
    assert _hear(stack, own["BILLING_STRIPE_WEBHOOK_SECRET"]).status == 200
    assert run(stack, "sync-plans", "--check").returncode == 0


def test_an_upload_whose_client_never_came_back_becomes_ready(stack: Stack) -> None:
    asset_id = stack.put(PNG)

    wait(lambda: stack.asset(asset_id)["status"] == "ready", 120, "the asset is ready")


@pytest.mark.late(3)
@pytest.mark.parametrize(
    ("program", "name"),
    [("ministack", "the AWS emulator"), ("local.stripe", "the Stripe stand-in")],
)
def test_a_dead_child_ends_the_stack_with_one_sentence(
    program: str, name: str, stack: Stack
) -> None:
    [child] = stack.children(program)
    before = len(stack.said())
    child.kill()
    assert stack.process is not None
    assert stack.process.wait(120) == 1
    last = stack.said().splitlines()[-1]
    assert last.startswith(f"kyora: {name} ended unexpectedly")
    assert "Traceback" not in stack.said()[before:]
    wait(lambda: not stack.leftovers(), 60)
    assert stack.leftovers() == []
    stack.start()
    assert stack.call("GET", "/v1/health", token=None).status == 200


def test_a_busy_port_is_one_sentence(checkout: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = _refused(checkout, {"PORT": str(port), "KYORA_LOCAL_DIR": ".local/busy"})
    assert code == 1
    assert f"port {port} is already in use" in said


def test_a_second_stack_in_the_same_folder_is_one_sentence(stack: Stack) -> None:
    where = {"PORT": str(free_port()), "KYORA_LOCAL_DIR": str(stack.home)}
    code, said = _refused(stack.checkout, where)
    assert code == 1
    assert f"already runs at http://127.0.0.1:{stack.port}" in said


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("PORT", "many", "PORT must be a number"),
        ("DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none", "DATABASE_URL does not answer"),
        ("PATH", "/nonexistent", "needs `make`"),
    ],
)
def test_what_a_person_can_put_right_is_one_sentence(
    checkout: Path, variable: str, value: str, reason: str
) -> None:
    if variable == "PATH":
        (checkout / "functions" / "new.txt").write_text("so that a build is needed")
    where = {"PORT": str(free_port()), "KYORA_LOCAL_DIR": ".local/wrong", variable: value}
    try:
        code, said = _refused(checkout, where)
    finally:
        (checkout / "functions" / "new.txt").unlink(missing_ok=True)
    assert code == 1
    assert reason in said


def _refused(checkout: Path, variables: dict[str, str]) -> tuple[int, str]:
    """Run `make run`'s command where it must refuse; return its code and its sentence."""
    done = subprocess.run(
        [sys.executable, "-m", "local", "run"],
        cwd=checkout,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert UP not in done.stdout
    assert "Traceback" not in done.stderr
    [sentence] = done.stderr.strip().splitlines()
    return done.returncode, sentence
