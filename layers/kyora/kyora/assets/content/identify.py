"""What type a refused file has, by how it begins. It helps people and never decides a verdict."""

from kyora.assets.content import iso_images, mpeg_audio, office, old_office
from kyora.assets.content.iso_boxes import brands, top_level
from kyora.assets.content.iso_movies import IMAGE_BRANDS
from kyora.assets.content.signatures import page, signature
from kyora.assets.content.source import BROKEN, Refused, Source

_BRANDS = {
    b"qt  ": "video/quicktime",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"crx ": "image/x-canon-cr3",
    b"jp2 ": "image/jp2",
}


def media_type(source: Source) -> str | None:
    """Return the media type of a file by its beginning, or None."""
    try:
        return _media_type(source)
    except (Refused, *BROKEN):
        return None


def _media_type(source: Source) -> str | None:
    head = source.at(0, 1024)
    if head[4:8] == b"ftyp":
        return _iso(source)
    if head[:4] == b"\x1a\x45\xdf\xa3" and b"webm" in head[:64]:
        return "video/webm"
    if head[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        return old_office.kind(source)
    if head[:4] == b"PK\x03\x04":
        return _zip(source)
    if head[:3] == b"ID3":
        return mpeg_audio.behind_tag(source)
    return signature(head) or page(head)


def _zip(source: Source) -> str:
    try:
        return office.kind(source) or "application/zip"
    except (Refused, *BROKEN):
        return "application/zip"


def _iso(source: Source) -> str | None:
    names = brands(source, top_level(source))
    known = next((_BRANDS[name] for name in names[:1] if name in _BRANDS), None)
    if known or names[:1] in ([b"isom"], [b"mp42"], [b"mp41"]):
        return known or "video/mp4"
    try:
        return iso_images.coding(source)
    except (Refused, *BROKEN):
        return None if IMAGE_BRANDS.intersection(names[:1]) else "video/mp4"
