"""DOC and XLS: OLE compound files (MS-CFB) judged by the streams in their root, and by records.

Also here: office files with a password, which are compound files whatever they were before.

olefile reads the container. Its trees are recursive, so one that is made too deep is refused.
"""

import struct
from typing import TYPE_CHECKING

from kyora.assets.content.source import Facts, Policy, Refused, Source, match, whole

if TYPE_CHECKING:
    from olefile import OleFileIO

DOC, XLS = "application/msword", "application/vnd.ms-excel"
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OTHERS = {
    "powerpoint document": "application/vnd.ms-powerpoint",
    "pp40": "application/vnd.ms-powerpoint",
    "pp97_dualstorage": "application/vnd.ms-powerpoint",
    "__properties_version1.0": "application/vnd.ms-outlook",
    "visiodocument": "application/vnd.visio",
    "vba": "application/vnd.ms-office.vbaProject",
}
_MACRO_STORAGES = frozenset({"macros", "_vba_project_cur", "_vba_project", "vba"})
_ENCRYPTED = frozenset({"encryptedpackage", "encryptioninfo"})
# Excel 2 to 5 could write records without a container. The first one (MS-XLS 2.4.21, BOF).
_RECORDS_ALONE = (
    *(b"\x09\x00\x04\x00", b"\x09\x02\x06\x00", b"\x09\x04\x06\x00"),
    *(b"\x09\x08\x08\x00", b"\x09\x08\x10\x00"),
)
_SPARE_TABLES = 256
_END, _PASSWORD, _SHEET = 0x000A, 0x002F, 0x0085
_MACRO_SHEET = 1
_MACRO_STREAM = 0x0040  # the kind of stream that a BOF begins

type Names = dict[str, str]


def is_compound(source: Source) -> bool:
    """Return True for an OLE compound file of any kind."""
    return source.at(0, 8) == _COMPOUND


def doc(source: Source, policy: Policy) -> Facts:
    """Check a Word document from before 2007."""
    match(is_compound(source))
    file = _open(source)
    names = _root(file)
    match("worddocument" in names, _kind(names))
    _refuse_macros(policy, bool(_MACRO_STORAGES & names.keys()))
    head = _stream(file, names["worddocument"])[:12]
    whole(len(head) == 12)
    if head[11] & 1 and not policy.passwords:  # MS-DOC 2.5.2, fEncrypted
        raise Refused("encrypted")
    return Facts()


def xls(source: Source, policy: Policy) -> Facts:
    """Check an Excel workbook from before 2007."""
    if source.at(0, 4) in _RECORDS_ALONE:
        records = source.at(0, source.size)
        macros, encrypted = _records(source, records)
        _refuse_macros(policy, macros or records[6:8] == _MACRO_STREAM.to_bytes(2, "little"))
    else:
        match(is_compound(source))
        file = _open(source)
        names = _root(file)
        book = names.get("workbook") or names.get("book")
        match(book is not None, _kind(names))
        macros, encrypted = _records(source, _stream(file, book or ""))
        _refuse_macros(policy, macros or bool(_MACRO_STORAGES & names.keys()))
    if encrypted and not policy.passwords:
        raise Refused("encrypted")
    return Facts()


def holds_encrypted(source: Source) -> bool:
    """Return True for an office file of any kind with a password (MS-OFFCRYPTO 2.3.4)."""
    return _root(_open(source)).keys() >= _ENCRYPTED


def kind(source: Source) -> str:
    """Return the media type of a compound file."""
    return _kind(_root(_open(source)))


def _kind(names: Names) -> str:
    if "worddocument" in names:
        return DOC
    if "workbook" in names or "book" in names:
        return XLS
    return next((_OTHERS[name] for name in _OTHERS if name in names), "application/x-ole-storage")


def _refuse_macros(policy: Policy, found: bool) -> None:
    if found and not policy.macros:
        raise Refused("macros")


def _open(source: Source) -> "OleFileIO":
    from olefile.olefile import OleFileIO

    header = source.exactly(0, 512)
    shift, tables = int.from_bytes(header[30:32], "little"), header[44:48]
    whole(shift in (9, 12))
    # The allocation table has four bytes for each sector. A larger one is an attack: the library
    # joins its parts one by one.
    needed = (source.size >> shift) // (1 << shift - 2)
    whole(int.from_bytes(tables, "little") <= needed + _SPARE_TABLES)
    try:
        return OleFileIO(_File(source))
    except RecursionError:
        raise Refused("bad_content") from None
    except OSError as error:
        raise _broken(error) from None


def _broken(error: OSError) -> Exception:
    """Return the refusal for an error of the library. A failing disk's error has an errno."""
    return Refused("bad_content") if error.errno is None else error


def _root(file: "OleFileIO") -> Names:
    """Return the entries of the root: the name in lower case → the name as written."""
    return {entry.name.lower(): entry.name for entry in file.root.kids}


def _stream(file: "OleFileIO", name: str) -> bytes:
    try:
        data: bytes = file.openstream([name]).read()
    except OSError as error:
        raise _broken(error) from None
    return data


def _records(source: Source, data: bytes) -> tuple[bool, bool]:
    """Walk the records of a workbook. Return whether it has macro sheets, and a password."""
    position, macros = 0, False
    while position + 4 <= len(data):
        source.step()
        kind, length = struct.unpack_from("<HH", data, position)
        if kind == _PASSWORD:
            return macros, True  # what follows is encrypted
        if kind == _END and position > 0:
            break
        if kind == _SHEET and length >= 6:
            macros = macros or data[position + 9] == _MACRO_SHEET
        position += 4 + length
    whole(position > 4)
    return macros, False


class _File:
    """The source as a file for olefile, so that its reads count on the budget."""

    closed = False

    def __init__(self, source: Source) -> None:
        self._source, self._position = source, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        start = (0, self._position, self._source.size)[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._source.size - self._position)
        data = self._source.at(self._position, left if count < 0 else count)
        self._position += len(data)
        return data

    def close(self) -> None:
        """Do nothing: the source belongs to the caller."""
