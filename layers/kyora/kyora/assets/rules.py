"""What may be uploaded: categories, their extensions and sizes, and each extension's types."""

from collections.abc import Mapping
from typing import NamedTuple

from kyora.assets import filename, media_types
from kyora.errors import Invalid, TooLarge, UnsupportedType

_MIB = 1 << 20

# How large a file may be is decided here: bytes by category, and pixels for images. The
# configuration replaces the tables as a whole (`uploads.allowed`, `storage.max_bytes`). 5 GB is the
# most for any: S3 copies no more in one call. `confirm.Budget` says how a file is verified in time;
# one above 16 MiB is read through /tmp, whose size template.yaml sets.
ALLOWED: dict[str, tuple[str, ...]] = {
    "image": ("jpg", "jpeg", "jfif", "png", "webp", "gif", "heic", "heif", "avif"),
    "video": ("mp4", "m4v", "mov", "webm"),
    "audio": ("mp3", "wav", "ogg", "oga", "opus", "m4a", "aac", "webm"),
    "document": ("pdf", "doc", "docx", "xls", "xlsx", "pptx", "csv", "txt"),
    "archive": ("zip",),
}
MAX_BYTES: dict[str, int] = {
    "image": 20 * _MIB,
    "video": 100 * _MIB,
    "audio": 20 * _MIB,
    "document": 10 * _MIB,
    "archive": 50 * _MIB,
}
MAX_PIXELS = 250_000_000  # nothing is decoded here, but whatever shows the image has to
_OFFICE = "application/vnd.openxmlformats-officedocument"
# The types under which a file is stored and served: the first one, unless another one of the line
# is announced. media_types.py has the other names that browsers send.
TYPES: dict[str, tuple[str, ...]] = {
    "jpg": ("image/jpeg",),
    "jpeg": ("image/jpeg",),
    "jfif": ("image/jpeg",),
    "png": ("image/png",),
    "webp": ("image/webp",),
    "gif": ("image/gif",),
    "heic": ("image/heic",),
    "heif": ("image/heif",),
    "avif": ("image/avif",),
    "mp4": ("video/mp4",),
    "m4v": ("video/mp4",),
    "mov": ("video/quicktime",),
    "webm": ("video/webm", "audio/webm"),
    "mp3": ("audio/mpeg",),
    "wav": ("audio/wav",),
    "ogg": ("audio/ogg",),
    "oga": ("audio/ogg",),
    "opus": ("audio/ogg",),
    "m4a": ("audio/mp4",),
    "aac": ("audio/aac",),
    "pdf": ("application/pdf",),
    "doc": ("application/msword",),
    "docx": (f"{_OFFICE}.wordprocessingml.document",),
    "xls": ("application/vnd.ms-excel",),
    "xlsx": (f"{_OFFICE}.spreadsheetml.sheet",),
    "pptx": (f"{_OFFICE}.presentationml.presentation",),
    "csv": ("text/csv",),
    "txt": ("text/plain",),
    "zip": ("application/zip",),
}
_MAY_BE_EMPTY = ("csv", "txt")


class Accepted(NamedTuple):
    """A file that may be uploaded: its display name, and the type to store it under."""

    filename: str
    content_type: str


def accept(
    name: str,
    content_type: str | None,
    size: int,
    *,
    allowed: Mapping[str, tuple[str, ...]] | None = None,
    max_bytes: Mapping[str, int] | None = None,
) -> Accepted:
    """Check a file before its upload; `size` in bytes. The extension chooses the type.

    If an extension is in two categories (.webm is video or audio), the announced type decides.
    Raises UnsupportedType `asset.type_not_allowed`, also for an extension without a type or a
    category without a size; TooLarge `asset.too_large`; and Invalid for an empty file other than
    csv and txt.
    """
    last = filename.extension(name)
    table = ALLOWED if allowed is None else allowed
    categories = [c for c, extensions in table.items() if last in extensions]
    if not categories or last not in TYPES:
        raise _not_accepted()
    types = [t for t in TYPES[last] if t.partition("/")[0] in categories] or TYPES[last]
    chosen = media_types.choose(last, content_type, types)
    if chosen is None:
        raise UnsupportedType(
            f"A .{last} file has the content type {types[0]}.",
            code="asset.type_not_allowed",
            errors=[{"field": "contentType", "message": f"must be {types[0]}"}],
        )
    kind = chosen.partition("/")[0]
    category = kind if kind in categories else categories[0]
    limit = (MAX_BYTES if max_bytes is None else max_bytes).get(category)
    if limit is None:
        raise _not_accepted()
    if size == 0 and last not in _MAY_BE_EMPTY:
        raise Invalid(
            "Only csv and txt files may be empty.",
            errors=[{"field": "size", "message": "must be at least 1"}],
        )
    if size > limit:
        raise TooLarge(
            f"Files of this kind may have at most {limit} bytes.",
            code="asset.too_large",
            errors=[{"field": "size", "message": f"must be at most {limit}"}],
            maxBytes=limit,
        )
    return Accepted(name, chosen)


def _not_accepted() -> UnsupportedType:
    return UnsupportedType(
        "Files of this kind are not accepted.",
        code="asset.type_not_allowed",
        errors=[{"field": "filename", "message": "this extension is not accepted"}],
    )
