"""PDF (ISO 32000-2, 7.5), read as leniently as viewers do.

The header may be anywhere in the first 1,024 bytes (behind a byte order mark, a line break, a
mail's header). The end is the last end mark; without one, viewers rebuild the cross-reference
table from the objects.
"""

import re

from kyora.assets.content import tail
from kyora.assets.content.signatures import page, signature
from kyora.assets.content.source import Facts, Policy, Refused, Source, match, whole

_HEADER = re.compile(rb"%PDF-|%!PS-Adobe-\d\.\d PDF-")
_OBJECT = re.compile(rb"\d\s+\d+\s+obj\b")
_LAST = 1 << 20
_FIRST_LOOK = 1 << 16  # bytes in which nearly every file has its first object


def check(source: Source, policy: Policy) -> Facts:
    """Look for the header, an object and the end."""
    head = source.at(0, 1024)
    end = _end(source)
    other = signature(head) or page(head)
    match(other in (None, "application/pdf"), other)
    if _HEADER.search(head) is None:  # readers then look for objects
        match(_OBJECT.search(head) is not None and end != -1)
    if end == -1:  # readers search for the objects and their root
        whole(source.find(b"/Catalog") != -1)
        end = source.size
    tail.check(source, end)
    whole(_OBJECT.search(source.at(0, _FIRST_LOOK)) is not None or source.find(b" obj") != -1)
    if not policy.passwords and source.find(b"/Encrypt") != -1:
        raise Refused("encrypted")
    return Facts()


def _end(source: Source) -> int:
    """Return where the last end mark ends, or -1."""
    position = source.size
    while position > 0:
        start = max(0, position - _LAST)
        data = source.at(start, position - start + 8)
        for mark in (b"%%EOF", b"startxref", b"trailer"):
            if (found := data.rfind(mark)) != -1:
                return start + found + len(mark)
        position = start
    return -1
