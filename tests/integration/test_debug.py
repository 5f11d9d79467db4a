"""`make debug`: an editor attaches and stops at a breakpoint in a function's source."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.tools import debug
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "functions" / "reject_unrouted" / "app.py"


class Editor:
    """The part of the Debug Adapter Protocol that an editor needs for one breakpoint."""

    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.reader = self.connection.makefile("rb")
        self.sent = 0

    def ask(self, command: str, **arguments: Any) -> int:
        self.sent += 1
        body = {"seq": self.sent, "type": "request", "command": command, "arguments": arguments}
        data = json.dumps(body).encode()
        self.connection.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
        return self.sent

    def until(self, **wanted: Any) -> dict[str, Any]:
        """Read messages up to the one with these fields."""
        while True:
            length = 0
            while (line := self.reader.readline().strip()) or not length:
                assert line or length, "the debugger hung up"
                length = int(line.partition(b":")[2])
            message: dict[str, Any] = json.loads(self.reader.read(length))
            if wanted.items() <= message.items():
                return message

    def close(self) -> None:
        self.reader.close()
        self.connection.close()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def debugged(port: int, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-Xfrozen_modules=off", "-m", "local.tools.debug", "reject_unrouted",
         "--port", str(port)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={"PATH": os.environ["PATH"], "KYORA_LOCAL_DIR": str(tmp_path)},
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def test_an_editor_stops_at_a_breakpoint_and_reads_the_event(
    debugged: "subprocess.Popen[str]", port: int
) -> None:
    assert debugged.stdout is not None
    assert "waits for an editor" in debugged.stdout.readline()
    lines = SOURCE.read_text().splitlines()
    inside = 1 + next(n for n, line in enumerate(lines) if line.startswith("def handler")) + 1
    editor = Editor(port)
    try:
        editor.ask("initialize", adapterID="test")
        editor.until(command="initialize")
        editor.ask("attach", justMyCode=False)
        editor.until(event="initialized")
        editor.ask("setBreakpoints", source={"path": str(SOURCE)}, breakpoints=[{"line": inside}])
        assert editor.until(command="setBreakpoints")["body"]["breakpoints"][0]["verified"]
        editor.ask("configurationDone")
        stopped = editor.until(event="stopped")["body"]
        assert stopped["reason"] == "breakpoint"
        editor.ask("stackTrace", threadId=stopped["threadId"])
        frame = editor.until(command="stackTrace")["body"]["stackFrames"][0]
        assert (frame["name"], frame["line"]) == ("handler", inside)
        editor.ask("evaluate", expression="event['rawPath']", frameId=frame["id"])
        assert editor.until(command="evaluate")["body"]["result"].startswith("'/")
        editor.ask("continue", threadId=stopped["threadId"])
        editor.until(event="terminated")
    finally:
        editor.close()
    answer, _ = debugged.communicate(timeout=60)
    assert json.loads(answer)["statusCode"] == 404
    assert debugged.returncode == 0


def test_an_unknown_function_is_named_with_those_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["debug", "confirm"])
    assert debug.main() == 1
    assert "confirm_upload" in capsys.readouterr().err
