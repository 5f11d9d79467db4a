"""Text and links from outside, made harmless before they reach a template.

A name is used in three places with different rules: a header (one line, nothing invisible), HTML
(escaped and isolated, so that an Arabic name cannot reorder an English sentence), and plain text.
"""

import re
import unicodedata
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from markupsafe import Markup, escape

LIMIT = 80  # characters of a name that are shown
_LONGEST_LINK = 8192  # an event's token may have 4096 characters

# Invisible characters beyond the categories below: fillers, and the grapheme joiner.
_BLANK = dict.fromkeys([0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0])
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
# Persian, Sinhala and other words need joiners, and so do emoji families; between Latin letters
# they only make one name look like another.
_JOINERS = "\u200c\u200d"
_JOINED = {"L", "M", "S"}  # general categories of the characters they may join
_UNJOINED = ("LATIN ", "GREEK ", "CYRILLIC ")
# Tried once for each word, not at each of its letters: a long word would take its square.
_SCHEME = re.compile(r"(?<![\w+.-])[\w+.-]*://|\bwww\.", re.IGNORECASE)
# A dot that makes mail clients turn a name into a link: `prize.example`, not `Dr. Salem`. HTML can
# prevent that invisibly; plain text cannot, and stays as it was typed.
_DOT = re.compile(r"(?<=\w)\.(?=\w\w)")
_RIGHT_TO_LEFT = {"R", "AL", "AN"}
_MARKS = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{4,}")


def clean(value: str, limit: int = LIMIT) -> str:
    """Return one line of visible characters, at most `limit` of them, that links to nowhere."""
    value = " ".join(value[:2000].split()).translate(_BLANK)
    value = "".join(c for c in value if c in _JOINERS or unicodedata.category(c) not in _UNSEEN)
    value = _MARKS.sub("", unicodedata.normalize("NFC", _join(value)))
    while (bare := _SCHEME.sub("", value)) != value:
        value = bare  # removing one can leave another
    return shorten(_join(" ".join(value.split())), limit)


def _join(value: str) -> str:
    """Drop the joiners that join nothing."""
    kept: list[str] = []
    for number, letter in enumerate(value):
        if letter in _JOINERS:
            after = value[number + 1 : number + 2]
            if not (kept and after and _joined(kept[-1]) and _joined(after)):
                continue
        kept.append(letter)
    return "".join(kept)


def _joined(letter: str) -> bool:
    if letter.isascii() or unicodedata.category(letter)[0] not in _JOINED:
        return False
    return not unicodedata.name(letter, "").startswith(_UNJOINED)


def shorten(value: str, limit: int) -> str:
    """Cut to `limit` characters, of which the last is then an ellipsis."""
    if len(value) <= limit:
        return value
    kept = value[: limit - 1]
    while kept and (unicodedata.combining(value[len(kept)]) or value[len(kept)] in _JOINERS):
        kept = kept[:-1]  # a mark stays with its letter
    return kept.rstrip(" " + _JOINERS) + "…"


def isolate(text: str, direction: str) -> str:
    """Return text for plain text or a header, isolated when it runs against `direction`."""
    kinds = {unicodedata.bidirectional(c) for c in text}
    against = kinds & _RIGHT_TO_LEFT if direction == "ltr" else "L" in kinds
    return f"\u2068{text}\u2069" if against else text


class UserText(str):
    """Text that a person typed: cleaned when created, isolated wherever it is shown."""

    __slots__ = ()

    def __new__(cls, value: str, limit: int = LIMIT) -> Self:
        """Clean the text."""
        return super().__new__(cls, clean(value, limit))

    def __html__(self) -> Markup:
        """Return it escaped, in `<bdi>`, with dots that mail clients do not turn into links."""
        if not self:
            return Markup()
        parts = [escape(part) for part in _DOT.split(str(self))]
        return Markup("<bdi>{}</bdi>").format(Markup("<span>.</span>").join(parts))

    def plain(self, direction: str) -> str:
        """Return it for plain text, isolated when it runs against `direction`."""
        return isolate(str(self), direction)


class SafeUrl(str):
    """A link that a LinkPolicy has checked; templates accept no other."""

    __slots__ = ()


class LinkPolicy(NamedTuple):
    """Where links in mails may lead: the application's own host over https, and listed hosts."""

    base_url: str
    development: bool = False

    def check(self, value: str, *, also: AbstractSet[str] = frozenset()) -> SafeUrl:
        """Return the link, or raise ValueError; the message never holds the link."""
        if len(value) > _LONGEST_LINK or not re.fullmatch(
            r"[!#$%&()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+", value
        ):
            raise ValueError(f"must be a link of at most {_LONGEST_LINK} plain characters")
        try:
            url = urlsplit(value)
            port = url.port
        except ValueError:
            raise ValueError("must be a link") from None
        if not url.hostname or "@" in url.netloc:
            raise ValueError("must be a link with a host and without a user")
        local = self.development and url.hostname in {"localhost", "127.0.0.1"}
        if url.scheme != "https" and not (local and url.scheme == "http"):
            raise ValueError("must be an https link")
        own = url.netloc.lower() == urlsplit(self.base_url).netloc.lower()
        if not (own or local or (url.hostname in also and port is None)):
            raise ValueError("must lead to a host that mails may lead to")
        return SafeUrl(value)

    def to(self, path: str) -> SafeUrl:
        """Return a link into the application."""
        return self.check(self.base_url.rstrip("/") + path)
