"""File names as clients send them: for display only, never part of a key or a path."""

import re
import unicodedata

from kyora.text import has_control

_MAX_BYTES = 255
# Marks that reorder or hide text: `gpj.exe` must not be shown as `exe.jpg`.
_INVISIBLE = re.compile("[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad\u180e]")
# Persian, Urdu and Indic words need joiners, and so do most emoji of people.
_JOINERS = "\u200c\u200d"
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


def clean(name: str) -> str:
    """Return a safe display name of at most 255 UTF-8 bytes.

    Raises ValueError for control characters and lone surrogates.
    """
    if has_control(name):
        raise ValueError("must not contain control characters")
    name = unicodedata.normalize("NFC", _INVISIBLE.sub("", name))
    name = unicodedata.normalize("NFC", _without_idle_joiners(name))
    name = " ".join(re.split(r"[/\\]", name)[-1].split())
    name = name.lstrip(". ").rstrip(". ")
    if _DEVICES.match(name):
        name = f"_{name}"
    return _cut(name) or "file"


def extension(name: str) -> str:
    """Return the last extension in lower case, without its dot; '' if there is none."""
    stem, dot, last = name.rpartition(".")
    return last.lower() if dot and stem else ""


def _without_idle_joiners(name: str) -> str:
    """Remove joiners that join nothing: next to ASCII they only hide something."""
    padded = f" {name} "
    return "".join(
        letter
        for before, letter, after in zip(padded, name, padded[2:], strict=False)
        if letter not in _JOINERS or (_joinable(before) and _joinable(after))
    )


def _joinable(letter: str) -> bool:
    return not letter.isascii() and unicodedata.category(letter)[0] in "LMNS"


def _cut(name: str) -> str:
    """Shorten the stem, at a character boundary, until the name fits with its extension."""
    if len(name.encode()) <= _MAX_BYTES:
        return name
    last = extension(name)
    suffix = f".{last}" if 0 < len(last.encode()) <= 16 else ""
    stem = name.removesuffix(name[len(name) - len(suffix) :]) if suffix else name
    room = _MAX_BYTES - len(suffix.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(f". {_JOINERS}") + suffix
