"""What a page offers to copy: a curl command and a test that do the same again.

A token is never copied: the command reads `.local/env`, the test calls as the demo admin.
"""

import json
import pprint
import re
import shlex
from collections.abc import Mapping
from typing import Any

from local.web.console import invocations

type Copies = dict[str, str]


def of_invocation(line: Mapping[str, Any]) -> Copies:
    """Return the copies of an invocation: of its HTTP request where it has one."""
    event = line.get("event")
    http = (event.get("requestContext") or {}).get("http") if isinstance(event, dict) else None
    if isinstance(event, dict) and http and event.get("type") != "REQUEST":
        public = str(event.get("rawPath", "")).startswith("/v1/")
        if public:
            return _request(event, http, line.get("result"))
    function = invocations.folder(line["function"])
    wanted = {"function": function, "event": portable(event)}
    return {"curl": verb("invoke", wanted), "pytest": _invocation(function, portable(event))}


def of_event(event: Mapping[str, Any]) -> Copies:
    """Return the copies of an event of the bus."""
    detail = event["detail"]
    wanted = {
        "event": event["type"],
        "data": detail.get("data"),
        "workspace": detail.get("workspaceId"),
    }
    return {
        "curl": verb("emit", wanted),
        "pytest": _event(event["type"], detail, event["consumers"]),
    }


def portable(event: Any) -> Any:
    """Return a function's event with placeholders for its token and signature."""
    if not isinstance(event, dict) or not isinstance(event.get("headers"), dict):
        return event
    headers = dict(event["headers"])
    for name in headers:
        if name.lower() == "authorization":
            headers[name] = "Bearer ${KYORA_TOKEN}"
        elif name.lower() in {"stripe-signature", "svix-signature"}:
            headers[name] = "${SIGNATURE}"
    found = {**event, "headers": headers}
    if isinstance(event.get("identitySource"), list):
        found["identitySource"] = ["Bearer ${KYORA_TOKEN}"]
    return found


def verb(name: str, wanted: Mapping[str, Any]) -> str:
    """Return the command that asks the console to do something."""
    body = shlex.quote(json.dumps(wanted, ensure_ascii=False))
    return (
        '(. .local/env; curl -sS -H "X-Kyora-Token: $KYORA_CONSOLE_TOKEN"'
        f" -H 'Content-Type: application/json' -d {body} $KYORA_URL/_console/{name})"
    )


def _request(event: Mapping[str, Any], http: Mapping[str, Any], result: Any) -> Copies:
    method, path = str(http["method"]), str(event["rawPath"])
    if event.get("rawQueryString"):
        path += f"?{event['rawQueryString']}"
    body = event.get("body")
    words = [f"curl -sS -X {method}"]
    if any(name.lower() == "authorization" for name in event.get("headers") or {}):
        words.append('-H "Authorization: Bearer $KYORA_TOKEN"')
    if body:
        words.append(f"-H 'Content-Type: application/json' -d {shlex.quote(str(body))}")
    words.append(f'"$KYORA_URL"{shlex.quote(path)}')
    status = result.get("statusCode") if isinstance(result, dict) else None
    try:
        given = json.loads(body) if body else None
    except ValueError:
        given = body
    said = f", {_python(given, 4)}" if given is not None else ""
    test = (
        f"def test_{_name(f'{method}_{event["rawPath"]}')}(stack: Stack) -> None:\n"
        f'    answer = stack.call("{method}", {_python(path, 4)}{said})\n'
        f"    assert answer.status == {status or 200}\n"
    )
    return {
        "curl": f"(. .local/env; {' '.join(words)})",
        "pytest": f"from tests.e2e.conftest import Stack\n\n\n{test}",
    }


def _invocation(function: str, event: Any) -> str:
    return (
        "import json\n\n"
        "from tests.e2e.commands import client\nfrom tests.e2e.conftest import Stack\n\n"
        f"EVENT = {_python(event, 0)}\n\n\n"
        f"def test_{function}(stack: Stack) -> None:\n"
        '    payload = json.dumps(EVENT).replace("${KYORA_TOKEN}", stack.env["KYORA_TOKEN"])\n'
        '    answer = client(stack, "lambda").invoke(\n'
        f'        FunctionName="kyora-local-{function.replace("_", "-")}",\n'
        "        Payload=payload.encode(),\n"
        "    )\n"
        '    assert "FunctionError" not in answer, answer["Payload"].read()\n'
    )


def _event(name: str, detail: Mapping[str, Any], consumers: list[dict[str, Any]]) -> str:
    wanted = {key: detail[key] for key in ("workspaceId", "data") if key in detail}
    seen = [one["function"] for one in consumers if one["function"] != "send_email"]
    checks = "".join(
        '    seen = "select 1 from inbox where consumer = :consumer and event_id = :id"\n'
        f'    known = {{"consumer": "{function}", "id": event_id}}\n'
        f'    wait(lambda: query(stack, seen, **known), 30, "{function}")\n'
        for function in seen
    )
    if any(one["function"] == "send_email" for one in consumers):
        checks += (
            '    mail = "select 1 from email_message where event_id = :id"\n'
            '    wait(lambda: query(stack, mail, id=event_id), 30, "a mail")\n'
        )
    more = ", query" if checks else ""
    waits = ", wait" if checks else ""
    return (
        "import json\nfrom pathlib import Path\n\n"
        f"from tests.e2e.commands import emit{more}\n"
        f"from tests.e2e.conftest import Stack{waits}\n\n"
        f"EVENT = {_python(wanted, 0)}\n\n\n"
        f"def test_{_name(name)}(stack: Stack, tmp_path: Path) -> None:\n"
        '    file = tmp_path / "event.json"\n    file.write_text(json.dumps(EVENT))\n'
        f'    event_id = emit(stack, "{name}", file)\n'
        f"{checks or '    assert event_id\n'}"
    )


def _python(value: Any, indent: int) -> str:
    text = pprint.pformat(value, width=96 - indent, sort_dicts=False)
    return text.replace("\n", "\n" + " " * indent)


def _name(text: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9]+", "_", text).strip("_").lower()
    return re.sub(r"_+", "_", re.sub(r"(ast|biz|ws|evt|sub|in)_[0-9a-z]{8,}", r"\1", words))
