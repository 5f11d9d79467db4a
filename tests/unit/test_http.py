"""HTTP at the functions' edge: what is refused, in which order, and how it is said."""

import base64
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from kyora import config, errors, http, postgres
from kyora.errors import KyoraError
from local.template import read as read_template
from tests.unit.functions import CONTEXT, captured_log, event, function

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
PROBLEM = "application/problem+json"


class Note(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=2 * MIB)
    stars: int = 0
    more: list[dict[str, object]] = []


class Kept(BaseModel):
    length: int
    who: str
    nothing: str | None = None


def keep(call: http.Call, note: Note) -> Kept:
    if note.text == "unstorable":
        raise postgres.Unstorable("22021")
    if note.text == "boom":
        raise ZeroDivisionError("canary-value of a row")
    return Kept(length=len(note.text), who=call.principal.user_id)


def drop(call: http.Call) -> None:
    if call.path["id"] == "gone":
        raise errors.Gone("It was here once.", code="note.gone")


def made(call: http.Call) -> http.Answer[Kept]:
    return http.Answer(Kept(length=0, who="x"), status=202, headers={"Retry-After": "1"})


handle = http.entrypoint(
    {"POST /v1/notes": keep, "DELETE /v1/notes/{id}": drop, "PUT /v1/notes/{id}": made},
    config.bus_name,
)


@pytest.fixture(autouse=True)
def configured(environment: pytest.MonkeyPatch) -> None:
    """Every test here runs with a complete configuration."""


def ask(*args: Any, **kwargs: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    answer = handle(event(*args, **kwargs), CONTEXT)
    assert json.loads(json.dumps(answer)) == answer
    body = json.loads(answer["body"]) if "body" in answer else {}
    return answer["statusCode"], body, answer["headers"]


def post(body: object, **kwargs: Any) -> tuple[int, str]:
    status, document, headers = ask("POST /v1/notes", body, **kwargs)
    if status >= 400:
        assert headers["Content-Type"] == PROBLEM
        assert document["status"] == status
    return status, document.get("code", "")


# ---- answers


def test_a_model_is_answered_as_json_without_what_is_none() -> None:
    status, body, headers = ask("POST /v1/notes", {"text": "hello"})
    assert (status, body) == (200, {"length": 5, "who": "usr_demo_admin"})
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"


def test_nothing_is_answered_as_204_without_a_body() -> None:
    answer = handle(event("DELETE /v1/notes/{id}", id="a"), CONTEXT)
    assert answer["statusCode"] == 204
    assert "body" not in answer
    assert "Content-Type" not in answer["headers"]


def test_an_answer_has_a_status_and_headers_of_its_own() -> None:
    status, _, headers = ask("PUT /v1/notes/{id}", id="a")
    assert (status, headers["Retry-After"]) == (202, "1")


def test_a_problem_has_every_member_of_rfc_9457_and_the_code() -> None:
    status, body, headers = ask("DELETE /v1/notes/{id}", id="gone")
    assert status == 410
    assert headers["Content-Type"] == PROBLEM
    assert headers["Cache-Control"] == "no-store"
    assert body == {
        "type": "urn:kyora:problem:note.gone",
        "title": "Gone",
        "status": 410,
        "detail": "It was here once.",
        "instance": "/v1/notes/:id",
        "code": "note.gone",
    }


KINDS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, KyoraError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_refusal_makes_a_whole_document(kind: type[KyoraError]) -> None:
    refusal = kind(["X is not set"]) if kind is errors.ConfigError else kind()
    answer = http.problem(refusal, {"routeKey": "GET /v1/x"})
    body = json.loads(answer["body"])
    assert answer["statusCode"] == body["status"] == kind.status
    assert {"type", "title", "status", "detail", "instance", "code"} <= set(body)
    assert all(body.values())
    assert re.fullmatch(r"[a-z]+(\.[a-z_]+)+", body["code"])
    assert body["type"].endswith(body["code"])


def test_the_docstring_of_errors_draws_every_kind_with_its_status() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) +(\d+)", errors.__doc__ or ""))
    kinds = {kind.__name__: str(kind.status) for kind in KINDS if kind is not KyoraError}
    assert drawn == kinds


def test_unavailable_says_when_to_come_back() -> None:
    assert errors.Unavailable().headers["Retry-After"] == "2"


# ---- bodies

SPARE = len(json.dumps({"text": ""}))
LONGEST = MIB - SPARE


@pytest.mark.parametrize("encoded", [False, True], ids=["text", "base64"])
@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("a" * LONGEST, 200),
        ("a" * (LONGEST + 1), 413),
        ("a" * (2 * MIB), 413),
        ("é" * (LONGEST // 2), 200),
        ("é" * (LONGEST // 2 + 1), 413),
    ],
    ids=["1 MiB", "1 MiB and a byte", "2 MiB", "1 MiB of two bytes each", "and a letter more"],
)
def test_a_body_has_at_most_one_mebibyte(text: str, status: int, encoded: bool) -> None:
    body = json.dumps({"text": text}, ensure_ascii=False)
    found, code = post(body, encoded=encoded)
    assert found == status
    assert code == ("request.body_too_large" if status == 413 else "")


def test_a_gigantic_body_is_refused_before_it_is_decoded() -> None:
    request = event("POST /v1/notes", "x")
    request |= {"body": "!" * (2 * MIB + 1), "isBase64Encoded": True}  # no base64 at all
    assert handle(request, CONTEXT)["statusCode"] == 413


NOT_JSON = {
    "a word": "word",
    "half an object": '{"text": "a"',
    "two objects": "{}{}",
    "a trailing comma": '{"text": "a",}',
    "single quotes": "{'text': 'a'}",
    "a comment": '{"text": "a"} // hello',
    "NaN": '{"text": "a", "stars": NaN}',
    "Infinity": '{"text": "a", "stars": Infinity}',
    "minus Infinity": '{"text": "a", "more": [{"x": -Infinity}]}',
    "not UTF-8": b'{"text": "\xff\xfe"}',
    "UTF-16": '{"text": "a"}'.encode("utf-16"),
    "half a character": b'{"text": "\xc3"}',
    "half a surrogate pair": '{"text": "\\ud800"}',
    "a control character": '{"text": "a\nb"}',
    "nested deep": '{"text": "a", "more": ' + "[" * 100_000,
    "nested deep and closed": '{"text": "a", "more": ' + "[" * 5000 + "]" * 5000 + "}",
    "a form": "text=a&stars=1",
    "XML": "<note/>",
    "NUL": "\0",
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_no_json_is_400(name: str) -> None:
    assert post(NOT_JSON[name]) == (400, "request.invalid_json")


NOT_VALID: dict[str, tuple[object, list[str]]] = {
    "null": ("null", ["body"]),
    "a list": ("[]", ["body"]),
    "a text": ('"a"', ["body"]),
    "a number": ("1", ["body"]),
    "an empty object": ({}, ["text"]),
    "an unknown field": ({"text": "a", "isAdmin": True}, ["isAdmin"]),
    "another case": ({"Text": "a"}, ["Text", "text"]),
    "wrong types": ({"text": 1, "stars": "many"}, ["stars", "text"]),
    "null for a text": ({"text": None}, ["text"]),
    "a float for a count": ({"text": "a", "stars": 1.5}, ["stars"]),
    "a number beyond floats": ('{"text": "a", "stars": 1e999}', ["stars"]),
    "a nested fault": ({"text": "a", "more": [{}, 1]}, ["more.1"]),
}


@pytest.mark.parametrize("name", NOT_VALID)
def test_what_is_not_valid_is_422_and_names_the_fields(name: str) -> None:
    body, fields = NOT_VALID[name]
    status, document, _ = ask("POST /v1/notes", body)
    assert (status, document["code"]) == (422, "request.validation_failed")
    assert sorted(error["field"] for error in document["errors"]) == fields
    assert all(set(error) == {"field", "message"} for error in document["errors"])


@pytest.mark.parametrize("body", [None, ""])
def test_no_body_where_one_is_needed_is_a_refusal(body: object) -> None:
    assert post(body)[0] in (400, 422)


def test_a_body_where_none_is_expected_is_ignored_unless_it_is_too_large() -> None:
    assert ask("DELETE /v1/notes/{id}", "nonsense", id="a")[0] == 204
    assert ask("DELETE /v1/notes/{id}", "x" * (MIB + 1), id="a")[0] == 413


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "", "*/*"])
def test_the_routes_read_json_whatever_its_media_type_says(media: str) -> None:
    assert post({"text": "a"}, headers={"content-type": media})[0] == 200


def test_a_strangely_named_field_cannot_blow_up_the_answer() -> None:
    name = "x" * 100_000
    status, document, _ = ask("POST /v1/notes", {"text": "a", name: 1, "nul\0": 2})
    assert status == 422
    assert all(len(error["field"]) <= 100 for error in document["errors"])
    assert "\0" not in json.dumps([error["field"] for error in document["errors"]])
    assert "\\u0000" not in json.dumps(document)


def test_a_thousand_faults_are_answered_with_fifty() -> None:
    _, document, _ = ask("POST /v1/notes", {str(number): 1 for number in range(1000)})
    assert len(document["errors"]) == 50


def test_no_value_of_a_refused_body_is_repeated() -> None:
    for body in ({"text": 5, "stars": "canary"}, {"text": ["canary"]}, '{"text": "canary'):
        assert "canary" not in json.dumps(ask("POST /v1/notes", body))


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_body_is_answered_and_never_with_500(body: bytes | str) -> None:
    assert post(body)[0] in (200, 400, 422)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "stars", "more", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(JSON)
def test_any_json_is_answered_and_never_with_500(body: object) -> None:
    assert post(json.dumps(body))[0] in (200, 400, 422)


def as_the_gateway_decodes(sent: bytes) -> dict[str, Any]:
    """Return the event of a body that says it is JSON: text, whatever its bytes are."""
    request = event("POST /v1/notes", sent.decode("utf-8", "replace"))
    request["headers"]["content-length"] = str(len(sent))
    return request


@pytest.mark.parametrize("encoding", ["cp1256", "cp1252", "utf-8"])
def test_a_body_that_is_not_utf_8_is_400(encoding: str) -> None:
    sent = json.dumps({"text": "é"}, ensure_ascii=False).encode(encoding)
    answer = handle(as_the_gateway_decodes(sent), CONTEXT)
    if encoding == "utf-8":
        assert answer["statusCode"] == 200
        return
    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["code"] == "request.invalid_json"


def test_a_replacement_character_that_the_client_sent_is_a_letter_like_any_other() -> None:
    sent = '{"text": "a\ufffd"}'.encode()
    assert handle(as_the_gateway_decodes(sent), CONTEXT)["statusCode"] == 200


def test_broken_base64_is_400() -> None:
    for text in ("a", "é", "====a"):
        request = event("POST /v1/notes", "x") | {"body": text, "isBase64Encoded": True}
        assert handle(request, CONTEXT)["statusCode"] == 400


# ---- who asks comes first


@pytest.mark.parametrize("body", ["no json", "x" * (2 * MIB), {"text": 1}, b"\xff"])
@pytest.mark.parametrize("authorizer", [None, {}, {"refusal": "auth.token_expired"}])
def test_a_stranger_learns_nothing_about_the_body(
    body: object, authorizer: dict[str, str] | None
) -> None:
    status, code = post(body, authorizer=authorizer)
    assert status == 401
    assert code == ("auth.token_expired" if authorizer else "auth.token_missing")


def test_a_public_route_has_no_one() -> None:
    open_to_all = http.entrypoint({"POST /v1/notes": keep}, public=["POST /v1/notes"])
    answer = open_to_all(event("POST /v1/notes", {"text": "a"}), CONTEXT)
    assert answer["statusCode"] == 401  # the route asks for a principal all the same


# ---- request ids


@pytest.mark.parametrize(
    "given_id", ["12345678", "a-b_C-d0", "f47ac10b-58cc-4372-a567-0e02b2c3d479", "x" * 64]
)
def test_a_clients_request_id_is_kept(given_id: str) -> None:
    for name in ("x-request-id", "X-Request-Id"):
        _, _, headers = ask("POST /v1/notes", {"text": "a"}, headers={name: given_id})
        assert headers["X-Request-Id"] == given_id


@pytest.mark.parametrize(
    "given_id",
    ["", "short", "x" * 65, "with space", "a\r\nSet-Cookie: x=1", "ünïcode-id", "a;b=cccc"],
)
def test_any_other_is_replaced_by_the_gateways(given_id: str) -> None:
    for body in ({"text": "a"}, "no json"):
        _, _, headers = ask("POST /v1/notes", body, headers={"x-request-id": given_id})
        assert headers["X-Request-Id"] == "gateway-request-id"


# ---- bugs and wrong deployments


def test_a_bug_is_500_without_a_word_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log = captured_log(monkeypatch)
    status, body, headers = ask("POST /v1/notes", {"text": "boom"})
    assert status == 500
    assert body["code"] == "internal.error"
    assert headers["X-Request-Id"]
    assert "canary" not in json.dumps([body, headers])
    assert "ZeroDivisionError" not in json.dumps([body, headers])
    assert "ZeroDivisionError" in log.getvalue()


def test_a_wrong_deployment_is_500_and_names_its_variables_in_the_log_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = captured_log(monkeypatch)
    monkeypatch.setenv("BUS_NAME", "")
    monkeypatch.setenv("LOG_LEVEL", "canary-level")
    config.forget()
    status, body, headers = ask("POST /v1/notes", {"text": "a"})
    assert (status, body["code"]) == (500, "config.invalid")
    assert headers["Content-Type"] == PROBLEM
    assert "BUS_NAME" not in json.dumps(body)
    log = stream.getvalue()
    assert "BUS_NAME is not set" in log
    assert "LOG_LEVEL must be" in log
    assert "canary" not in log


def test_the_log_of_a_request_holds_ids_and_numbers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = captured_log(monkeypatch)
    headers = {"authorization": "Bearer canary-token", "cookie": "canary"}
    ask("POST /v1/notes", {"text": "canary-text"}, headers=headers)
    log = stream.getvalue()
    line = json.loads(log.splitlines()[-1])
    assert line["route"] == "POST /v1/notes"
    assert line["status"] == 200
    assert line["correlation_id"] == "gateway-request-id"
    assert "canary" not in log


# ---- what no route takes


def unrouted(method: str, path: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    request = event(f"{method} {path}", authorizer=None) | {"routeKey": "$default"}
    answer = function("reject_unrouted").handler(request, CONTEXT)
    return answer["statusCode"], json.loads(answer["body"]), answer["headers"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/assets/upload", "DELETE, GET"),
        ("GET", "/v1/assets/ast_x/confirm", "POST"),
        ("PUT", "/v1/assets/ast_x", "DELETE, GET"),
        ("PATCH", "/v1/assets/upload", "DELETE, GET, POST"),
        ("POST", "/v1/health", "GET"),
        ("HEAD", "/v1/health", "GET"),
    ],
)
def test_another_method_is_405_with_those_that_work(method: str, path: str, allowed: str) -> None:
    status, body, headers = unrouted(method, path)
    if method in allowed.split(", "):
        assert status == 404
    else:
        assert (status, body["code"]) == (405, "request.method_not_allowed")
        assert headers["Allow"] == allowed
    assert headers["Content-Type"] == PROBLEM
    assert headers["X-Request-Id"] == "gateway-request-id"


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/v1", "/v1/", "/v2/assets/upload", "/v1/assets", "/v1/assets/"),
        *("/v1/assets//confirm", "/v1/assets/a/b/confirm", "/v1/assets/a/confirm/"),
        *("/v1/health/", "/%2e%2e/v1/health"),
    ],
)
def test_an_unknown_address_is_404(path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        status, body, _ = unrouted(method, path)
        assert (status, body["code"]) == (404, "request.not_found")


def test_a_text_that_no_database_holds_is_the_callers_mistake() -> None:
    status, document, _ = ask("POST /v1/notes", {"text": "unstorable"})
    assert (status, document["code"]) == (422, "request.validation_failed")


def test_a_webhook_with_such_a_text_is_no_payload() -> None:
    def receive(headers: object, body: bytes) -> None:
        raise postgres.Unstorable("22P05")

    answer = http.webhook(receive, config.bus_name)(
        {"routeKey": "$default", "requestContext": {}, "headers": {}, "body": "{}"}, CONTEXT
    )
    assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (
        400,
        "webhook.payload_invalid",
    )


# ---- the template and the code name the same routes


def template_routes() -> dict[str, set[str]]:
    """The routes of each function's folder in the template."""
    resources = read_template()["Resources"]
    found: dict[str, set[str]] = {}
    for resource in resources.values():
        properties = resource.get("Properties") or {}
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        for trigger in (properties.get("Events") or {}).values():
            route = trigger.get("Properties", {})
            if trigger["Type"] == "HttpApi" and route.get("Path", "/$default") != "/$default":
                name = str(properties["CodeUri"]).rpartition("/")[2]
                found.setdefault(name, set()).add(f"{route['Method'].upper()} {route['Path']}")
    return {name: {route for route in routes if "$" not in route} for name, routes in found.items()}


def test_every_function_serves_exactly_the_routes_the_template_gives_it() -> None:
    routes = {name: found for name, found in template_routes().items() if found}
    assert routes
    for name, found in routes.items():
        assert set(function(name).ROUTES) == found, name


def test_the_table_that_tells_405_from_404_is_the_templates() -> None:
    routes = {route for found in template_routes().values() for route in found}
    table = {
        (method, re.compile(pattern.replace(http._ID, "/ID"))) for method, pattern in http._ROUTES
    }
    ours = {f"{method} {pattern.pattern}" for method, pattern in table}
    assert {re.sub(r"\{\w+\}", "ID", route) for route in routes} == ours


def test_base64_is_what_the_gateway_sends_for_binary_bodies() -> None:
    request = event("POST /v1/notes", b'{"text": "a"}')
    assert request["isBase64Encoded"]
    assert base64.b64decode(request["body"]) == b'{"text": "a"}'
    assert handle(request, CONTEXT)["statusCode"] == 200
