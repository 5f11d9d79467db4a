"""EXIF: the orientation of a photograph (Exif 2.32, 4.6.4 A, tag 274)."""

import struct

_ORIENTATION = 0x0112
_FORMATS = {1: "B", 3: "H", 4: "L"}  # BYTE, SHORT, LONG: not every writer uses SHORT
_MAX_ENTRIES = 1000


def sideways(data: bytes) -> bool:
    """Return True if the picture is shown with width and height exchanged.

    `data` is a TIFF structure, with or without the `Exif` and two zeros of JPEG before it. One
    that cannot be read says nothing, as in every viewer.
    """
    data = data[6:] if data.startswith(b"Exif\0\0") else data
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return False
    try:
        (start,) = struct.unpack_from(f"{order}L", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for index in range(min(count, _MAX_ENTRIES)):
            at = start + 2 + 12 * index
            tag, kind, _ = struct.unpack_from(f"{order}HHL", data, at)
            if tag == _ORIENTATION and kind in _FORMATS:
                (value,) = struct.unpack_from(f"{order}{_FORMATS[kind]}", data, at + 8)
                return bool(5 <= value <= 8)
    except struct.error:
        return False
    return False
