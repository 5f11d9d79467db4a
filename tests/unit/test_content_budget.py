"""No file keeps a worker busy: what verification reads and how many steps it takes are bounded.

Steps and bytes are counted instead of seconds; one test holds the clock and the memory as well.
"""

import io
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyora.assets import rules
from kyora.assets.content import identify, verify
from kyora.assets.content.source import MAX_STEPS, Refused, Source
from tests.integration.support import samples

MIB = 1 << 20
DOCX = rules.TYPES["docx"][0]
ZIP = "application/zip"


def central(count: int, version: int = 20, extra: bytes = b"", size: int = 0) -> bytes:
    """A ZIP whose directory holds `count` entries of nothing."""
    fields = (20, 0, version, 0, 0, 0, 0, 0, 0, size, size, 0, len(extra), 0, 0, 0, 0, 0)
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", *fields) + extra
    lengths = (0, 0, count & 0xFFFF, count & 0xFFFF, len(entry) * count, 30, 0)
    return b"PK\x03\x04" + b"\0" * 26 + entry * count + struct.pack("<4s4H2LH", b"PK\5\6", *lengths)


RECORDS = struct.pack("<HH", 0x7777, 0) * 16_000  # 64,000 bytes of records of four bytes


def deep_tree(links: tuple[int, int]) -> bytes:
    """An OLE file of 10 MB whose directory is one long chain."""
    entries = 75_000
    sectors = entries // 4
    tables = -(-(sectors + sectors // 128 + 2) // 128) + 1
    difat = -(-(tables - 109) // 127)
    first = tables + sectors
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 16
    head += struct.pack("<5H6x", 0x3E, 3, 0xFFFE, 9, 6)
    head += struct.pack("<9I", 0, tables, tables, 0, 4096, samples.LAST, 0, first, difat)
    head += struct.pack("<109I", *range(109))
    fat = [samples.FAT] * tables + [tables + i + 1 for i in range(sectors)]
    fat[-1] = samples.LAST
    fat += [samples.FREE] * (tables * 128 - len(fat))
    directory = bytearray()
    for number in range(entries):
        name = f"s{number}".encode("utf-16-le")
        left, right = (samples.FREE if link == 0 else number + link for link in links)
        child = 1 if number == 0 else samples.FREE
        if number == 0:
            left = right = samples.FREE
        directory += name.ljust(64, b"\0")
        directory += struct.pack(
            "<HBB3I", len(name) + 2, 5 if number == 0 else 2, 1, left, right, child
        )
        directory += b"\0" * 36 + struct.pack("<IQ", samples.LAST, 0)
    numbers = list(range(109, tables))
    more = b""
    for block in range(difat):
        part = numbers[block * 127 : (block + 1) * 127]
        part += [samples.FREE] * (127 - len(part))
        more += struct.pack(
            "<128I", *part, first + block + 1 if block + 1 < difat else samples.LAST
        )
    return head + struct.pack(f"<{len(fat)}I", *fat) + bytes(directory) + more


def ole_with_table_of(sectors: int) -> bytes:
    """An OLE file that says its allocation table is larger than itself, read again and again."""
    data = bytearray(samples.word().ljust(10 * MIB, b"\0"))
    data[44:48] = struct.pack("<I", sectors)
    data[68:76] = struct.pack("<II", 0, -(-(sectors - 109) // 127))
    data[76:512] = struct.pack("<109I", *[0] * 109)
    data[512:1024] = b"\0" * 512
    return bytes(data)


def associations() -> bytes:
    """A HEIC whose one picture has ten million properties."""
    meta = samples.picture(9, 8, b"hvc1", 0)
    ipma = struct.pack(">I", 400_000) + (b"\0\1\xff" + b"\1" * 255) * 40_000
    iprp = samples.box(b"iprp", samples.box(b"ipco") + samples.full(b"ipma", ipma))
    return samples.iso(b"heic", samples.box(b"meta", meta[8 : meta.index(b"iprp") - 4] + iprp))


def fragments() -> bytes:
    """An MP4 whose fragments say that they have half a billion samples."""
    fragmented = samples.box(b"mvex", samples.full(b"trex", struct.pack(">5I", 1, 1, 9, 0, 0)))
    runs = samples.full(b"trun", struct.pack(">I", 5000) + b"\0" * 8)[:8] + b"\0\0\x13\x88"
    moof = samples.box(b"moof", samples.box(b"traf", runs.ljust(12, b"\0") * 90_000))
    return samples.iso(
        b"isom", samples.moov(samples.track(b"vide", b"avc1", 0), fragmented, milliseconds=0), moof
    )


def jpeg_of_short_codes(symbol: int) -> bytes:
    """A JPEG of 4 MB without an end mark, whose codes have one bit each."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body

    def table(name: int, symbol: int) -> bytes:
        return segment(0xC4, bytes([name, 2, *[0] * 15, symbol, symbol]))

    head = segment(0xC0, struct.pack(">BHHB", 8, 65535, 65535, 1) + b"\1\x11\0")
    head += table(0, 0) + table(0x10, symbol) + segment(0xDA, b"\1\1\0\0\x3f\0")
    return b"\xff\xd8" + head + b"\x55" * (4 * MIB - len(head) - 100)


BUSY: dict[str, tuple[Callable[[], bytes], str]] = {
    "a PNG of empty chunks": (
        lambda: samples.png()[:33] + samples.chunk(b"tEXt", b"") * (10 * MIB // 12),
        "image/png",
    ),
    "a PNG that is cut and unpacks to gigabytes": (
        lambda: (
            samples.png(30_000, 30_000)[:33]
            + samples.chunk(b"IDAT", zlib.compress(b"\0" * (150 * MIB)))[:-4]
        ),
        "image/png",
    ),
    "a JPEG of fill bytes": (lambda: b"\xff\xd8" + b"\xff" * (10 * MIB), "image/jpeg"),
    "a JPEG of empty segments": (
        lambda: b"\xff\xd8" + b"\xff\xe0\0\x02" * (10 * MIB // 4),
        "image/jpeg",
    ),
    "a JPEG of empty scans": (
        lambda: samples.jpeg()[:-2] + b"\xff\xda\0\x02" * (10 * MIB // 4),
        "image/jpeg",
    ),
    "a GIF of tiny blocks": (
        lambda: b"GIF89a\1\0\1\0\0\0\0\x21\xf9" + b"\x01\x01" * (5 * MIB),
        "image/gif",
    ),
    "a GIF of empty extensions": (
        lambda: b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xf9\x00" * (3 * MIB),
        "image/gif",
    ),
    "a GIF of stray bytes": (lambda: b"GIF89a\1\0\1\0\0\0\0" + b"\1" * (10 * MIB), "image/gif"),
    "a GIF that is cut in a frame of gigapixels": (
        lambda: (
            b"GIF89a\xff\xff\xff\xff\0\0\0\x2c\0\0\0\0\xff\xff\xff\xff\0\x08" + b"\xff" * (10 * MIB)
        ),
        "image/gif",
    ),
    "a WebP of empty chunks": (
        lambda: (
            b"RIFF" + struct.pack("<I", 10 * MIB + 4) + b"WEBP" + b"JUNK\0\0\0\0" * (10 * MIB // 8)
        ),
        "image/webp",
    ),
    "an MP4 of empty boxes": (
        lambda: samples.iso(b"isom") + samples.box(b"free") * (20 * MIB // 8),
        "video/mp4",
    ),
    "an MP4 of tracks": (
        lambda: samples.iso(b"isom", samples.moov(samples.track(b"vide", b"avc1", 9) * 50_000)),
        "video/mp4",
    ),
    "an MP4 of samples": (fragments, "video/mp4"),
    "a HEIC full of sizes": (
        lambda: samples.iso(b"heic", samples.box(b"meta", b"ispe" * (MIB // 2))),
        "image/heic",
    ),
    "a HEIC of associations": (associations, "image/heic"),
    "a WebM of empty elements": (
        lambda: samples.webm()[:-40] + b"\xec\x80" * (5 * MIB),
        "video/webm",
    ),
    "a WebM of clusters without a length": (
        lambda: samples.webm()[:-40] + b"\x1f\x43\xb6\x75\xff\xe7\x80" * MIB,
        "video/webm",
    ),
    "an MP3 of sync words": (lambda: b"\xff\xfb\x90\0" * (5 * MIB), "audio/mpeg"),
    "an MP3 of tags": (lambda: b"ID3\4\0\0\0\0\0\0" * (2 * MIB), "audio/mpeg"),
    "an MP3 of the smallest frames": (
        lambda: (b"\xff\xf3\x14\0" + b"\0" * 20) * 800_000,
        "audio/mpeg",
    ),
    "an AAC of the smallest frames": (
        lambda: b"\xff\xf1\x50\x80\0\xff\xfc" * (3 * MIB),
        "audio/aac",
    ),
    "a WAV of empty chunks": (
        lambda: b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * (2 * MIB),
        "audio/wav",
    ),
    "an Ogg of beginnings": (
        lambda: samples.page(2, 0, 0, b"OpusHead" + b"\0" * 9) * 400_000,
        "audio/ogg",
    ),
    "an Ogg that ends in page heads": (lambda: samples.ogg() + b"OggS\0" * 30_000, "audio/ogg"),
    "a PDF of end marks": (lambda: b"%PDF-1.7\n1 0 obj\n" + b"%%EOF\n" * MIB, "application/pdf"),
    "a PDF of nothing": (lambda: b"%PDF-1.7\n" + b"\0" * (10 * MIB), "application/pdf"),
    "a ZIP of countless entries": (lambda: central(20 * MIB // 46), ZIP),
    "a ZIP of extra fields": (lambda: central(700, extra=RECORDS), ZIP),
    "a ZIP of extra fields that are looked into": (
        lambda: central(350, extra=RECORDS, size=0xFFFFFFFF),
        ZIP,
    ),
    "a docx of extra fields": (lambda: central(160, extra=RECORDS, size=0xFFFFFFFF), DOCX),
    "a docx of countless entries": (lambda: central(10 * MIB // 46), DOCX),
    "a docx of a million types": (
        lambda: samples.office("word/document.xml", types="<Default/>" * 1_000_000),
        DOCX,
    ),
    "a docx whose types are nested": (
        lambda: samples.office("word/document.xml", types="<a>" * 1_000_000),
        DOCX,
    ),
    "an OLE file without its stream": (
        lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"W\0" * (5 * MIB),
        "application/msword",
    ),
    "an OLE file whose directory is a chain": (lambda: deep_tree((0, 1)), "application/msword"),
    "an OLE file whose directory is a circle": (lambda: deep_tree((-1, 1)), "application/msword"),
    "an OLE file of a table that never ends": (
        lambda: ole_with_table_of(400),
        "application/msword",
    ),
    "an OLE file of a table larger than itself": (
        lambda: ole_with_table_of(2**31),
        "application/msword",
    ),
    "an xls of empty records": (
        lambda: b"\x09\x08\x08\0" + b"\0" * 8 + b"\1\0\0\0" * (2 * MIB),
        "application/vnd.ms-excel",
    ),
    "a JPEG of short codes": (lambda: jpeg_of_short_codes(1), "image/jpeg"),
    "a JPEG of empty blocks": (lambda: jpeg_of_short_codes(0), "image/jpeg"),
    "a text of one line": (lambda: b"a" * (10 * MIB), "text/plain"),
    "a text of wide letters": (lambda: b"\xff\xfea\0" * (2 * MIB), "text/plain"),
}


def spent(data: bytes, content_type: str) -> Source:
    source = Source(io.BytesIO(data))
    with suppress(Refused):
        verify.parse(source, content_type)
    return source


@pytest.mark.parametrize("name", BUSY)
def test_work_is_bounded_by_steps_and_by_the_files_own_bytes(name: str) -> None:
    make, content_type = BUSY[name]
    data = make()
    source = spent(data, content_type)
    assert source.steps <= MAX_STEPS * 1.1
    assert source.bytes_read <= 6.1 * len(data) + 5 * MIB


ADDITIONS = 4_000_000


def additions() -> None:
    total = 0
    for number in range(ADDITIONS):
        total += number & 7


def processor(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


@pytest.mark.parametrize("name", BUSY)
def test_no_file_keeps_us_busy(name: str) -> None:
    """Not longer than 28 million additions, about a second of a processor.

    The search for what a refused file is included. A machine that is busy with other things takes
    longer for the same: what is not quick is measured again, beside what additions take there.
    """
    make, content_type = BUSY[name]
    data = make()

    def inspect() -> None:
        with suppress(Refused):
            verify.inspect(io.BytesIO(data), content_type)

    if (taken := processor(inspect)) > 0.5:
        limit = min(processor(additions) for _ in range(3)) * 28_000_000 / ADDITIONS
        assert min(taken, processor(inspect), processor(inspect)) < limit


# Those that make lists of what they read, or unpack.
KEEPING = [name for name in BUSY if any(kind in name for kind in ("docx", "OLE", "tracks", "wide"))]
KEEPING += ["a PNG that is cut and unpacks to gigabytes", "a HEIC of associations"]
KEEPING += ["a JPEG of empty blocks"]
KEEPING += ["a ZIP of extra fields", "a ZIP of extra fields that are looked into"]


# Says how many bytes of memory the process takes at most to inspect the file on its standard input.
# tracemalloc, which slows each allocation, would need ten times as long.
INSPECTION = """
import sys
from contextlib import suppress
from pathlib import Path
from kyora.assets.content import source, verify

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

before = peak()
with suppress(source.Refused):
    verify.inspect(sys.stdin.buffer, sys.argv[1])
print(peak() - before)
"""


@pytest.mark.parametrize("name", KEEPING)
def test_no_file_fills_the_memory(name: str) -> None:
    make, content_type = BUSY[name]
    with tempfile.TemporaryFile() as file:
        file.write(make())
        file.flush()
        done = subprocess.run(
            [sys.executable, "-c", INSPECTION, content_type],
            env={"PYTHONPATH": "layers/kyora"},
            stdin=file,
            capture_output=True,
            text=True,
            check=True,
        )
    assert int(done.stdout) < 80 * MIB


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(samples.ALL)),
    st.integers(0, 2**31),
    st.integers(1, 40),
    st.integers(1, 2000),
)
def test_no_piece_of_a_file_repeated_costs_more_than_its_bytes(
    last: str, start: int, length: int, times: int
) -> None:
    """Whatever part of a file a parser loops over: each copy of it costs a few steps at most."""
    whole = samples.ALL[last].data
    at = start % len(whole)
    part = whole[at : at + length]
    data = whole[:at] + part * times + whole[at:]
    source = spent(data, rules.TYPES[last][0])
    assert source.steps <= 4 * len(data) + 5000  # unpacking a megabyte counts as 2,048
    assert source.bytes_read <= 6 * len(data) + 4 * MIB


@settings(max_examples=100)
@given(st.sampled_from(sorted(samples.ALL)), st.integers(0, 60))
def test_a_type_is_recognised_within_the_same_budget(last: str, cut: int) -> None:
    data = samples.ALL[last].data
    source = Source(io.BytesIO(data[: len(data) - cut]))
    identify.media_type(source)
    assert source.steps <= 4 * len(data) + 100
