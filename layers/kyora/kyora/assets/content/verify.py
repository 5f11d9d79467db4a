"""Check a file against its announced type: choose the parser, and apply the limits of all types."""

from importlib import import_module
from typing import BinaryIO

from kyora.assets.content.source import BROKEN, Facts, Policy, Refused, Source
from kyora.assets.rules import MAX_PIXELS

_STEPS_TO_IDENTIFY = 20_000  # `detected` only helps people: it may cost less than a verdict
_MAX_SIDE = 65_535
_MAX_DURATION = 1000 * 86_400_000  # milliseconds: a thousand days
_DEFAULT = Policy()

# The module and function for each type. Only the one that is needed is imported.
_CHECKS: dict[str, tuple[str, str]] = {
    "image/png": ("png", "check"),
    "image/jpeg": ("jpeg", "check"),
    "image/gif": ("gif", "check"),
    "image/webp": ("webp", "check"),
    "image/heic": ("iso_images", "heic"),
    "image/heif": ("iso_images", "heic"),
    "image/avif": ("iso_images", "avif"),
    "video/mp4": ("iso_movies", "movie"),
    "video/quicktime": ("iso_movies", "movie"),
    "video/webm": ("webm", "video"),
    "audio/webm": ("webm", "audio"),
    "audio/mpeg": ("mpeg_audio", "mp3"),
    "audio/aac": ("mpeg_audio", "aac"),
    "audio/wav": ("wav", "check"),
    "audio/ogg": ("ogg", "check"),
    "audio/mp4": ("iso_movies", "sound"),
    "application/pdf": ("pdf", "check"),
    "application/msword": ("old_office", "doc"),
    "application/vnd.ms-excel": ("old_office", "xls"),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ("office", "docx"),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ("office", "xlsx"),
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ("office", "pptx"),
    "text/csv": ("text", "check"),
    "text/plain": ("text", "check"),
    "application/zip": ("archive", "check"),
}


def inspect(file: BinaryIO, content_type: str, policy: Policy = _DEFAULT) -> Facts:
    """Check that `file` is a complete file of `content_type`; return what it shows.

    Raises Refused: `type_mismatch`, `bad_content`, `too_many_pixels`, `macros`, `encrypted`.
    """
    try:
        facts = parse(Source(file), content_type, policy)
    except Refused as refusal:
        raise _with_detected(refusal, file, content_type) from None
    if not content_type.startswith("image/"):
        return _believable(facts)
    if not (facts.width and facts.height):
        raise Refused("bad_content")
    if facts.width * facts.height > MAX_PIXELS:
        raise Refused("too_many_pixels")
    return facts


def _believable(facts: Facts) -> Facts:
    """Leave out sizes and durations that no film has: a header may hold any number."""
    shown = all(side and side <= _MAX_SIDE for side in (facts.width, facts.height))
    played = facts.duration_ms and 0 < facts.duration_ms <= _MAX_DURATION
    return Facts(
        facts.width if shown else None,
        facts.height if shown else None,
        facts.duration_ms if played else None,
    )


def parse(source: Source, content_type: str, policy: Policy = _DEFAULT) -> Facts:
    """Return what a file of this type shows. Raises Refused, mostly without `detected`."""
    module, function = _CHECKS[content_type]
    check = getattr(import_module(f"kyora.assets.content.{module}"), function)
    try:
        facts: Facts = check(source, policy)
    except BROKEN as error:
        raise Refused("bad_content") from error
    return facts


def _with_detected(refusal: Refused, file: BinaryIO, content_type: str) -> Refused:
    """Add the type that the file really has, if it is known and not the announced one."""
    detected = refusal.detected
    if detected is None and refusal.reason in ("type_mismatch", "bad_content"):
        identify = import_module("kyora.assets.content.identify")
        detected = identify.media_type(Source(file, _STEPS_TO_IDENTIFY))
    return Refused(refusal.reason, None if detected == content_type else detected)
