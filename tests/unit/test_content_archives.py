"""ZIP byte by byte, and the Office files in one: which entries readers find, and what they are."""

import io
import struct
import zlib
from typing import Any

import pytest

from kyora.assets import rules
from kyora.assets.content import archive, verify
from kyora.assets.content.archive import Entry
from kyora.assets.content.source import Policy, Refused, Source
from tests.integration.support import samples

ZIP = "application/zip"
DOCX, XLSX, PPTX = (rules.TYPES[last][0] for last in ("docx", "xlsx", "pptx"))
BAD = "bad_content"
LARGE = 0xFFFFFFFF
STORED, DEFLATED = 0, 8


def verdict(data: bytes, content_type: str = ZIP, **policy: bool) -> str:
    """`ok`, or the reason and what the file is."""
    try:
        verify.inspect(io.BytesIO(data), content_type, Policy(**policy))
    except Refused as refused:
        return f"{refused.reason} {refused.detected or ''}".strip()
    return "ok"


def entries(data: bytes) -> list[Entry] | str:
    try:
        return list(archive.entries(Source(io.BytesIO(data))))
    except Refused as refused:
        return refused.reason


def local(name: bytes, data: bytes, method: int = STORED, extra: bytes = b"") -> bytes:
    numbers = (20, 0, method, 0, 0, 0, len(data), len(data), len(name), len(extra))
    return struct.pack("<4s5H3L2H", b"PK\3\4", *numbers) + name + extra + data


def central(
    name: bytes = b"a",
    *,
    packed: int = 5,
    full: int = 6,
    at: int = 0,
    method: int = STORED,
    flags: int = 0,
    extra: bytes = b"",
    comment: bytes = b"",
) -> bytes:
    head = struct.pack("<4s6H3L", b"PK\1\2", 20, 20, flags, method, 0, 0, 0, packed, full)
    lengths = (len(name), len(extra), len(comment), 0, 0, 0, at)
    return head + struct.pack("<5H2L", *lengths) + name + extra + comment


def end(count: int, length: int, at: int, *, disk: int = 0) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\5\6", disk, 0, count, count, length, at, 0)


BODY = local(b"a", b"hello")  # 36 bytes
TWO = BODY * 2


def zipped(
    *directory: bytes, body: bytes = TWO, between: bytes = b"", before: bytes = b""
) -> bytes:
    listed = b"".join(directory)
    return before + body + listed + between + end(len(directory), len(listed), len(body))


def long(*values: int, kind: int = 1, length: int | None = None) -> bytes:
    """An extra field of 64-bit numbers."""
    size = 8 * len(values) if length is None else length
    return struct.pack("<HH", kind, size) + struct.pack(f"<{len(values)}Q", *values)


def long_end(
    listed: bytes, at: int, *, said: int = 0, between: bytes = b"", name: bytes = b"PK\6\6"
) -> bytes:
    """An end in 64 bits, whose place the locator says wrong by `said`."""
    numbers = (44, 45, 45, 0, 0, 1, 1, len(listed), at)
    record = struct.pack("<4sQHHLLQQQQ", name, *numbers)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at + len(listed) + said, 1)
    return record + between + locator + end(0xFFFF, LARGE, LARGE)


A, B = Entry(b"a", False, STORED, 5, 0), Entry(b"b", False, DEFLATED, 7, 36)
OF_B = {"packed": 7, "at": 36, "method": DEFLATED}
ONE = central(at=36)
AT_36 = [Entry(b"a", False, STORED, 5, 36)]
FAR = {"packed": LARGE, "full": LARGE, "at": LARGE}
DIRECTORIES: dict[str, tuple[bytes, list[Entry] | str]] = {
    "two": (zipped(central(), central(b"b", **OF_B)), [A, B]),
    "none": (zipped(), []),
    "with a password": (zipped(central(flags=0x801)), [A._replace(encrypted=True)]),
    "of a name in UTF-8": (zipped(central(flags=0x800)), [A]),
    "extra fields and comments": (
        zipped(central(extra=b"\x77\x77\1\0x", comment=b"PK!"), central(b"b", **OF_B)),
        [A, B],
    ),
    "bytes before it": (
        zipped(central(), central(b"b", **OF_B), before=b"\0" * 9),
        [A._replace(offset=9), B._replace(offset=45)],
    ),
    "bytes before its end": (zipped(central(), between=b"\0" * 9), [A]),
    "a signature before its end": (zipped(central(), between=b"PK\5\5\2\0ab"), [A]),
    "padding in it": (zipped(central() + b"\0" * 45), [A]),
    "padding as long as an entry": (zipped(central() + b"\0" * 46), [A]),
    "a signature in it": (zipped(central() + b"PK\5\5".ljust(46, b"\0")), [A]),
    "a file in it": (zipped(central() + b"PK\3\4".ljust(46, b"\0")), BAD),
    "a comment beyond it": (zipped(central(comment=b"x" * 9)[:-1]), BAD),
    "a name beyond it": (zipped(central(b"x" * 9)[:-1]), BAD),
    "the last entry that may be": (zipped(central(at=72 - 30)), [A._replace(offset=42)]),
    "an entry a byte further": (zipped(central(at=72 - 29)), BAD),
    "long sizes": (zipped(central(**FAR, extra=long(9, 8, 36))), [A._replace(packed=8, offset=36)]),
    "a long place": (zipped(central(at=LARGE, extra=long(36))), AT_36),
    "a long packed size": (zipped(central(packed=LARGE, extra=long(8))), [A._replace(packed=8)]),
    "a long full size": (zipped(central(full=LARGE, extra=long(8))), [A]),
    "long sizes that are not needed": (zipped(central(extra=long(9, 8, 36))), [A]),
    "a long place behind other fields": (
        zipped(central(at=LARGE, extra=long(7, kind=0x7777) + long(36))),
        AT_36,
    ),
    "a long place behind an empty field": (
        zipped(central(at=LARGE, extra=long(kind=0x7777) + long(36))),
        AT_36,
    ),
    "a long place before other fields": (
        zipped(central(at=LARGE, extra=long(36) + long(7))),
        AT_36,
    ),
    "a long place that is not said": (zipped(central(at=LARGE)), BAD),
    "a long place in an empty field": (zipped(central(at=LARGE, extra=long())), BAD),
    "a long place of seven bytes": (zipped(central(at=LARGE, extra=long(36, length=7))), BAD),
    "a long place whose field is too long": (
        zipped(central(at=LARGE, extra=long(36, length=99))),
        AT_36,
    ),
    "a long place whose field is cut": (
        zipped(central(at=LARGE, extra=long(36)[:-1])),
        BAD,
    ),
    "fields that end in a few bytes": (
        zipped(central(at=LARGE, extra=long(36) + b"\1\0\1")),
        AT_36,
    ),
    "a few bytes for a field": (
        zipped(central(packed=LARGE, extra=b"\1\0\0")),
        [A._replace(packed=LARGE)],
    ),
    "a long end": (TWO + central() + long_end(central(), 72), [A]),
    "a long end, its place wrong": (TWO + central() + long_end(central(), 72, said=-9), [A]),
    "a long end, its place beyond": (TWO + central() + long_end(central(), 72, said=9999), [A]),
    "a long end at another place": (
        TWO + central() + long_end(central(), 72, between=b"\0" * 9),
        [A],
    ),
    "a long end that is none": (TWO + central() + long_end(central(), 72, name=b"PK\6\5"), BAD),
    "a long end without its locator": (TWO + central() + end(0xFFFF, LARGE, LARGE), BAD),
    "a long end, the length alone": (
        TWO + central() + long_end(central(), 72)[:-22] + end(1, LARGE, 72),
        [A],
    ),
    "a long end, the place alone": (
        TWO + central() + long_end(central(), 72)[:-22] + end(1, 47, LARGE),
        [A],
    ),
    "a long end, the disk alone": (
        TWO + central() + long_end(central(), 72)[:-22] + end(1, 0, 0, disk=0xFFFF),
        [A],
    ),
    "a long end, the count alone": (
        TWO + central() + long_end(central(), 72)[:-22] + end(0xFFFF, 0, 0),
        [A],
    ),
    "a long end that is not needed": (
        TWO + central() + long_end(b"", 9)[:-22] + end(1, 47, 72),
        [A],
    ),
    "many entries, no long end": (TWO + central() + end(0xFFFF, 47, 72), [A]),
    "no end": (TWO + central(), BAD),
    "an end that is cut": (zipped(central())[:-1], BAD),
    "the beginning of another end": (zipped(central()) + b"PK\5\6" + b"\0" * 17, [A]),
    "longer than its file": (TWO + central() + end(1, 120, 0), BAD),
    "as long as its file": (central() + end(1, 47, 0), BAD),
    "a comment as long as may be": (zipped(central()) + b"x" * 65_535, [A]),
    "an end within reach": (zipped(central()) + b"\0" * ((1 << 17) - 22), [A]),
    "an end out of reach": (zipped(central()) + b"\0" * ((1 << 17) - 21), BAD),
}  # fmt: skip


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_directory_is_read_as_readers_read_it(name: str) -> None:
    data, expected = DIRECTORIES[name]
    assert entries(data) == expected


def test_a_directory_has_so_many_bytes_and_no_more() -> None:
    most = 24 << 20
    data = bytes(most + 1)
    assert entries(data[1:] + end(0, most, 0)) == []
    assert entries(data + end(0, most + 1, 0)) == BAD


TEXT = b"hello, hello, hello, hello"
DEFLATE = zlib.compressobj(wbits=-15)
PACKED = DEFLATE.compress(TEXT) + DEFLATE.flush()


def read(data: bytes, most: int = 99, **changed: Any) -> bytes | str:
    entry = Entry(b"a", False, DEFLATED, len(PACKED), 0)._replace(**changed)
    try:
        return archive.read(Source(io.BytesIO(data)), entry, most)
    except Refused as refused:
        return refused.reason


def test_an_entry_is_unpacked_from_behind_its_own_header() -> None:
    stored, packed = local(b"a", TEXT), local(b"a", PACKED, DEFLATED, b"\x77\x77\0\0")
    assert read(packed) == TEXT
    assert read(b"12345" + packed, offset=5) == TEXT
    assert read(packed, 12) == TEXT[:12]
    assert read(stored, method=STORED, packed=26) == TEXT
    assert read(stored, method=STORED, packed=5) == TEXT[:5]
    assert read(stored, 7, method=STORED, packed=26) == TEXT[:7]
    assert read(packed, method=9) == BAD
    assert read(packed, encrypted=True) == BAD
    assert read(b"PK\3\5" + packed[4:]) == BAD
    assert read(local(b"a", b"\xff" * 20, DEFLATED)) == BAD


PLAIN = zipped(central())
FIRST = {
    "a file": (PLAIN, "ok"),
    "an end": (end(0, 0, 0), "ok"),
    "the mark of one disk": (b"PK00" + PLAIN, "ok"),
    "the mark of several disks": (b"PK\7\x08" + PLAIN, "ok"),
    "the mark of several disks alone": (b"PK\7\x08abcd" + PLAIN + b"x", "type_mismatch"),
    "junk": (b"junk" + PLAIN, "ok"),
    "junk, and more behind it": (b"junk" + PLAIN + b"\0", "type_mismatch"),
    "a program": (b"MZ" + PLAIN, "type_mismatch application/vnd.microsoft.portable-executable"),
    "a page": (b"<html>" + PLAIN, "type_mismatch text/html"),
    "a page further on": (b"\n" * 1019 + b"<html>" + PLAIN, "type_mismatch text/html"),
    "a page out of sight": (b"\n" * 1020 + b"<html>" + PLAIN, "ok"),
}


@pytest.mark.parametrize("name", FIRST)
def test_an_archive_may_begin_with_junk_but_no_other_file(name: str) -> None:
    data, expected = FIRST[name]
    assert verdict(data) == expected


def test_a_password_on_any_entry_is_found() -> None:
    data = zipped(central(), central(b"b", at=36, flags=1))
    assert verdict(data) == "ok"
    assert verdict(data, passwords=False) == "encrypted"
    assert verdict(PLAIN, passwords=False) == "ok"


# ---- Office files

WORD, EXCEL, SLIDES = "word/document.xml", "xl/workbook.xml", "ppt/presentation.xml"
OPEN = samples.OPEN
MAINS = {
    f"{OPEN}.wordprocessingml.document": DOCX,
    f"{OPEN}.wordprocessingml.template": DOCX,
    f"{OPEN}.spreadsheetml.sheet": XLSX,
    f"{OPEN}.spreadsheetml.template": XLSX,
    f"{OPEN}.presentationml.presentation": PPTX,
    f"{OPEN}.presentationml.template": PPTX,
    f"{OPEN}.presentationml.slideshow": PPTX,
}
WITH_MACROS = {
    "application/vnd.ms-word.document.macroEnabled": DOCX,
    "application/vnd.ms-word.template.macroEnabledTemplate": DOCX,
    "application/vnd.ms-excel.sheet.macroEnabled": XLSX,
    "application/vnd.ms-excel.template.macroEnabled": XLSX,
    "application/vnd.ms-excel.addin.macroEnabled": XLSX,
    "application/vnd.ms-powerpoint.presentation.macroEnabled": PPTX,
    "application/vnd.ms-powerpoint.template.macroEnabled": PPTX,
    "application/vnd.ms-powerpoint.slideshow.macroEnabled": PPTX,
    "application/vnd.ms-powerpoint.addin.macroEnabled": PPTX,
}
PARTS = {DOCX: WORD, XLSX: EXCEL, PPTX: SLIDES}


@pytest.mark.parametrize("main", MAINS)
def test_a_template_and_a_show_are_documents(main: str) -> None:
    wanted = MAINS[main]
    data = samples.office(PARTS[wanted], main=f"{main}.main+xml")
    for kind in (DOCX, XLSX, PPTX):
        assert verdict(data, kind) == ("ok" if kind == wanted else f"type_mismatch {wanted}")


@pytest.mark.parametrize("main", WITH_MACROS)
def test_every_document_with_macros_is_refused_by_its_type(main: str) -> None:
    wanted = WITH_MACROS[main]
    # Only the relationships say that it is the main part, or only its type does.
    for rels in ("", "<none/>"):
        data = samples.office(PARTS[wanted], main=f"{main}.main+xml", rels=rels)
        detected = main.replace("macroEnabledTemplate", "macroEnabledtemplate")
        assert verdict(data, wanted) == f"macros {detected}.12"
        for kind in (DOCX, XLSX, PPTX):
            found = verdict(data, kind, macros=True)
            assert found == ("ok" if kind == wanted else f"type_mismatch {detected}.12")


def package(types: str, *names: str, rels: str = "") -> bytes:
    head = "<?xml version='1.0'?><Types>" + types + "</Types>"
    links = {"_rels/.rels": f"<Relationships>{rels}</Relationships>"} if rels else {}
    return samples.zipped({"[Content_Types].xml": head} | links | dict.fromkeys(names, "<x/>"))


def override(name: str, main: str = f"{OPEN}.wordprocessingml.document.main+xml") -> str:
    return f"<Override PartName='/{name}' ContentType='{main}'/>"


def link(target: str, kind: str = "x/officeDocument") -> str:
    return f"<Relationship Type='{kind}' Target='{target}'/>"


MAIN_LINK = link("a.xml")
DOCUMENT = f"{OPEN}.wordprocessingml.document.main+xml"
SHEET = f"{OPEN}.spreadsheetml.sheet.main+xml"
VBA = "application/vnd.ms-office.vbaProject"
PACKAGES = {
    "its type by its extension": (
        package(f"<Default Extension='XML' ContentType='{DOCUMENT}'/>", "a.xml", rels=MAIN_LINK),
        "ok",
    ),
    "its type before its extension's": (
        package(
            f"<Default Extension='xml' ContentType='{SHEET}'/>" + override("a.xml"),
            "a.xml",
            rels=link("a.xml"),
        ),
        "ok",
    ),
    "its type with spaces and capitals": (
        package(override("a.xml", f" {DOCUMENT.upper()} "), "a.xml", rels=link("a.xml")),
        "ok",
    ),
    "elements of a namespace": (
        package(
            f"<n:Override xmlns:n='u' PartName='/a.xml' ContentType='{DOCUMENT}'/>",
            "a.xml",
            rels=link("a.xml"),
        ),
        "ok",
    ),
    "elements without attributes": (package("<Override/>" + override("a.xml"), "a.xml"), "ok"),
    "other elements": (
        package(
            override("a.xml") + f"<Other PartName='/a.xml' ContentType='{SHEET}'/>", "a.xml"
        ),
        "ok",
    ),
    "a link to a part that there is not": (
        package(override("a.xml"), "a.xml", rels=link("b.xml") + link("a.xml")),
        "ok",
    ),
    "links of other kinds": (
        package(
            override("a.xml") + override("b.xml", SHEET),
            "a.xml",
            "b.xml",
            rels=link("b.xml", "x/thumbnail") + link("a.xml"),
        ),
        "ok",
    ),
    "other elements among its links": (
        package(
            override("a.xml") + override("b.xml", SHEET),
            "a.xml",
            "b.xml",
            rels="<Default Type='x/officeDocument' Target='b.xml'/>" + link("a.xml"),
        ),
        "ok",
    ),
    "the first of two links": (
        package(
            override("a.xml") + override("b.xml", SHEET),
            "a.xml",
            "b.xml",
            rels=link("a.xml") + link("b.xml"),
        ),
        "ok",
    ),
    "links that lead nowhere": (
        package(override("x.xml", "text/xml") + override("a.xml"), "a.xml", rels=link("b.xml")),
        "ok",
    ),
    "an escaped name": (package(override("a%20b.xml"), "a b.xml", rels=link("a%20b.xml")), "ok"),
    "a part twice": (
        package(override("a.xml"), "a.xml", "A.XML", rels=link("a.xml")),
        "ok",
    ),
    "no known part": (package(override("a.xml", "text/xml"), "a.xml"), f"type_mismatch {ZIP}"),
    "no types": (samples.archive(WORD), f"type_mismatch {ZIP}"),
    "types that are no XML": (
        samples.archive(WORD, **{"[Content_Types].xml": "<a>"}),
        f"{BAD} {ZIP}",
    ),
    "a part of macros by its type": (
        package(override("a.xml") + override("b.bin", VBA), "a.xml", "b.bin"),
        f"macros {DOCX}",
    ),
    "a type of macros for no part": (
        package(override("a.xml") + override("b.bin", VBA), "a.xml"),
        "ok",
    ),
    "junk before it": (b"junk" + package(override("a.xml"), "a.xml"), "type_mismatch"),
    "the mark of one disk": (b"PK00" + package(override("a.xml"), "a.xml"), "ok"),
}  # fmt: skip


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_what_its_main_part_is(name: str) -> None:
    data, expected = PACKAGES[name]
    assert verdict(data, DOCX) == expected.replace(f"macros {DOCX}", "macros")


def test_a_package_has_so_many_parts_and_no_more() -> None:
    known = package(override("a.xml"), "a.xml")
    at = known.index(b"PK\1\2")
    body, listed = known[:at], known[at:-22]
    for count, expected in ((19_998, "ok"), (19_999, f"{BAD} {ZIP}")):
        more = b"".join(central(b"%x.txt" % number) for number in range(count))
        data = body + listed + more + end(0, len(listed) + len(more), at)
        assert verdict(data, DOCX) == expected
    same = central(b"same.txt") * 20_001
    data = body + listed + same + end(0, len(listed) + len(same), at)
    assert verdict(data, DOCX) == "ok"


@pytest.mark.parametrize(("kib", "expected"), [(4095, "ok"), (4097, f"{BAD} {ZIP}")])
def test_the_types_of_a_package_have_so_many_bytes(kib: int, expected: str) -> None:
    assert verdict(package(override("a.xml") + " " * (kib << 10), "a.xml"), DOCX) == expected
