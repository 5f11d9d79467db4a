"""Plain text and CSV, as editors and spreadsheets save them.

Excel writes the country's code page, and Notepad wrote UTF-16 for years. Any bytes are text in some
code page, except for control characters, which are text in none. UTF-16 and UTF-32 are recognised
by their byte order mark, or without one by the zeros of the first letter.
"""

import codecs
import re

from kyora.assets.content.source import CHUNK, Facts, Policy, Source, match

_MARKS = (  # the longest first
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Kept: tab, breaks, backspace (manuals), DOS's end of file, separators of fields and records, and
# what ISO 2022 switches its alphabets with (escape, shift out, shift in).
_CONTROLS = bytes(set(range(0x1C)) - set(b"\t\n\v\f\r\b\x0e\x0f\x1a\x1b"))
_CONTROLS_WIDE = re.compile(f"[{re.escape(_CONTROLS.decode())}]")


def check(source: Source, policy: Policy) -> Facts:
    """Refuse what no editor writes as text. An empty file is text."""
    head = source.at(0, 4)
    mark, encoding = next(((m, e) for m, e in _MARKS if head.startswith(m)), (b"", _by_zeros(head)))
    decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
    position = len(mark)
    while data := source.at(position, CHUNK):
        position += len(data)
        if decoder is None:
            match(len(data.translate(None, _CONTROLS)) == len(data))
            continue
        try:
            text = decoder.decode(data)
        except UnicodeDecodeError:
            match(False)
        match(not _CONTROLS_WIDE.search(text))
    if decoder and not mark:  # without a mark, half a letter at the end means that it is no text
        match(decoder.getstate()[0] == b"")
    return Facts()


def _by_zeros(head: bytes) -> str:
    """Return UTF-16 or UTF-32 if the first letter is below U+0100 in one of them, else ''."""
    zeros = tuple(byte == 0 for byte in head)
    if zeros == (False, True, True, True):
        return "utf-32-le"
    if zeros == (True, True, True, False):
        return "utf-32-be"
    if zeros[:2] == (False, True):
        return "utf-16-le"
    return "utf-16-be" if zeros[:2] == (True, False) else ""
