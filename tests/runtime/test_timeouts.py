"""Time-outs are Lambda's own: the runtime is killed, and the next invocation starts afresh."""

import socket
import time
from pathlib import Path

from local import template
from local.stack import runtime
from tests.runtime.conftest import Start
from tests.runtime.samples import body, sample

_SLEEPER = """
import os, time
def handler(event, context):
    if event.get("sleep"):
        time.sleep(30)
    return {"pid": os.getpid(), "left": context.get_remaining_time_in_millis()}
"""


def test_a_function_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(_SLEEPER)
    # The time of the first invocation includes the start of the runtime.
    with runtime.start_folder(tmp_path, [], {}, name="sleeper", timeout=3) as running:
        before = running.invoke({})
        assert before["left"] <= 3000
        began = time.monotonic()
        killed = running.invoke({"sleep": True})
        took = time.monotonic() - began
        after = running.invoke({})
    assert "timed out after 3.00 seconds" in killed["errorMessage"]
    assert 2.9 <= took < 25
    assert after["pid"] != before["pid"]


def test_a_function_has_the_timeout_and_the_memory_of_the_template(
    tmp_path: Path, built: Path
) -> None:
    described = template.functions(template.read())["ConfirmUploadFunction"]
    with runtime.start("confirm_upload", {}) as running:
        assert running.timeout == described["Timeout"]
        running.invoke(sample("confirm_upload"))
        [report] = [line for line in running.log() if line.startswith("REPORT")]
    assert "Memory Size: 512 MB" in report


def test_a_database_that_never_answers_costs_an_answer_and_not_the_timeout(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        running = start("check_health", DATABASE_URL=f"postgresql://u:p@127.0.0.1:{port}/kyora")
        answer = running.invoke(sample("check_health"))
    assert answer["statusCode"] == 503
    assert body(answer)["status"] == 503
    assert "Retry-After" in answer["headers"]
