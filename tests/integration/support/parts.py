"""A film of three parts, and the routes that take it."""

import random
from collections.abc import Iterable, Mapping
from typing import Any

from tests.integration.support import api, samples
from tests.integration.support.api import ADMIN, Answer, Reply
from tests.integration.support.samples import Sample

PART = 8 << 20
_NOISE = random.Random(1).randbytes(2 * PART + 12_345)
FILM = Sample("film.mp4", "video/mp4", samples.movie(b"isom") + samples.box(b"mdat", _NOISE))
PIECES = {n + 1: FILM.data[at : at + PART] for n, at in enumerate(range(0, len(FILM.data), PART))}


def ask(who: Mapping[str, str] = ADMIN, key: str = "", **changes: Any) -> Answer:
    headers = {"Idempotency-Key": key} if key else {}
    body = api.wish(FILM, **changes)
    return api.call("POST /v1/assets/multipart", body=body, who=who, headers=headers)


def start(**changes: Any) -> str:
    """Begin an upload that must be granted; return the asset's id."""
    found = ask(**changes)
    assert found.status == 200, found
    return str(found.body["assetId"])


def wish(piece: int, *, checked: bool = True, **changes: Any) -> dict[str, Any]:
    data = PIECES[piece]
    found = {"number": piece, "size": len(data)} | changes
    return {"sha256": api.digest(data)} | found if checked else found


def sign(asset_id: str, *parts: Mapping[str, Any], who: Mapping[str, str] = ADMIN) -> Answer:
    body = {"parts": list(parts)}
    route = "POST /v1/assets/{assetId}/multipart/parts"
    return api.call(route, asset_id=asset_id, body=body, who=who)


def put(ticket: Mapping[str, Any], data: bytes, **headers: str | None) -> Reply:
    found = {"method": "PUT", "uploadUrl": ticket["url"], "headers": ticket["headers"]}
    return api.put(found, data, **headers)


def send(asset_id: str, numbers: Iterable[int] = PIECES, *, checked: bool = True) -> dict[int, str]:
    """Sign and send parts; return their ETags by number."""
    found = sign(asset_id, *(wish(number, checked=checked) for number in numbers))
    assert found.status == 200, found
    etags = {}
    for ticket in found.body["parts"]:
        reply = put(ticket, PIECES[ticket["number"]])
        assert reply.status == 200, reply
        etags[ticket["number"]] = reply.headers["etag"]
    return etags


def arrived(asset_id: str, who: Mapping[str, str] = ADMIN) -> Answer:
    return api.call("GET /v1/assets/{assetId}/multipart/parts", asset_id=asset_id, who=who)


def named(etags: Mapping[int, str]) -> dict[str, Any]:
    return {"parts": [{"number": n, "etag": etag} for n, etag in etags.items()]}


def complete(asset_id: str, etags: Mapping[int, str], who: Mapping[str, str] = ADMIN) -> Answer:
    route = "POST /v1/assets/{assetId}/multipart/complete"
    return api.call(route, asset_id=asset_id, body=named(etags), who=who)


def abort(asset_id: str, who: Mapping[str, str] = ADMIN) -> Answer:
    return api.call("DELETE /v1/assets/{assetId}/multipart", asset_id=asset_id, who=who)
