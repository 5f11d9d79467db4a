"""Bytes behind the end of a file, judged alike in every format.

Cameras, editors and servers leave zeros, a preview, a film or a line break there, and no reader of
the format looks at them. They are refused only if another program would find a file of its own:
archives are found from the end of a file, programs and pages by how they begin.
"""

import re

from kyora.assets.content.source import CHUNK, Source, whole

_NEAR = 1 << 16  # bytes searched, behind the end of the format and at the end of the file
_PADDING = b"\x00 \t\r\n\x1a"
_PROGRAMS = (
    *(b"PK\x03\x04", b"PK\x05\x06", b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c", b"MZ", b"\x7fELF"),
    *(b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"%PDF-", b"#!"),
)
_PAGE = re.compile(
    rb"<\?php|<(?:!doctype|html|head|body|script|svg|iframe|object|embed|img)[\s>/]",
    re.IGNORECASE,
)


def check(source: Source, end: int) -> None:
    """Refuse a file that hides another one behind `end`. Raises Refused `bad_content`."""
    start = _skip_padding(source, end)
    if start >= source.size:
        return
    head = source.at(start, _NEAR)
    whole(not head.startswith(_PROGRAMS))
    whole(not _PAGE.search(head))
    last_start = max(start, source.size - _NEAR)
    last = head if last_start == start else source.at(last_start, _NEAR)
    whole(not _PAGE.search(last))
    whole(b"PK\x05\x06" not in last)


def _skip_padding(source: Source, start: int) -> int:
    position = start
    while data := source.at(position, CHUNK):
        rest = data.lstrip(_PADDING)
        if rest:
            return position + len(data) - len(rest)
        position += len(data)
    return position
