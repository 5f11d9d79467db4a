"""The ICC profile of Display P3, for pictures that name these colours without having it.

A HEIC may give its colours by numbers alone (`nclx`, ITU-T H.273); a variant needs a profile, or
its viewers would take it for sRGB. Pillow makes no other profile than sRGB's.
"""

import struct
from collections.abc import Mapping

_DISPLAY_P3 = 12  # colour primaries, H.273, table 2
_HDR = (16, 18)  # transfer characteristics PQ and HLG, table 3: no curve of an ICC profile
# Adapted to D50, as a profile has them (ICC.1:2022, annex F): of red, green and blue.
_PRIMARIES = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
}
_D50 = (0.96420, 1.0, 0.82491)
_FROM_D65 = (1.04788, 0.02292, -0.05022, 0.02959, 0.99048, -0.01707, -0.00925, 0.01508, 0.75168)
_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # sRGB's


def profile_of(nclx: Mapping[str, object] | None) -> bytes | None:
    """Return the profile of these colours; None for sRGB and for what has no profile here."""
    if not nclx or nclx.get("color_primaries") != _DISPLAY_P3:
        return None
    return None if nclx.get("transfer_characteristics") in _HDR else display_p3()


def display_p3() -> bytes:
    """Return the profile (ICC.1:2022, clauses 7 to 10)."""
    tags = {
        b"desc": _text("Display P3"),
        b"cprt": _text("No copyright, use freely"),
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50),
        b"chad": b"sf32\0\0\0\0" + _fixed(*_FROM_D65),
        **{name: b"XYZ \0\0\0\0" + _fixed(*found) for name, found in _PRIMARIES.items()},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"para\0\0\0\0\0\3\0\0" + _fixed(*_CURVE)),
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4xI4s4s4s12x4s28x12s48x",
        start + len(body),
        0x04400000,  # version 4.4
        b"mntr",
        b"RGB ",
        b"XYZ ",
        b"acsp",
        _fixed(*_D50),
    )
    return header + table + body


def _fixed(*numbers: float) -> bytes:
    """Return s15Fixed16 numbers."""
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return struct.pack(">4s4xII2s2sII", b"mluc", 1, 12, b"en", b"US", len(data), 28) + data
