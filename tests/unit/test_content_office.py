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


TEXTS = {
    "nothing": b"",
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
BINARIES = {
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


PDFS = {
    "a mark before it": b"\xef\xbb\xbf" + samples.PDF,
    "a line break before it": b"\r\n" + samples.PDF,
    "a mail's header before it": b"Content-Type: application/pdf\r\n\r\n" + samples.PDF,
    "1,000 bytes before it": b"\n" * 1000 + samples.PDF,
    "100,000 zeros behind it": samples.PDF + b"\0" * 100_000,
    "no end mark": samples.PDF[:-8],
    "an end that only names its table": samples.PDF.replace(b"%%EOF", b"startxref\n0\n"),
    "PostScript's header": samples.PDF.replace(b"%PDF-1.4", b"%!PS-Adobe-3.0 PDF-1.4"),
}


@pytest.mark.parametrize("case", PDFS)
def test_pdfs_are_read_as_leniently_as_viewers_do(case: str) -> None:
    assert verdict(PDFS[case], PDF) == "ok"
