"""Confirming: what becomes of a claim, of broken files, and of files that are not what they say."""

import random
import struct
import time

import pytest

from kyora import config
from tests.integration.support import api, invariants, samples, stores
from tests.integration.support.samples import PNG, Sample
from tests.integration.support.stores import Bucket, Store, every_store
from tests.integration.support.workers import Crew

CONFIRM = "POST /v1/assets/{assetId}/confirm"


@every_store
def test_confirm_comes_too_early_then_in_time_then_again(store: Store) -> None:
    """The answer of a repeat is the first one's, byte for byte."""
    ticket = api.request(PNG)
    early = api.confirm(ticket["assetId"])
    assert (early.status, early.code) == (409, "asset.not_uploaded")
    assert api.confirm(ticket["assetId"]).same_as(early)
    api.put(ticket, PNG.data)
    first = api.confirm(ticket["assetId"])
    assert first.status == 200
    for _ in range(3):
        assert api.confirm(ticket["assetId"]).same_as(first)
    assert invariants.events(ticket["assetId"]) == ["AssetReady"]


def test_a_confirm_while_another_one_works_says_when_to_come_back(store: Store) -> None:
    asset_id = api.upload(PNG)
    invariants.run(
        "UPDATE asset SET status = 'verifying', lease_token = 'try_x', attempts = '{try_x}',"
        " lease_until = now() + interval '1 minute'"
    )
    answer = api.confirm(asset_id)
    assert (answer.status, answer.headers["Retry-After"]) == (202, "1")
    assert answer.body["status"] == "verifying"
    assert "downloadUrl" not in answer.body
    assert api.deliver(f"incoming/ws_demo/{asset_id}") == [f"incoming/ws_demo/{asset_id}"]
    invariants.break_lease(asset_id)
    assert api.confirm(asset_id).status == 200


def test_a_confirm_after_the_deadline_is_410_before_and_after_the_sweep(store: Store) -> None:
    """40."""
    asset_id = api.upload(PNG)
    invariants.pass_deadline(asset_id)
    late = api.confirm(asset_id)
    assert (late.status, late.code) == (410, "asset.expired")
    assert api.get(asset_id).body["status"] == "expired"
    api.sweep()
    assert api.confirm(asset_id).same_as(late)
    assert api.get(asset_id).body["status"] == "expired"
    assert invariants.events(asset_id) == []


def test_a_put_that_ends_after_the_url_has_expired_still_counts(store: Store) -> None:
    asset_id = api.upload(PNG)
    invariants.run("UPDATE asset SET url_expires_at = now() - interval '30 minutes'")
    assert api.confirm(asset_id).status == 200


MZ = b"MZ\x90\x00\x03\x00\x00\x00"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
BOMB = samples.archive("a") + b"x"
ALL = samples.ALL

# Number and lie: extension it is announced with, its bytes, the reason of the refusal.
LIES: dict[str, tuple[str, bytes, str]] = {
    "HTML named png": ("png", b"<!doctype html><script>alert(1)</script>", "type_mismatch"),
    "HTML named jpg": ("jpg", b"<html>", "type_mismatch"),
    "HTML named pdf": ("pdf", b"<html>%PDF-1.4 %%EOF", "type_mismatch"),
    "HTML named mp4": ("mp4", b"<html>" * 9, "type_mismatch"),
    "PNG with an HTML tail": ("png", samples.png(tail=b"<script>"), "bad_content"),
    "GIF that is JavaScript": (
        "gif",
        b"GIF89a/*\0\0\0\0*/=alert(1);//" + b"\0" * 9,
        "bad_content",
    ),
    "GIF with a tail": ("gif", samples.gif() + b"<?php", "bad_content"),
    "WebP with a tail": ("webp", samples.webp() + b"<?php", "bad_content"),
    "ZIP named docx": ("docx", ALL["zip"].data, "type_mismatch"),
    "xlsx named docx": ("docx", ALL["xlsx"].data, "type_mismatch"),
    "docx with macros": (
        "docx",
        samples.office("word/document.xml", "word/vbaProject.bin"),
        "macros",
    ),
    "xls named doc": ("doc", ALL["xls"].data, "type_mismatch"),
    "EXE named pdf": ("pdf", MZ, "type_mismatch"),
    "EXE named zip": ("zip", MZ, "type_mismatch"),
    "EXE named txt": ("txt", MZ + b"\xff\xfe", "type_mismatch"),
    "SVG named png": ("png", SVG, "type_mismatch"),
    "SVG named webp": ("webp", SVG, "type_mismatch"),
    "EICAR named png": ("png", EICAR, "type_mismatch"),
    "PNG named jpg": ("jpg", PNG.data, "type_mismatch"),
    "WebM named mov": ("mov", ALL["webm"].data, "type_mismatch"),
    "AVIF named heic": ("heic", ALL["avif"].data, "type_mismatch"),
    "HEIC named mp4": ("mp4", ALL["heic"].data, "type_mismatch"),
    "WAV named webp": ("webp", ALL["wav"].data, "type_mismatch"),
    "AAC named mp3": ("mp3", ALL["aac"].data, "type_mismatch"),
    "text with a NUL": ("txt", b"a\0b", "type_mismatch"),
    "bomb of 50,000 x 50,000": ("png", samples.png(50_000, 50_000), "too_many_pixels"),
    "bomb in a JPEG": ("jpg", samples.jpeg(65_500, 65_500), "too_many_pixels"),
    "bomb in a GIF": ("gif", samples.gif(60_000, 60_000), "too_many_pixels"),
    "bomb in a WebP": ("webp", samples.webp(16_000, 16_001), "too_many_pixels"),
    "bomb in a HEIC": ("heic", samples.heic(60_000, 60_000), "too_many_pixels"),
    "a picture of no pixels": ("png", samples.png(0, 5), "bad_content"),
    "JPEG without its end": ("jpg", samples.jpeg()[:-2], "bad_content"),
    "JPEG cut in its tables": ("jpg", samples.jpeg()[:60], "bad_content"),
    "PNG cut in its pixels": ("png", PNG.data[:50], "bad_content"),
    "GIF cut in its pixels": ("gif", samples.gif()[:-5], "bad_content"),
    "MP4 cut in its frames": ("mp4", ALL["mp4"].data[:-1], "bad_content"),
    "MP4 without its index": ("mp4", samples.iso(b"isom", samples.box(b"mdat")), "bad_content"),
    "PDF cut in its first object": ("pdf", samples.PDF[:20], "bad_content"),
    "ZIP without its directory": ("zip", ALL["zip"].data[:40], "bad_content"),
    "docx cut in half": ("docx", ALL["docx"].data[:90], "bad_content"),
    "WAV cut before its sound": ("wav", ALL["wav"].data[:40], "bad_content"),
    "a PNG's signature only": ("png", PNG.data[:8], "bad_content"),
    "a PNG's header only": ("png", PNG.data[:33], "bad_content"),
    "a GIF's header only": ("gif", samples.gif()[:13], "bad_content"),
    "a JPEG's magic only": ("jpg", b"\xff\xd8\xff", "bad_content"),
    "an ftyp box only": ("heic", samples.iso(b"heic"), "bad_content"),
    "one byte": ("png", b"\x89", "type_mismatch"),
    "a box of no length": ("mp4", samples.iso(b"isom") + b"\0\0\0\1moov", "bad_content"),
    "a PNG chunk of 4 GiB": (
        "png",
        PNG.data[:33] + struct.pack(">I", 0xFFFFFFFF) + b"IDAT",
        "bad_content",
    ),
    "a PNG with a wrong header checksum": (
        "png",
        PNG.data[:29] + b"\0\0\0\0" + PNG.data[33:],
        "bad_content",
    ),
}


def test_a_file_that_lies_is_rejected_with_its_reason_and_leaves_nothing(store: Store) -> None:
    """to 48, one after the other: what is wrong with which is in the assertion."""
    for lie, (extension, data, reason) in LIES.items():
        honest = ALL[extension]
        asset_id = api.upload(Sample(honest.filename, honest.content_type, data))
        answer = api.confirm(asset_id)
        assert (answer.status, answer.code) == (422, "asset.rejected"), (lie, answer)
        assert answer.body["reason"] == reason, lie
        assert api.get(asset_id).body["status"] == "rejected", lie
        assert invariants.events(asset_id) == ["AssetRejected"], lie
        assert invariants.usage() == (0, 0), lie
        assert store.list() == [], lie


def test_a_rejection_says_what_the_file_is_every_time_and_in_its_event(store: Store) -> None:
    lie = Sample("photo.heic", "image/heic", ALL["avif"].data)
    asset_id = api.upload(lie)
    first = api.confirm(asset_id)
    assert (first.body["reason"], first.body["detectedType"]) == ("type_mismatch", "image/avif")
    assert api.confirm(asset_id).same_as(first)
    (event,) = invariants.rows("SELECT detail->'data' AS data FROM outbox")
    assert event["data"]["detectedType"] == "image/avif"


@pytest.mark.parametrize(
    ("variable", "policy", "data", "reason"),
    [
        ("UPLOADS_MACROS", "allow", samples.word(storages=("Macros",)), None),
        ("UPLOADS_PASSWORDS", "refuse", samples.word(encrypted=True), "encrypted"),
    ],
)
def test_the_policies_are_read_from_the_configuration(
    variable: str,
    policy: str,
    data: bytes,
    reason: str | None,
    store: Store,
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv(variable, policy)
    config.forget()
    answer = api.confirm(api.upload(Sample("letter.doc", "application/msword", data)))
    assert answer.body.get("reason") == reason
    assert answer.status == (422 if reason else 200)


# Accepted as what they say they are, and served as an attachment of that type.
HARMLESS = {
    "PDF with JavaScript": ("pdf", samples.PDF[:20] + b"/S /JavaScript\n" + samples.PDF[20:]),
    "HTML as text": ("txt", b"<script>alert(1)</script>"),
    "EICAR as text (there is no scanner)": ("txt", EICAR),
    "formulas in a CSV": ("csv", b'=cmd|"/c calc"!A1,1\n'),
    "ZIP bomb (nothing is unpacked)": ("zip", samples.archive(*(f"{n}" for n in range(50)))),
    "a JPEG with a preview behind its end": ("jpg", samples.jpeg() + samples.jpeg()),
    "UTF-16 named csv": ("csv", "a,b".encode("utf-16")),
    "a picture of one line": ("png", samples.png(10_000, 1)),
    "PNG without its last chunk": ("png", PNG.data[:-12]),
    "GIF without its trailer": ("gif", samples.gif()[:-1]),
    "PDF without its end mark": ("pdf", samples.PDF[:-8]),
    "WAV that is shorter than it says": ("wav", ALL["wav"].data[:-4]),
    "a text with a byte order mark": ("csv", b"\xef\xbb\xbfa,b\n"),
}


def test_a_file_that_is_dangerous_only_when_opened_is_served_as_an_attachment(
    store: Store,
) -> None:
    for case, (extension, data) in HARMLESS.items():
        honest = ALL[extension]
        found = api.confirm(api.upload(Sample(honest.filename, honest.content_type, data)))
        assert found.status == 200, (case, found)
        download = api.http_call("GET", found.body["downloadUrl"])
        assert download.headers["content-type"] == honest.content_type, case
        assert download.headers["content-disposition"].startswith("attachment;"), case


def test_no_damage_to_any_file_makes_confirm_fail_with_a_bug(store: Store) -> None:
    """Every type cut and flipped at random: ready or rejected, and quickly; never a 500."""
    dice = random.Random(42)
    for extension, honest in ALL.items():
        files = []
        for _ in range(5):
            data = bytearray(honest.data[: dice.randrange(1, len(honest.data) + 1)])
            for _ in range(dice.randrange(1, 4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            files.append(Sample(honest.filename, honest.content_type, bytes(data)))
        body = {"files": [api.wish(file) for file in files]}
        for ticket, file in zip(
            api.call("POST /v1/assets/uploads", body=body).body["uploads"], files, strict=True
        ):
            store.write(f"incoming/ws_demo/{ticket['assetId']}", file.data)
            started = time.process_time()
            answer = api.confirm(ticket["assetId"])
            assert answer.status in (200, 422), (extension, file.data, answer)
            assert time.process_time() - started < 1, (extension, file.data)


@every_store
@pytest.mark.parametrize("worse", [False, True], ids=["good", "bad"])
def test_bytes_swapped_between_look_and_copy_are_not_taken_for_the_first(
    worse: bool, store: Store, crew: Crew
) -> None:
    """Before the copy: 409, and the next confirm judges what is there now."""
    asset_id = api.upload(PNG, sha256=None)
    other = b"MZ".ljust(len(PNG.data)) if worse else samples.png(width=4)
    with crew.stalled(stores.method(store, "stat"), "after", CONFIRM, asset_id=asset_id) as finish:
        store.write(f"incoming/ws_demo/{asset_id}", other)
        answer = finish()
    assert (answer.status, answer.code) == (409, "asset.not_uploaded")
    assert invariants.status(asset_id) == "pending"
    answer = api.confirm(asset_id)
    assert answer.status == (422 if worse else 200)
    if not worse:
        assert answer.body["sha256"] == api.digest(other)


@every_store
def test_bytes_swapped_after_the_copy_are_never_served(store: Store, crew: Crew) -> None:
    """After the copy: what was verified is what is served."""
    asset_id = api.upload(PNG, sha256=None)
    with crew.stalled(stores.method(store, "copy"), "after", CONFIRM, asset_id=asset_id) as finish:
        store.write(f"incoming/ws_demo/{asset_id}", b"MZ".ljust(len(PNG.data)))
        answer = finish()
    assert (answer.status, answer.body["sha256"]) == (200, api.digest(PNG.data))
    assert api.http_call("GET", answer.body["downloadUrl"]).body == PNG.data


FAILURES = {
    "500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "503 SlowDown": b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n",
    "nothing": b"",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Le",
    "another protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_store_that_fails_gives_the_claim_back(
    failure: str, store: Store, environment: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After, and the asset is as it was before."""
    asset_id = api.upload(PNG)
    with stores.broken(FAILURES[failure]) as url:
        for name, value in Bucket("broken", url, "key", "secret").variables.items():
            environment.setenv(name, value)
        config.forget()
        answer = api.confirm(asset_id)
        assert (answer.status, answer.code) == (503, "storage.unavailable"), answer
        assert answer.headers["Retry-After"] == "2"
        assert invariants.status(asset_id) == "pending"
        if failure == "nothing":
            key = f"incoming/ws_demo/{asset_id}"
            assert api.deliver(key) == [key], "the event is kept for later"
            assert api.deleted(api.delete(asset_id)), "deleting does not wait for the store"
            assert api.get(asset_id).status == 404
            assert invariants.asset(asset_id)["cleaned_at"] is None
    for name, value in store.variables.items():
        environment.setenv(name, value)
    config.forget()
