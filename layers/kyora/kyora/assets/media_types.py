"""The media types that browsers and devices announce.

A browser takes `File.type` from the operating system. Windows looks in its registry, where an
office suite or a player has written its own name; Android, macOS and Linux have their own tables;
for an unknown extension the type is empty. An announced type is therefore only a hint: the
extension chooses the type and the bytes must prove it. A hint that names another kind of file is
refused before anything is uploaded.
"""

from collections.abc import Sequence

# What a system sends for an extension that it does not know.
_UNKNOWN = frozenset(
    {
        "",
        "application/octet-stream",
        "application/octetstream",
        "application/unknown",
        "application/download",
        "application/x-download",
        "application/force-download",
        "application/x-unknown",
        "binary/octet-stream",
        "unknown/unknown",
    }
)
# Other names of the types: old ones, registered synonyms, and those that the Windows registry,
# Firefox, Android and WPS Office use.
_ALIASES: dict[str, tuple[str, ...]] = {
    "jpg": ("image/jpg", "image/pjpeg", "image/x-citrix-jpeg", "image/jfif"),
    "png": ("image/x-png", "image/apng", "image/vnd.mozilla.apng", "image/x-citrix-png"),
    "webp": ("image/x-webp",),
    "gif": ("image/x-citrix-gif",),
    "heic": ("image/heif", "image/heic-sequence", "image/heif-sequence", "image/x-heic"),
    "heif": ("image/heic", "image/heic-sequence", "image/heif-sequence", "image/x-heif"),
    "avif": ("image/avif-sequence",),
    "mp4": ("application/mp4", "video/x-mp4", "video/mp4v-es", "video/x-m4v", "audio/mp4"),
    "m4v": ("video/x-m4v", "video/m4v", "application/mp4"),
    "mov": ("video/mov", "video/x-quicktime", "application/x-quicktime", "video/mp4"),
    "webm": ("video/x-webm", "application/webm"),
    "mp3": (
        "audio/mp3",
        "audio/mpeg3",
        "audio/mpg",
        "audio/mpa",
        "audio/x-mp3",
        "audio/x-mpeg",
        "audio/x-mpeg-3",
        "audio/x-mpeg3",
        "audio/x-mpg",
        "audio/x-mpegaudio",
    ),
    "wav": ("audio/x-wav", "audio/wave", "audio/vnd.wave", "audio/x-pn-wav"),
    "ogg": ("application/ogg", "video/ogg", "audio/x-ogg", "application/x-ogg", "audio/vorbis"),
    "opus": ("audio/opus", "audio/x-opus", "audio/x-opus+ogg", "application/ogg", "video/ogg"),
    "m4a": (
        "audio/x-m4a",
        "audio/m4a",
        "audio/mp4a-latm",
        "audio/mpeg",
        "audio/x-mp4",
        "audio/aac",
        "video/mp4",
        "application/mp4",
    ),
    "aac": (
        "audio/x-aac",
        "audio/aacp",
        "audio/vnd.dlna.adts",
        "audio/x-hx-aac-adts",
        "audio/x-hx-aac-adif",
    ),
    "pdf": (
        "application/x-pdf",
        "application/acrobat",
        "application/vnd.pdf",
        "application/wps-office.pdf",
        "text/pdf",
        "text/x-pdf",
    ),
    "doc": ("application/vnd.ms-word", "application/x-msword", "application/doc"),
    "docx": ("application/msword",),
    "xls": (
        "application/excel",
        "application/msexcel",
        "application/x-excel",
        "application/x-msexcel",
        "application/x-ms-excel",
        "application/vnd.excel",
        "application/x-xls",
        "application/xls",
    ),
    "xlsx": ("application/vnd.ms-excel",),
    "pptx": ("application/vnd.ms-powerpoint",),
    "csv": (
        "application/vnd.ms-excel",
        "application/vnd.excel",
        "application/csv",
        "application/x-csv",
        "application/excel",
        "text/comma-separated-values",
        "text/x-comma-separated-values",
        "text/x-csv",
        "text/plain",
    ),
    "txt": ("application/txt", "text/x-txt"),
    "zip": (
        "application/x-zip-compressed",
        "application/x-zip",
        "application/zip-compressed",
        "application/x-compressed",
        "multipart/x-zip",
    ),
}
_SAME = {"jpeg": "jpg", "jfif": "jpg", "oga": "ogg"}
_OFFICE = frozenset({"doc", "docx", "xls", "xlsx", "ppt", "pptx"})


def choose(extension: str, announced: str | None, types: Sequence[str]) -> str | None:
    """Return the type to store a file under, or None if another kind of file is announced.

    `types` are the types of this extension, the usual one first. Parameters (`;codecs=opus`,
    `;charset=utf-8`) and case are ignored.
    """
    announced = (announced or "").strip()
    if not (announced.isascii() and announced.isprintable()):
        return None
    essence = announced.partition(";")[0].strip().lower()
    if essence in types:
        return essence
    if essence in _UNKNOWN or essence in _ALIASES.get(_SAME.get(extension, extension), ()):
        return types[0]
    if extension in _OFFICE and essence == f"application/wps-office.{extension}":
        return types[0]
    return None
