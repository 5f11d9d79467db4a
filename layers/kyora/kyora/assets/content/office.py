"""DOCX, XLSX and PPTX (ECMA-376, part 2): a ZIP that declares the types of its parts.

`_rels/.rels` names the main part, `[Content_Types].xml` its type. Names are compared as Office
does: case and a leading slash do not matter, and both slashes are the same.
"""

import re
from collections.abc import Iterator
from urllib.parse import unquote
from xml.parsers import expat

from kyora.assets.content import archive, old_office
from kyora.assets.content.source import Facts, Policy, Refused, Source, match, whole

_OPEN = "application/vnd.openxmlformats-officedocument"
DOCX = f"{_OPEN}.wordprocessingml.document"
XLSX = f"{_OPEN}.spreadsheetml.sheet"
PPTX = f"{_OPEN}.presentationml.presentation"
_ZIP_STARTS = (b"PK\x03\x04", b"PK00PK\x03\x04")
_MAX_PARTS = 20_000
_MAX_XML = 4 << 20
_ELEMENTS = frozenset(("Default", "Override", "Relationship"))
# The type of the main part → the type of the file. Templates and shows open as documents.
_MAIN = {
    f"{_OPEN}.wordprocessingml.document.main+xml": DOCX,
    f"{_OPEN}.wordprocessingml.template.main+xml": DOCX,
    f"{_OPEN}.spreadsheetml.sheet.main+xml": XLSX,
    f"{_OPEN}.spreadsheetml.template.main+xml": XLSX,
    f"{_OPEN}.presentationml.presentation.main+xml": PPTX,
    f"{_OPEN}.presentationml.template.main+xml": PPTX,
    f"{_OPEN}.presentationml.slideshow.main+xml": PPTX,
}
_WITH_MACROS = {
    "application/vnd.ms-word.document.macroenabled": DOCX,
    "application/vnd.ms-word.template.macroenabledtemplate": DOCX,
    "application/vnd.ms-excel.sheet.macroenabled": XLSX,
    "application/vnd.ms-excel.template.macroenabled": XLSX,
    "application/vnd.ms-excel.addin.macroenabled": XLSX,
    "application/vnd.ms-powerpoint.presentation.macroenabled": PPTX,
    "application/vnd.ms-powerpoint.template.macroenabled": PPTX,
    "application/vnd.ms-powerpoint.slideshow.macroenabled": PPTX,
    "application/vnd.ms-powerpoint.addin.macroenabled": PPTX,
}
_OTHERS = {
    "application/vnd.ms-excel.sheet.binary.macroenabled.main": (
        "application/vnd.ms-excel.sheet.binary.macroEnabled.12"
    ),
}
_MACRO_PART = re.compile(r"vbaproject|macrosheet", re.IGNORECASE)

type Parts = dict[str, archive.Entry]


def docx(source: Source, policy: Policy) -> Facts:
    """Check a Word document."""
    return _check(source, policy, DOCX)


def xlsx(source: Source, policy: Policy) -> Facts:
    """Check an Excel workbook."""
    return _check(source, policy, XLSX)


def pptx(source: Source, policy: Policy) -> Facts:
    """Check a PowerPoint presentation."""
    return _check(source, policy, PPTX)


def _check(source: Source, policy: Policy, wanted: str) -> Facts:
    if old_office.is_compound(source):
        match(old_office.holds_encrypted(source))  # encrypted: its parts cannot be read
        if not policy.passwords:
            raise Refused("encrypted")
        return Facts()
    match(source.at(0, 8).startswith(_ZIP_STARTS))
    parts = _parts(source)
    main, macros = _kind(source, parts)
    if macros and not policy.macros:
        raise Refused("macros", _media_type(main))
    match(_documents(main) == wanted, _media_type(main))
    return Facts()


def kind(source: Source) -> str | None:
    """Return the media type of an office file in a ZIP; None for another ZIP."""
    main, _ = _kind(source, _parts(source))
    return _media_type(main)


def _documents(main: str) -> str | None:
    """Return the kind of document, with or without macros."""
    return _MAIN.get(main) or _WITH_MACROS.get(main.removesuffix(".main+xml"))


def _media_type(main: str) -> str | None:
    """Return the media type of a file by that of its main part; with macros, it ends in .12."""
    if main.removesuffix(".main+xml") in _WITH_MACROS:
        return main.removesuffix(".main+xml").replace("macroenabled", "macroEnabled") + ".12"
    return _MAIN.get(main) or _OTHERS.get(main)


def _parts(source: Source) -> Parts:
    found: Parts = {}
    for entry in archive.entries(source):
        found.setdefault(_normal(entry.name.decode("utf-8", "replace")), entry)
        whole(len(found) <= _MAX_PARTS)
    return found


def _normal(name: str) -> str:
    return unquote(name.replace("\\", "/")).lstrip("/").lower()


def _kind(source: Source, parts: Parts) -> tuple[str, bool]:
    """Return the type of the main part, and whether any part is a macro."""
    match("[content_types].xml" in parts)
    defaults: dict[str, str] = {}
    overrides: dict[str, str] = {}
    for tag, attributes in _elements(source, parts["[content_types].xml"]):
        media = attributes.get("ContentType", "").strip().lower()
        if tag == "Default":
            defaults[attributes.get("Extension", "").lower()] = media
        elif tag == "Override":
            overrides[_normal(attributes.get("PartName", ""))] = media

    def type_of(name: str) -> str:
        return overrides.get(name) or defaults.get(name.rpartition(".")[2], "")

    macros = any(_MACRO_PART.search(name) or _MACRO_PART.search(type_of(name)) for name in parts)
    main = next((name for name in _mains(source, parts) if name in parts), None)
    if main is None:  # readers then look for known types and usual names
        known = _MAIN.keys() | {f"{name}.main+xml" for name in _WITH_MACROS}
        main = next((name for name, media in overrides.items() if media in known), None)
    media = type_of(main) if main else ""
    return media, macros or media.removesuffix(".main+xml") in _WITH_MACROS


def _mains(source: Source, parts: Parts) -> Iterator[str]:
    """Yield the targets of the package's officeDocument relationships."""
    if "_rels/.rels" not in parts:
        return
    try:
        relationships = _elements(source, parts["_rels/.rels"])
    except Refused:  # unreadable: the same as none
        return
    for tag, attributes in relationships:
        if tag == "Relationship" and attributes.get("Type", "").endswith("/officeDocument"):
            yield _normal(attributes.get("Target", "").removeprefix("./"))


def _elements(source: Source, entry: archive.Entry) -> list[tuple[str, dict[str, str]]]:
    """Read the elements of a small XML part. A DOCTYPE, which could define entities, is refused."""
    found: list[tuple[str, dict[str, str]]] = []
    parser = expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        source.step()
        name = tag.rpartition(":")[2]
        if name in _ELEMENTS and attributes:
            found.append((name, attributes))

    def doctype(*_: object) -> None:
        raise Refused("bad_content")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(archive.read(source, entry, _MAX_XML), True)
    except expat.ExpatError:
        raise Refused("bad_content") from None
    return found
