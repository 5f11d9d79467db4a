"""Office files old and new, PDF, ZIP and text: what they hold, and the policies about it."""

import io
import struct

import pytest

from kyora.assets import rules
from kyora.assets.content import verify
from kyora.assets.content.source import Policy, Refused
from tests.integration.support import samples

DOC, XLS = rules.TYPES["doc"][0], rules.TYPES["xls"][0]
DOCX, XLSX, PPTX = (rules.TYPES[last][0] for last in ("docx", "xlsx", "pptx"))
BAD = "bad_content"
ZIP, PDF, TXT, CSV = "application/zip", "application/pdf", "text/plain", "text/csv"
OPEN_MINDED = Policy(macros=True, passwords=True)
STRICT = Policy(macros=False, passwords=False)


def verdict(data: bytes, content_type: str, policy: Policy | None = None) -> str:
    """`ok`, or the reason and what the file is."""
    try:
        verify.inspect(io.BytesIO(data), content_type, policy or Policy())
    except Refused as refused:
        return f"{refused.reason} {refused.detected or ''}".strip()
    return "ok"


WORD_MACRO = "application/vnd.ms-word.document.macroEnabled"
EXCEL_MACRO = "application/vnd.ms-excel.sheet.macroEnabled"
VBA = "<Default Extension='bin' ContentType='application/vnd.ms-office.vbaProject'/>"

MACROS = {
    "a docx with a VBA project": (
        samples.office("word/document.xml", "word/vbaProject.bin"),
        DOCX,
        DOCX,
    ),
    "a VBA project under another name": (
        samples.office("word/document.xml", "word/x.bin", types=VBA),
        DOCX,
        DOCX,
    ),
    "a docm that is called docx": (
        samples.office("word/document.xml", main=f"{WORD_MACRO}.main+xml"),
        DOCX,
        f"{WORD_MACRO}.12",
    ),
    "an xlsm that is called xlsx": (
        samples.office("xl/workbook.xml", main=f"{EXCEL_MACRO}.main+xml"),
        XLSX,
        f"{EXCEL_MACRO}.12",
    ),
    "a sheet of Excel 4 macros": (
        samples.office("xl/workbook.xml", "xl/macrosheets/sheet1.xml"),
        XLSX,
        XLSX,
    ),
    "a pptx with a VBA project": (
        samples.office("ppt/presentation.xml", "PPT\\VBAPROJECT.BIN"),
        PPTX,
        PPTX,
    ),
    "a doc with macros": (samples.word(storages=("Macros",)), DOC, DOC),
    "an xls with macros": (samples.excel(storages=("_VBA_PROJECT_CUR",)), XLS, XLS),
    "an xls with a sheet of Excel 4 macros": (samples.excel(sheet=1), XLS, XLS),
}


@pytest.mark.parametrize("case", MACROS)
def test_macros_are_refused_in_every_office_format_unless_they_are_allowed(case: str) -> None:
    data, content_type, detected = MACROS[case]
    expected = "macros" if detected == content_type else f"macros {detected}"
    assert verdict(data, content_type) == expected
    assert verdict(data, content_type, OPEN_MINDED) == "ok"


def encrypted_office() -> bytes:
    return samples.ole("EncryptionInfo", "EncryptedPackage")


def encrypted_zip() -> bytes:
    data = bytearray(samples.archive("a.txt"))
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)


PASSWORDS = {
    "a docx": (encrypted_office(), DOCX),
    "an xlsx": (encrypted_office(), XLSX),
    "a pptx": (encrypted_office(), PPTX),
    "a doc": (samples.word(encrypted=True), DOC),
    "an xls": (samples.excel(encrypted=True), XLS),
    "an xls of Excel 5": (samples.excel(encrypted=True, stream="Book"), XLS),
    "a ZIP": (encrypted_zip(), ZIP),
    "a PDF": (samples.PDF.replace(b"/Root 1 0 R", b"/Root 1 0 R /Encrypt 9 0 R"), PDF),
}


@pytest.mark.parametrize("case", PASSWORDS)
def test_files_with_a_password_are_accepted_unless_they_are_refused(case: str) -> None:
    data, content_type = PASSWORDS[case]
    assert verdict(data, content_type) == "ok"
    assert verdict(data, content_type, STRICT) == "encrypted"


@pytest.mark.parametrize("last", ["doc", "docx", "xls", "xlsx", "pptx", "pdf", "zip"])
def test_files_without_macros_and_passwords_pass_the_strictest_policy(last: str) -> None:
    assert verdict(samples.ALL[last].data, rules.TYPES[last][0], STRICT) == "ok"


def rels(target: str) -> str:
    kind = "http://purl.oclc.org/ooxml/officeDocument/relationships/officeDocument"
    return f"<Relationships><Relationship Type='{kind}' Target='{target}'/></Relationships>"


def backslashes(data: bytes) -> bytes:
    return data.replace(b"xl/workbook.xml", b"xl\\workbook.xml").replace(b"_rels/", b"_rels\\")


HONEST = {
    "Word Online's main part": (
        samples.office("word/document2.xml", main=samples.MAIN["word/document.xml"]),
        DOCX,
    ),
    "a strict document's relationship": (
        samples.office("word/document.xml", rels=rels("/word/document.xml")),
        DOCX,
    ),
    "a target from the package's root": (
        samples.office("xl/workbook.xml", rels=rels("./xl/workbook.xml")),
        XLSX,
    ),
    ".NET's backslashes": (backslashes(samples.office("xl/workbook.xml")), XLSX),
    "names in capitals": (
        samples.office("xl/workbook.xml", rels=rels("XL/Workbook.XML")),
        XLSX,
    ),
    "no relationships": (samples.office("ppt/presentation.xml", rels="<none/>"), PPTX),
    "relationships that are no XML": (samples.office("word/document.xml", rels="<"), DOCX),
    "a template": (
        samples.office(
            "word/document.xml", main=f"{samples.OPEN}.wordprocessingml.template.main+xml"
        ),
        DOCX,
    ),
    "a printer's settings": (
        samples.office("xl/workbook.xml", "xl/printerSettings1.bin"),
        XLSX,
    ),
    "Excel 5": (samples.excel(stream="Book"), XLS),
    "Excel 4, without a container": (
        samples.record(0x0409, b"\0\0\x10\0\0\0") + samples.record(0x0A, b""),
        XLS,
    ),
}


@pytest.mark.parametrize("case", HONEST)
def test_what_office_programs_write_is_accepted(case: str) -> None:
    assert verdict(*HONEST[case]) == "ok"


LIES = {
    "a ZIP as docx": (samples.archive("a.txt"), DOCX, f"type_mismatch {ZIP}"),
    "a docx as xlsx": (samples.office("word/document.xml"), XLSX, f"type_mismatch {DOCX}"),
    "an xlsb as xlsx": (
        samples.office(
            "xl/workbook.bin", main="application/vnd.ms-excel.sheet.binary.macroEnabled.main"
        ),
        XLSX,
        "type_mismatch application/vnd.ms-excel.sheet.binary.macroEnabled.12",
    ),
    "an xls as doc": (samples.excel(), DOC, f"type_mismatch {XLS}"),
    "a ppt as doc": (
        samples.ole("PowerPoint Document"),
        DOC,
        "type_mismatch application/vnd.ms-powerpoint",
    ),
    "a message as doc": (
        samples.ole("__properties_version1.0"),
        DOC,
        "type_mismatch application/vnd.ms-outlook",
    ),
    "a VBA project as xls": (
        samples.ole("PROJECT", storages=("VBA",)),
        XLS,
        "type_mismatch application/vnd.ms-office.vbaProject",
    ),
    "a doc as docx": (samples.word(), DOCX, f"type_mismatch {DOC}"),
    "the word WordDocument somewhere": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 504 + "WordDocument".encode("utf-16-le"),
        DOC,
        "bad_content",
    ),
    "entities in the types": (
        samples.zipped(
            {
                "[Content_Types].xml": "<!DOCTYPE x [<!ENTITY a 'b'>]><Types/>",
                "word/document.xml": "",
            }
        ),
        DOCX,
        "bad_content application/zip",
    ),
    "a program in front of a ZIP": (
        b"MZ\x90\0" + samples.archive("a"),
        ZIP,
        "type_mismatch application/vnd.microsoft.portable-executable",
    ),
    "a ZIP cut in its directory": (samples.archive("a")[:-30], ZIP, "bad_content"),
}


@pytest.mark.parametrize("case", LIES)
def test_what_hides_as_an_office_file_is_refused_with_what_it_is(case: str) -> None:
    data, content_type, expected = LIES[case]
    assert verdict(data, content_type) == expected


def zip64() -> bytes:
    """A ZIP whose end says its numbers in 64 bits, as streams longer than 4 GiB do."""
    data = samples.archive("قهوة.txt")
    at = data.index(b"PK\5\6")
    length, start = struct.unpack_from("<LL", data, at + 12)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, length, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:at] + record + locator + end


ARCHIVES = {
    "an empty ZIP": b"PK\x05\x06" + b"\0" * 18,
    "a long ZIP": zip64(),
    "a ZIP with a comment": samples.archive("a")[:-2] + b"\7\0comment",
    "a ZIP with zeros behind": samples.archive("a") + b"\0" * 99,
    "a ZIP behind stray bytes": b"\0\0\0" + samples.archive("a"),
    "a name that is not in the encoding it claims": samples.archive("aaa.txt").replace(
        b"aaa.txt", b"\xe9\xe8\xff.txt"
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_as_programs_write_them_are_accepted(case: str) -> None:
    assert verdict(ARCHIVES[case], ZIP) == "ok"


def test_an_archive_is_never_unpacked() -> None:
    """Ten megabytes of zeros: the directory is read, nothing else."""
    data = samples.zipped({"zeros": "\0" * (10 << 20)})
    broken = data.replace(data[60:90], b"\xff" * 30, 1)  # would fail to unpack
    assert verdict(broken, ZIP) == "ok"


MIB = 1 << 20
SIGNS = "a\t\n\v\f\r\b\x0e\x0f\x1a\x1b\x1c\x1d\x1e\x1f\x7f"
TEXTS = {
    "nothing": b"",
    "one letter": b"a",
    "UTF-16 without a mark, the other way round": "id;name\n".encode("utf-16-be"),
    "UTF-32 without a mark": "id;name\n".encode("utf-32-le"),
    "UTF-32 without a mark, the other way round": "id;name\n".encode("utf-32-be"),
    "UTF-32 with a mark, the other way round": b"\0\0\xfe\xff" + "قهوة".encode("utf-32-be"),
    "a long text": "é".encode() * MIB,
    "a long text of wide letters": ("a" + "قهوة" * (MIB // 4)).encode("utf-16-be"),
    "every sign that editors write": SIGNS.encode(),
    "every sign that editors write, wide": SIGNS.encode("utf-16-le"),
    "half a letter behind a mark": "قهوة".encode("utf-16")[:-1],
    "UTF-8": "قهوة, coffee\n".encode(),
    "UTF-8 with a mark": "قهوة".encode("utf-8-sig"),
    "UTF-16 with a mark": "قهوة\r\n".encode("utf-16"),
    "UTF-16, the other way round": b"\xfe\xff" + "قهوة".encode("utf-16-be"),
    "UTF-16 without a mark": "id;name\n".encode("utf-16-le"),
    "UTF-32 with a mark": "قهوة".encode("utf-32"),
    "Windows-1256": "قهوة;12,50\r\n".encode("cp1256"),
    "Windows-1252": "Café – crème\r\n".encode("cp1252"),
    "Shift JIS": "コーヒー".encode("shift_jis"),
    "ISO-2022-JP": "コーヒー".encode("iso-2022-jp"),
    "DOS's end of file": b"a,b\r\n\x1a",
    "page breaks": b"one\ftwo\v",
    "half a character": "é".encode()[:1],
}
REFUSED = (*range(1, 8), *range(0x10, 0x1A))
BINARIES = {
    **{f"the control {number:#x}": b"a" + bytes([number]) for number in REFUSED},
    **{
        f"the wide control {number:#x}": f"a{chr(number)}".encode("utf-16-le") for number in REFUSED
    },
    "a control at the end of a long text": b"a" * (MIB + 1) + b"\1",
    "a control behind the beginning of a long text": b"a" * (MIB - 1) + b"\1" + b"a" * MIB,
    "a wide control at the end of a long text": b"a\0" * MIB + b"\1\0",
    "half a letter without a mark": "id;name\n".encode("utf-16-le")[:-1],
    "zeros, then a letter": b"\0\0ab",
    "a NUL": b"a\0b",
    "zeros": b"\0" * 99,
    "control characters": b"a\x01b\x02",
    "UTF-16 with a NUL": "a\0b".encode("utf-16"),
    "half a surrogate": b"\xff\xfe\x00\xd8a\0",
    "a program": b"MZ\x90\x00\x03\0\0\0",
}


@pytest.mark.parametrize("content_type", [TXT, CSV])
@pytest.mark.parametrize("case", TEXTS)
def test_text_is_accepted_as_editors_and_spreadsheets_save_it(case: str, content_type: str) -> None:
    assert verdict(TEXTS[case], content_type) == "ok"


@pytest.mark.parametrize("content_type", [TXT, CSV])
@pytest.mark.parametrize("case", BINARIES)
def test_what_no_text_holds_is_refused(case: str, content_type: str) -> None:
    assert verdict(BINARIES[case], content_type).startswith("type_mismatch")


FAR = samples.PDF
PDFS = {
    "a mark before it": b"\xef\xbb\xbf" + samples.PDF,
    "a line break before it": b"\r\n" + samples.PDF,
    "a mail's header before it": b"Content-Type: application/pdf\r\n\r\n" + samples.PDF,
    "1,000 bytes before it": b"\n" * 1000 + samples.PDF,
    "100,000 zeros behind it": samples.PDF + b"\0" * 100_000,
    "no end mark": samples.PDF[:-8],
    "an end that only names its table": samples.PDF.replace(b"%%EOF", b"startxref\n0\n"),
    "its header at the last place": b"\n" * 1019 + samples.PDF,
    "no header, an object": samples.PDF[9:],
    "an object far behind": FAR.replace(b"1 0 obj", b" " * 70_000 + b"1 0 obj"),
    "an object on two lines": samples.PDF.replace(b"1 0 obj", b" " * 65_519 + b"1 0\nobj"),
    "an end of its table alone": samples.PDF.replace(b"%%EOF\n", b"").replace(
        b"trailer", b"startxref"
    ),
    "a trailer alone": samples.PDF.replace(b"%%EOF\n", b""),
    "an end mark far in front of zeros": samples.PDF + b"\0" * (3 * MIB),
    "an end mark between two parts that are read": samples.PDF + b"\0" * (MIB - 3),
    "an end between two parts that are read": (
        b"%PDF-1.4\n1 0 obj\n<< >>\nendobj\nstartxref" + b"\0" * (MIB - 8)
    ),
    "no end, its catalogue far behind": samples.PDF[:33] + b" " * MIB + b"/Catalog >>",
    "a page before its last end": b"%PDF-1.4\n%%EOF<html>" + samples.PDF,
    "PostScript's header": samples.PDF.replace(b"%PDF-1.4", b"%!PS-Adobe-3.0 PDF-1.4"),
}


@pytest.mark.parametrize("case", PDFS)
def test_pdfs_are_read_as_leniently_as_viewers_do(case: str) -> None:
    assert verdict(PDFS[case], PDF) == "ok"


NO_PDFS = {
    "its header a byte too late": (b"\n" * 1020 + samples.PDF, "type_mismatch application/pdf"),
    "no header and no object": (b"hello\n%%EOF", "type_mismatch"),
    "no header and no end": (b"1 0 obj /Catalog", "type_mismatch"),
    "no object": (b"%PDF-1.4\nobject\n%%EOF", BAD),
    "no end and no catalogue": (b"%PDF-1.4\n1 0 obj\n", BAD),
    "an object on two lines, far behind": (
        samples.PDF.replace(b"1 0 obj", b" " * 65_526 + b"1 0\nobj"),
        BAD,
    ),
    "a page behind it": (samples.PDF + b"<html>", BAD),
    "a page behind its trailer": (samples.PDF.replace(b"%%EOF", b"<html>"), BAD),
    "a page behind a mark far in front": (samples.PDF + b"<html>" + b"\0" * (3 * MIB), BAD),
    "a page": (b"<html>" + samples.PDF, "type_mismatch text/html"),
    "a picture": (samples.png() + samples.PDF, "type_mismatch image/png"),
}


@pytest.mark.parametrize("case", NO_PDFS)
def test_what_viewers_do_not_open_as_a_pdf_is_refused(case: str) -> None:
    data, expected = NO_PDFS[case]
    assert verdict(data, PDF).replace(" application/pdf", "") == expected.replace(
        " application/pdf", ""
    )


# ---- DOC and XLS

BEGIN, PASSWORD, SHEET, FINISH = 0x0809, 0x002F, 0x0085, 0x000A
FIRST = samples.record(BEGIN, b"\0\6\5\0" + b"\0" * 12)
MACROS_SHEET = samples.record(SHEET, b"\0\0\0\0\0\1\6\0Sheet1")
PLAIN_SHEET = samples.record(SHEET, b"\0\0\0\0\1\0\6\0Sheet1")
LAST = samples.record(FINISH, b"")
SECRET = samples.record(PASSWORD, b"\0" * 54)
WORKBOOKS = {
    "a sheet": (FIRST + PLAIN_SHEET + LAST, "ok"),
    "a sheet of macros": (FIRST + MACROS_SHEET + LAST, "macros"),
    "a sheet of macros before another": (FIRST + MACROS_SHEET + PLAIN_SHEET + LAST, "macros"),
    "a sheet of macros behind another": (FIRST + PLAIN_SHEET + MACROS_SHEET + LAST, "macros"),
    "a sheet of macros behind the end": (FIRST + LAST + MACROS_SHEET, "ok"),
    "a short record of a sheet": (FIRST + samples.record(SHEET, b"\0\0\0\0\1") + LAST, "ok"),
    "the shortest record of a sheet": (
        FIRST + samples.record(SHEET, b"\0\0\0\0\0\1") + LAST,
        "macros",
    ),
    "another record like it": (FIRST + samples.record(0x86, MACROS_SHEET[4:]) + LAST, "ok"),
    "an end at its beginning": (LAST + FIRST + MACROS_SHEET + LAST, "macros"),
    "a password": (FIRST + SECRET, "encrypted"),
    "macros and a password": (FIRST + MACROS_SHEET + SECRET, "macros"),
    "a password behind the end": (FIRST + LAST + SECRET, "ok"),
    "a record that is cut": (FIRST + samples.record(0x86, b"abc")[:-1], "ok"),
}


@pytest.mark.parametrize("case", WORKBOOKS)
def test_the_records_of_a_workbook_are_read_to_their_end(case: str) -> None:
    records, expected = WORKBOOKS[case]
    assert verdict(samples.ole("Workbook", data=records), XLS, STRICT) == expected
    if records.startswith(FIRST):
        alone = b"\x09\x08\x10\0" + records[4:]
        assert verdict(alone, XLS, STRICT) == expected


ALONE = [0x0009, 0x0209, 0x0409]


@pytest.mark.parametrize("kind", ALONE)
def test_a_workbook_of_records_alone_says_what_it_is_first(kind: int) -> None:
    def alone(stream: int, size: int = 4 if kind == 9 else 6) -> bytes:
        return samples.record(kind, (b"\0\0" + struct.pack("<H", stream)).ljust(size, b"\0")) + LAST

    assert verdict(alone(0x0010), XLS, STRICT) == "ok"
    assert verdict(alone(0x0040), XLS, STRICT) == "macros"
    assert verdict(alone(0x0040), XLS, OPEN_MINDED) == "ok"
    assert verdict(alone(0x0010, 5), XLS, STRICT).startswith("type_mismatch")


@pytest.mark.parametrize(("size", "expected"), [(8, "ok"), (16, "ok"), (12, "type_mismatch")])
def test_a_later_workbook_of_records_alone_has_one_of_two_lengths(size: int, expected: str) -> None:
    data = samples.record(BEGIN, b"\0\6\5\0".ljust(size, b"\0")) + LAST
    assert verdict(data, XLS, STRICT) == expected


COMPOUND = {
    "Word": (samples.word(), DOC),
    "Excel": (samples.excel(), XLS),
    "Excel 5": (samples.excel(stream="Book"), XLS),
    "PowerPoint": (samples.ole("PowerPoint Document"), "application/vnd.ms-powerpoint"),
    "PowerPoint 4": (samples.ole("PP40"), "application/vnd.ms-powerpoint"),
    "PowerPoint 95 and 97": (samples.ole("PP97_DUALSTORAGE"), "application/vnd.ms-powerpoint"),
    "Outlook": (samples.ole("__properties_version1.0"), "application/vnd.ms-outlook"),
    "Visio": (samples.ole("VisioDocument"), "application/vnd.visio"),
    "macros": (samples.ole("PROJECT", storages=("VBA",)), "application/vnd.ms-office.vbaProject"),
    "another": (samples.ole("abc"), "application/x-ole-storage"),
    "half a password": (samples.ole("EncryptedPackage"), "application/x-ole-storage"),
}


@pytest.mark.parametrize("case", COMPOUND)
def test_a_compound_file_is_what_its_streams_are(case: str) -> None:
    data, kind = COMPOUND[case]
    assert verdict(data, DOC) == ("ok" if kind == DOC else f"type_mismatch {kind}")
    assert verdict(data, XLS) == ("ok" if kind == XLS else f"type_mismatch {kind}")
    assert verdict(data, DOCX) == f"type_mismatch {kind}"


@pytest.mark.parametrize("storage", ["Macros", "_VBA_PROJECT_CUR", "_VBA_PROJECT", "VBA"])
def test_a_storage_of_macros_is_refused_in_both(storage: str) -> None:
    assert verdict(samples.word(storages=(storage,)), DOC) == "macros"
    assert verdict(samples.excel(storages=(storage,)), XLS) == "macros"
    assert verdict(samples.excel(storages=(storage,)), XLS, OPEN_MINDED) == "ok"


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def test_a_compound_file_has_sectors_of_two_sizes_and_no_table_larger_than_it_needs() -> None:
    assert verdict(samples.word()[:511], DOC) == BAD
    assert verdict(patched(samples.word(), 30, b"\x0a\0"), DOC) == BAD
    assert verdict(patched(samples.word(), 30, b"\x09\1"), DOC) == BAD
    # Of 512 bytes: more tables than the 256 that any file may have are not there.
    assert verdict(patched(samples.word(), 44, struct.pack("<L", 257)), DOC) == BAD


def test_a_word_file_needs_its_first_bytes() -> None:
    short = samples.word()
    at = short.index("WordDocument".encode("utf-16-le")) + 120
    assert verdict(patched(short, at, struct.pack("<Q", 0)), DOC) == BAD
    assert verdict(samples.word(encrypted=True), DOC, STRICT) == "encrypted"
    assert verdict(samples.word(encrypted=True), DOC) == "ok"


def test_the_source_is_a_file_for_the_library() -> None:
    from kyora.assets.content import old_office
    from kyora.assets.content.source import Source

    file = old_office._File(Source(io.BytesIO(b"0123456789")))
    assert not file.closed
    assert file.read(3) + file.read(2) == b"01234"
    assert file.tell() == 5
    assert file.seek(2, 1) == 7
    assert file.read() == b"789"
    assert file.read() == b""
    assert file.seek(-4, 2) == 6
    assert file.read(99) == b"6789"
    assert file.seek(1) == 1
    assert file.read(0) == b""
    assert file.read(1) == b"1"
    assert file.seek(20) == 20
    assert file.read() == b""


def test_only_the_librarys_own_errors_are_the_files() -> None:
    from kyora.assets.content import old_office

    assert str(old_office._broken(OSError("not an OLE2 file"))) == BAD
    disk = OSError(5, "Input/output error")
    assert old_office._broken(disk) is disk
