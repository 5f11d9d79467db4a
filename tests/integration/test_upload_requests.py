"""What may be asked for, and what each refusal says. Nothing is stored."""

import base64
import json
import unicodedata
from typing import Any

import pytest

from kyora.assets import ledger, rules
from tests.integration.support import api, invariants, samples
from tests.integration.support.samples import PNG
from tests.integration.support.stores import Store
from tests.integration.support.workers import Crew

UPLOAD = "POST /v1/assets/upload"
UPLOADS = "POST /v1/assets/uploads"
LONG = "صورة🙂" * 60  # 12 bytes each, 4 of them one emoji

# Name as sent, and as kept (None: refused).
NAMES: dict[str, tuple[str, str | None]] = {
    "climbs out of a folder": ("../../etc/passwd.png", "passwd.png"),
    "climbs out with backslashes": ("..\\..\\x.png", "x.png"),
    "is an absolute path": ("/etc/x.png", "x.png"),
    "is a path with a drive": ("C:\\x.png", "x.png"),
    "holds a NUL": ("a\0.png", None),
    "holds a NUL before a second extension": ("a.php\0.png", None),
    "holds CR and LF": ("a\r\nSet-Cookie: x=1.png", None),
    "holds a line separator": ("a\u2028b.png", None),
    "holds a C1 control": ("a\x85b.png", None),
    "turns its extension around": ("a\u202egnp.png", "agnp.png"),
    "hides zero-width characters": ("a\u200b\u2060\ufeffb.png", "ab.png"),
    "has a homoglyph": ("p\u0430ypal.png", "p\u0430ypal.png"),
    "is decomposed": (unicodedata.normalize("NFD", "é.png"), "é.png"),
    "is only an extension": (".png", None),
    "is a device": ("CON.png", "_CON.png"),
    "is a device in lower case": ("aux.pdf.png", "_aux.pdf.png"),
    "has an extension inside": ("a.php.png", "a.php.png"),
    "spaces are folded": ("  my   mug .png", "my mug .png"),
    "quotes stay": ("a\"b'c;d.png", "a\"b'c;d.png"),
    "is markup": ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
    "leading dots go": ("...hidden.png", "hidden.png"),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_file_name_that(case: str, store: Store) -> None:
    given, kept = NAMES[case]
    answer = api.call(UPLOAD, body=api.wish(PNG, filename=given))
    if kept is None:
        assert answer.status in (415, 422), answer
        assert answer.body["errors"][0]["field"] == "filename"
        assert invariants.nothing_happened()
        return
    assert answer.status == 200, answer
    asset_id = answer.body["assetId"]
    assert api.get(asset_id).body["filename"] == kept
    # The name leads nowhere: the key is made of ids alone.
    assert f"/incoming/ws_demo/{asset_id}?" in answer.body["uploadUrl"]


def test_names_that_differ_only_in_their_normal_form_are_two_assets(store: Store) -> None:
    first = api.upload(PNG, filename=unicodedata.normalize("NFC", "é.png"))
    second = api.upload(PNG, filename=unicodedata.normalize("NFD", "é.png"))
    assert first != second
    assert api.confirm(first).body["filename"] == api.confirm(second).body["filename"]


def test_a_long_name_is_cut_at_a_character_and_keeps_its_extension(store: Store) -> None:
    asset_id = api.upload(PNG, filename=f"{LONG}.png")
    kept = api.confirm(asset_id).body["filename"]
    assert len(kept.encode()) <= 255
    assert len(kept.encode()) > 240
    assert kept.endswith(".png")
    assert LONG.startswith(kept.removesuffix(".png"))
    download = api.http_call("GET", api.get(asset_id).body["downloadUrl"])
    assert download.body == PNG.data


@pytest.mark.parametrize("name", ["", ".", "..", "   ", "...", "a" * 1025 + ".png"])
def test_a_name_that_says_nothing_is_refused(name: str, store: Store) -> None:
    answer = api.call(UPLOAD, body=api.wish(PNG, filename=name))
    assert answer.status in (415, 422)
    assert answer.body["errors"][0]["field"] == "filename"
    assert invariants.nothing_happened()


# Extension and type that do not belong together or are not accepted (12 to 15).
TYPES = {
    "double extension": ("a.pdf.exe", "application/pdf"),
    "no extension": ("mug", "image/png"),
    "extension of spaces": ("mug. ", "image/png"),
    "parameters of another type": ("a.png", "text/html; charset=x"),
    "two values": ("a.png", "image/png, image/jpeg"),
    "two values in lines": ("a.png", "image/png\r\nx-evil: 1"),
    "very long": ("a.png", "image/" + "p" * 200),
    "another image": ("a.png", "image/jpeg"),
    "HTML": ("a.html", "text/html"),
    "HTML behind an accepted extension": ("a.png", "text/html"),
    "SVG": ("a.svg", "image/svg+xml"),
    "XHTML": ("a.xhtml", "application/xhtml+xml"),
    "JavaScript": ("a.js", "text/javascript"),
    "macros": ("a.docm", "application/vnd.ms-word.document.macroEnabled.12"),
    "program": ("a.exe", "application/octet-stream"),
    "extension in Arabic digits": ("a.mp٣", "audio/mpeg"),
}


@pytest.mark.parametrize("case", TYPES)
def test_a_type_that_is_not_accepted_is_415(case: str, store: Store) -> None:
    name, content_type = TYPES[case]
    answer = api.call(UPLOAD, body=api.wish(PNG, filename=name, contentType=content_type))
    assert (answer.status, answer.code) == (415, "asset.type_not_allowed")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert invariants.nothing_happened()


@pytest.mark.parametrize(
    "given", ["IMAGE/PNG", " image/png ", "image/png;x=y", "", None, "application/octet-stream"]
)
def test_a_type_as_browsers_write_it_becomes_the_one_that_the_ticket_says(
    given: str | None, store: Store
) -> None:
    ticket = api.request(PNG, contentType=given)
    assert ticket["headers"]["Content-Type"] == "image/png"
    assert api.put(ticket, PNG.data).status == 200
    assert api.confirm(ticket["assetId"]).body["contentType"] == "image/png"


# Sizes and checksums (16, 17), fields and bodies: field, value, status, code.
FIELDS: dict[str, tuple[str, Any, int]] = {
    "size 0": ("size", 0, 422),
    "size -1": ("size", -1, 422),
    "size 1.5": ("size", 1.5, 422),
    "size 10.0": ("size", 10.0, 422),
    "size as text": ("size", "10", 422),
    "size true": ("size", True, 422),
    "size 2^63": ("size", 2**63, 422),
    "size of 400 digits": ("size", 10**400, 422),
    "size null": ("size", None, 422),
    "one byte more than an image may have": ("size", rules.MAX_BYTES["image"] + 1, 413),
    "checksum in hexadecimal": ("sha256", "ab" * 32, 422),
    "checksum too short": ("sha256", base64.b64encode(b"a" * 31).decode(), 422),
    "checksum too long": ("sha256", base64.b64encode(b"a" * 33).decode(), 422),
    "checksum without padding": ("sha256", base64.b64encode(b"a" * 32).decode()[:-1], 422),
    "checksum with more padding": ("sha256", base64.b64encode(b"a" * 32).decode() + "=", 422),
    "checksum with stray bits": ("sha256", "A" * 42 + "B=", 422),
    "checksum in the URL alphabet": ("sha256", "_" + "A" * 42 + "=", 422),
    "checksum with a line break": ("sha256", "A" * 42 + "\nA=", 422),
    "checksum empty": ("sha256", "", 422),
    "purpose with a slash": ("purpose", "../x", 422),
    "purpose in capitals": ("purpose", "Logo", 422),
    "purpose with a line break at its end": ("purpose", "logo\n", 422),
    "a field nobody knows": ("workspaceId", "ws_other", 422),
    "a name that is a list": ("filename", ["a.png"], 422),
    "a name by its other spelling": ("content_type", "image/png", 422),
    "a type that is a number": ("contentType", 7, 422),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_field_that_is_wrong_is_named(case: str, store: Store) -> None:
    field, value, status = FIELDS[case]
    body = api.wish(PNG) | {field: value}
    answer = api.call(UPLOAD, body=body)
    assert answer.status == status, answer
    assert answer.code == ("asset.too_large" if status == 413 else "request.validation_failed")
    assert [fault["field"] for fault in answer.body["errors"]] == [field]
    assert invariants.nothing_happened()
    many = api.call(UPLOADS, body={"files": [body]})
    assert many.status == 200
    (error,) = (item["error"] for item in many.body["uploads"])
    assert (error["status"], error["code"]) == (status, answer.code)
    assert [fault["field"] for fault in error["errors"]] == [field]


BODIES = {
    "no body": ("", 400),
    "broken JSON": ('{"filename": ', 400),
    "two documents": ("{}{}", 400),
    "not UTF-8": (base64.b64encode(b'{"filename": "\xff"}').decode(), 400),
    "not base64": ("ab", 400),
    "a lone surrogate": ('{"filename": "\\ud800.png"}', 400),
    "a list": ("[]", 422),
    "null": ("null", 422),
    "a text": ('"x"', 422),
    "nothing in it": ("{}", 422),
    "nested a thousand times": ("[" * 1000 + "]" * 1000, 400),
    "one byte over a mebibyte": (json.dumps("x" * ((1 << 20) - 1)), 413),
    "three mebibytes": ("x" * (3 << 20), 413),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_cannot_be_read_is_refused(case: str, store: Store) -> None:
    raw, status = BODIES[case]
    event = api.event(UPLOAD, raw=raw)
    event["isBase64Encoded"] = case in ("not UTF-8", "not base64")
    answer = api.answer(api.function("request_upload")(event, api.Context()))
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.body["status"] == status
    assert invariants.nothing_happened()


def test_not_a_number_is_no_size(store: Store) -> None:
    raw = json.dumps(api.wish(PNG)).replace(str(len(PNG.data)), "NaN", 1)
    assert api.call(UPLOAD, raw=raw).code == "request.invalid_json"
    assert api.call(UPLOADS, raw=f'{{"files": [{raw}]}}').code == "request.invalid_json"
    assert invariants.nothing_happened()


def test_a_body_in_base64_is_read(store: Store) -> None:
    event = api.event(UPLOAD, raw=base64.b64encode(json.dumps(api.wish(PNG)).encode()).decode())
    event["isBase64Encoded"] = True
    assert api.function("request_upload")(event, api.Context())["statusCode"] == 200


def test_a_workspace_cannot_be_chosen_by_header_or_query(store: Store) -> None:
    headers = {"x-workspace-id": "ws_other", "x-kyora-workspace": "ws_other"}
    answer = api.call(UPLOAD, body=api.wish(PNG), headers=headers)
    assert "/incoming/ws_demo/" in answer.body["uploadUrl"]
    assert invariants.usage("ws_other") == (0, 0)


def test_without_a_principal_nothing_is_looked_at(store: Store) -> None:
    for who in (None, {}, {"refusal": "auth.token_expired"}, {"userId": "usr_demo_admin"}):
        for route, name in api.ROUTES.items():
            if route.startswith("GET /v1/billing/plans"):  # these are for everybody
                continue
            answer = api.call(route, asset_id=api.UNKNOWN, raw="{broken", who=who)
            assert answer.status == 401, (name, answer)
    assert invariants.nothing_happened()


@pytest.mark.parametrize("count", [0, 51])
def test_a_batch_of_none_or_more_than_fifty_is_refused(count: int, store: Store) -> None:
    answer = api.call(UPLOADS, body={"files": [api.wish(PNG)] * count})
    assert (answer.status, answer.code) == (422, "request.validation_failed")
    assert answer.body["errors"][0]["field"] == "files"
    assert invariants.nothing_happened()


def test_fifty_at_once_are_granted_and_one_bad_among_them_stops_no_other(store: Store) -> None:
    files = [api.wish(PNG) for _ in range(50)]
    files[17] = api.wish(PNG, filename="a.exe")
    files[31] = api.wish(PNG, size=-1)
    results = api.call(UPLOADS, body={"files": files}).body["uploads"]
    assert [i for i, result in enumerate(results) if "error" in result] == [17, 31]
    assert results[17]["error"]["code"] == "asset.type_not_allowed"
    assert results[31]["error"]["errors"][0]["field"] == "size"
    assert invariants.usage() == (0, 48 * len(PNG.data))
    assert api.put(results[49], PNG.data).status == 200
    assert api.confirm(results[49]["assetId"]).status == 200


def test_the_quota_is_granted_to_its_last_byte(store: Store) -> None:
    size = len(PNG.data)
    invariants.limit(2 * size)
    first = api.upload(PNG)
    api.confirm(first)
    api.upload(PNG)
    refused = api.call(UPLOAD, body=api.wish(PNG))
    assert (refused.status, refused.code) == (403, "billing.limit_reached")
    expected = {"limit": "maxStorageBytes", "allowed": 2 * size, "used": 2 * size}
    assert {name: refused.body[name] for name in expected} == expected
    api.delete(first)
    assert api.call(UPLOAD, body=api.wish(PNG)).status == 200


def test_a_batch_takes_what_is_left_of_the_quota_in_its_order(store: Store) -> None:
    size = len(PNG.data)
    invariants.limit(size * 3 - 1)
    small = api.wish(samples.ALL["txt"])
    files = [api.wish(PNG), api.wish(PNG), api.wish(PNG), small]
    results = api.call(UPLOADS, body={"files": files}).body["uploads"]
    assert ["error" in result for result in results] == [False, False, True, False]
    assert invariants.usage() == (0, 2 * size + small["size"])


def test_a_limit_of_minus_one_is_no_limit_and_of_zero_is_nothing(store: Store) -> None:
    invariants.limit(-1)
    assert api.call(UPLOAD, body=api.wish(PNG)).status == 200
    invariants.limit(0)
    assert api.call(UPLOAD, body=api.wish(PNG)).code == "billing.limit_reached"


def test_uploads_that_wait_are_limited(store: Store) -> None:
    batch = {"files": [api.wish(samples.ALL["txt"])] * 50}
    for _ in range(ledger.MAX_OPEN // 50):
        assert "error" not in json.dumps(api.call(UPLOADS, body=batch).body)
    refused = api.call(UPLOAD, body=api.wish(PNG))
    assert (refused.status, refused.code) == (429, "asset.too_many_pending")
    assert refused.headers["Retry-After"] == "60"
    assert "error" in api.call(UPLOADS, body=batch).body["uploads"][0]
    other = api.call(UPLOAD, body=api.wish(PNG), who=api.STRANGER)
    assert other.status == 200, "another workspace is not affected"


def test_sixteen_at_once_at_the_limit_get_exactly_what_is_left(store: Store, crew: Crew) -> None:
    size = len(PNG.data)
    for _ in range(5):
        used, reserved = invariants.usage()
        invariants.limit(used + reserved + 5 * size)
        answers = crew.together([(UPLOAD, {"body": api.wish(PNG)})] * 16)
        assert sorted(answer.status for answer in answers) == [200] * 5 + [403] * 11
        invariants.recount()
