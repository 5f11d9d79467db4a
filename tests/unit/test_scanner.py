"""The local stack's malware scanner: what it finds, and how it says so."""

import io
import json
import socket
import struct
import tempfile
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local import template
from local.stack import scanner
from local.stack.scanner import CLEAN, EICAR, FAILED, UNSUPPORTED


def scan(data: bytes, clamd: str | None = None) -> scanner.Result:
    return scanner.scan(io.BytesIO(data), clamd)


def zipped(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def locked(data: bytes) -> bytes:
    """Set the bit that says a member has a password."""
    return data.replace(b"PK\x03\x04\x14\x00\x00", b"PK\x03\x04\x14\x00\x01").replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
    )


@pytest.mark.parametrize(
    "data",
    [
        EICAR,
        EICAR + b"\r\n",
        zipped(("eicar.com", EICAR)),
        zipped(("a.txt", b"a"), ("inner.zip", zipped(("eicar.com", EICAR)))),
    ],
    ids=["the file", "with a line end", "in a ZIP", "in a ZIP in a ZIP"],
)
def test_it_finds_the_test_file(data: bytes) -> None:
    found = scan(data)
    assert (found.scan, found.result) == ("COMPLETED", "THREATS_FOUND")
    assert found.threats == ("EICAR-Test-File",)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"a text about " + EICAR, zipped(("a.txt", b"hello"))],
    ids=["empty", "text", "a text that quotes it", "a ZIP"],
)
def test_it_finds_nothing_in_a_harmless_file(data: bytes) -> None:
    assert scan(data) == CLEAN


@pytest.mark.parametrize(
    "data",
    [
        locked(zipped(("a.txt", b"hello"))),
        b"PK\x03\x04 no archive",
        zipped(*[(f"{n}.txt", b"x") for n in range(1001)]),
        zipped(("a.zip", zipped(("b.zip", zipped(("c.zip", zipped(("d.zip", b"PK")))))))),
    ],
    ids=["a password", "no archive", "too many members", "too deep"],
)
def test_what_it_cannot_read_is_unsupported(data: bytes) -> None:
    assert scan(data) == UNSUPPORTED


def test_a_threat_beside_what_it_cannot_read_is_a_threat() -> None:
    inner = locked(zipped(("a.txt", b"hello")))
    assert scan(zipped(("locked.zip", inner), ("eicar.com", EICAR))).threats


@contextmanager
def clamd(answer: bytes, most: int = 1 << 30) -> Iterator[tuple[str, list[bytes]]]:
    """A daemon that speaks INSTREAM; yields its socket and what it was sent.

    It answers and hangs up once it has `most` bytes, as clamd does at its StreamMaxLength.
    """
    taken: list[bytes] = []
    with tempfile.TemporaryDirectory(prefix="clamd") as folder:
        path = str(Path(folder) / "ctl")
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(path)
        server.listen()

        def serve() -> None:
            peer, _ = server.accept()
            with peer, peer.makefile("rb") as stream:
                assert stream.read(10) == b"zINSTREAM\0"
                while length := struct.unpack("!L", stream.read(4))[0]:
                    taken.append(stream.read(length))
                    if sum(map(len, taken)) >= most:
                        break
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield path, taken
        thread.join(60)
        server.close()


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (b"stream: OK\0", CLEAN),
        (b"stream: Win.Test.X-1 FOUND\0", CLEAN._replace(result="THREATS_FOUND")),
        (b"INSTREAM size limit exceeded. ERROR\0", UNSUPPORTED),
        (b"Can't allocate memory ERROR\0", FAILED),
        (b"", FAILED),
    ],
)
def test_clamav_is_asked_in_chunks_and_its_answer_counts(
    answer: bytes, result: scanner.Result
) -> None:
    data = b"x" * 150_000
    with clamd(answer) as (path, taken):
        found = scan(data, path)
    assert b"".join(taken) == data
    assert found._replace(threats=()) == result
    assert found.threats == (("Win.Test.X-1",) if b"FOUND" in answer else ())


def test_a_file_that_is_too_large_for_clamav_is_not_scanned_again() -> None:
    """As with GuardDuty: `uploads.unscanned` decides at once, not at the deadline."""
    with clamd(b"INSTREAM size limit exceeded. ERROR\0", most=100_000) as (path, _):
        assert scan(bytes(5_000_000), path) == UNSUPPORTED


def test_a_large_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    large = tmp_path / "film.mp4"
    with large.open("wb") as file:
        file.truncate(200 << 20)
    packed = tmp_path / "film.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(large)
    tracemalloc.start()
    for name in (large, packed):
        with name.open("rb") as file, clamd(b"stream: OK\0", most=1) as (path, _):
            assert scanner.scan(file, path) == CLEAN
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20


def test_a_daemon_that_is_gone_is_a_failed_scan(tmp_path: Path) -> None:
    assert scan(b"hello", str(tmp_path / "gone")) == FAILED
    assert scanner.clamd({"CLAMD_SOCKET": str(tmp_path / "gone")}) is None


def test_its_event_has_the_fields_of_guardduty_and_fits_the_rule() -> None:
    sample = json.loads((template.ROOT / "events" / "record_scan.threat.json").read_text())
    real = json.loads(sample["Records"][0]["body"])["detail"]
    ours = scanner.detail("bucket", "assets/x", scan(EICAR))
    assert ours.keys() == real.keys()
    assert ours["scanResultDetails"].keys() == real["scanResultDetails"].keys()
    assert ours["s3ObjectDetails"].keys() <= real["s3ObjectDetails"].keys()
    rule = template.read()["Resources"]["ScanRule"]["Properties"]["EventPattern"]
    assert rule["source"][0]["Fn::If"] == ["HasGuardDuty", "aws.guardduty", scanner.SOURCE]
    assert rule["detail-type"] == [scanner.DETAIL_TYPE]
