"""What a file really is, from its bytes.

Magic numbers first, then enough structure to know that it is whole and that nothing it cannot
explain stands behind its end.

No decoder runs here and nothing is decompressed: headers and lengths are read, never trusted.
Layouts are from the formats' own specifications (PNG: W3C; GIF89a; JPEG: T.81; ISO 14496-12).
"""

import codecs
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import BinaryIO

MAX_PIXELS = 50_000_000
_MAX_SIDE_RATIO = 200
_TAIL = 1 << 16
_MAX_PARTS = 100_000  # chunks, segments, blocks, boxes or entries: more is made to keep us busy

type Reason = str  # type_mismatch or bad_content


# What the readers of structures raise on bytes that make none (a ZIP of version 9.9 included).
_BROKEN = (
    struct.error,
    IndexError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    NotImplementedError,
)


class Refused(Exception):
    """The bytes are not what the type says; `detected` is the type they have, if known."""

    def __init__(self, reason: Reason, detected: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detected = reason, detected


@dataclass(frozen=True, slots=True)
class Policy:
    """What a file may contain."""

    macros: bool = False
    passwords: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file shows: size in pixels as it is shown, duration in milliseconds."""

    width: int | None = None
    height: int | None = None
    duration_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Dimensions:
    """An image's size in pixels."""

    width: int
    height: int


def inspect(file: BinaryIO, content_type: str, policy: Policy = Policy()) -> Facts:
    """Check that `file` is a whole file of `content_type`; return what it shows.

    Raises Refused.
    """
    check = _CHECKS[content_type]
    file.seek(0)
    try:
        found = check(file)
    except _BROKEN as error:
        raise Refused("bad_content") from error
    if found is None:
        return Facts()
    width, height = found.width, found.height
    if not 0 < width * height <= MAX_PIXELS:
        raise Refused("bad_content")
    if max(width, height) > _MAX_SIDE_RATIO * min(width, height):
        raise Refused("bad_content")
    return Facts(width, height)


def _match(condition: bool) -> None:
    """Refuse a file that is of another type."""
    if not condition:
        raise Refused("type_mismatch")


def _whole(condition: bool) -> None:
    """Refuse a file of the right type that is broken, cut off or has something appended."""
    if not condition:
        raise Refused("bad_content")


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _head(file: BinaryIO, count: int) -> bytes:
    file.seek(0)
    return file.read(count)


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _png(file: BinaryIO) -> Dimensions:
    _match(_head(file, 8) == b"\x89PNG\r\n\x1a\n")
    size, found, data_seen = _size(file), None, False
    file.seek(8)
    parts = count()
    while True:
        _whole(next(parts) < _MAX_PARTS)
        length, name = struct.unpack(">I4s", _exactly(file, 8))
        if found is None:
            _whole(name == b"IHDR" and length == 13)
            header = _exactly(file, 13)
            (checksum,) = struct.unpack(">I", _exactly(file, 4))
            _whole(zlib.crc32(name + header) == checksum)
            found = Dimensions(*struct.unpack(">II", header[:8]))
            continue
        data_seen = data_seen or name == b"IDAT"
        end = file.tell() + length + 4
        _whole(end <= size)
        if name == b"IEND":
            _whole(data_seen and length == 0 and end == size)
            return found
        file.seek(end)


def _jpeg(file: BinaryIO) -> Dimensions:
    _match(_head(file, 3) == b"\xff\xd8\xff")
    file.seek(2)
    found = None
    parts = count()
    while True:
        _whole(next(parts) < _MAX_PARTS)
        prefix, marker = _exactly(file, 2)
        _whole(prefix == 0xFF)
        while marker == 0xFF:  # fill bytes
            _whole(next(parts) < _MAX_PARTS)
            (marker,) = _exactly(file, 1)
        (length,) = struct.unpack(">H", _exactly(file, 2))
        _whole(length >= 2)
        if marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", _exactly(file, 5)[1:])
            found = Dimensions(width, height)
            length -= 5
        if marker == 0xDA:
            break
        file.seek(length - 2, os.SEEK_CUR)
    _whole(found is not None)
    # Cameras append previews and videos behind the picture, so its end is searched for.
    last = b""
    while chunk := file.read(1 << 20):
        if b"\xff\xd9" in last + chunk:
            return found or Dimensions(0, 0)
        last = chunk[-1:]
    raise Refused("bad_content")


def _gif(file: BinaryIO) -> Dimensions:
    _match(_head(file, 6) in (b"GIF87a", b"GIF89a"))
    size = _size(file)
    file.seek(6)
    width, height, flags = struct.unpack("<HHB2x", _exactly(file, 7))
    file.seek(_colors(flags), os.SEEK_CUR)
    images, parts = 0, count()
    while True:
        _whole(next(parts) < _MAX_PARTS)
        (kind,) = _exactly(file, 1)
        if kind == 0x3B:
            _whole(images > 0 and file.tell() == size)
            return Dimensions(width, height)
        if kind == 0x21:
            _exactly(file, 1)
        else:
            _whole(kind == 0x2C)
            (flags,) = struct.unpack("<8xB", _exactly(file, 9))
            file.seek(_colors(flags), os.SEEK_CUR)
            _exactly(file, 1)
            images += 1
        while (length := _exactly(file, 1)[0]) > 0:
            _whole(next(parts) < _MAX_PARTS)
            file.seek(length, os.SEEK_CUR)
            _whole(file.tell() <= size)


def _colors(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(file: BinaryIO) -> Dimensions:
    head = _head(file, 30)
    _match(head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    (length,) = struct.unpack("<I", head[4:8])
    _whole(_size(file) == length + 8 and len(head) == 30)
    if head[12:16] == b"VP8 ":
        _whole(head[23:26] == b"\x9d\x01\x2a")
        width, height = struct.unpack("<HH", head[26:30])
        return Dimensions(width & 0x3FFF, height & 0x3FFF)
    if head[12:16] == b"VP8L":
        _whole(head[20] == 0x2F)
        (bits,) = struct.unpack("<I", head[21:25])
        return Dimensions((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    _whole(head[12:16] == b"VP8X")
    width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (24, 27))
    return Dimensions(width, height)


def _boxes(file: BinaryIO, brands: Callable[[set[bytes]], bool]) -> set[bytes]:
    """Walk the top-level boxes of an ISO media file to its very end; return their names."""
    head = _head(file, 16)
    _match(head[4:8] == b"ftyp")
    (length,) = struct.unpack(">I", head[:4])
    _whole(16 <= length <= 4096)
    file.seek(0)
    box = _exactly(file, length)
    _match(brands({box[8:12]} | {box[i : i + 4] for i in range(16, length - 3, 4)}))
    return _walk(file, _size(file))


def _walk(file: BinaryIO, size: int) -> set[bytes]:
    names, position, parts = set(), 0, count()
    while position < size:
        _whole(next(parts) < _MAX_PARTS)
        file.seek(position)
        length, name = struct.unpack(">I4s", _exactly(file, 8))
        if length == 1:
            (length,) = struct.unpack(">Q", _exactly(file, 8))
            _whole(length >= 16)
        elif length == 0:
            length = size - position
        _whole(length >= 8)
        names.add(name)
        position += length
    _whole(position == size)
    return names


_HEIF = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"heif"}
_VIDEO = {b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V ", b"dash"}
_AUDIO = {b"M4A ", b"M4B ", *_VIDEO}


def _heif(file: BinaryIO, accepted: frozenset[bytes] = frozenset(_HEIF)) -> Dimensions:
    names = _boxes(file, lambda brands: bool(brands & accepted))
    _whole(b"meta" in names)
    # Dimensions stand in `ispe` properties, one per image and tile: the largest is the picture.
    head = _head(file, 1 << 20)
    found, position = Dimensions(0, 0), head.find(b"ispe")
    while position != -1:
        width, height = struct.unpack(">II", head[position + 8 : position + 16])
        if width * height > found.width * found.height:
            found = Dimensions(width, height)
        position = head.find(b"ispe", position + 4)
    return found


def _avif(file: BinaryIO) -> Dimensions:
    return _heif(file, frozenset({b"avif", b"avis"}))


def _mp4(file: BinaryIO) -> None:
    _whole(b"moov" in _boxes(file, lambda brands: bool(brands & _VIDEO)))


def _m4a(file: BinaryIO) -> None:
    _whole(b"moov" in _boxes(file, lambda brands: bool(brands & _AUDIO)))


def _mov(file: BinaryIO) -> None:
    if _head(file, 8)[4:] in (b"moov", b"mdat", b"wide", b"free", b"skip"):  # before ftyp existed
        _whole(b"moov" in _walk(file, _size(file)))
    else:
        _whole(b"moov" in _boxes(file, lambda brands: b"qt  " in brands))


def _webm(file: BinaryIO) -> None:
    head = _head(file, 64)
    _match(head[:4] == b"\x1a\x45\xdf\xa3" and b"\x42\x82" in head and b"webm" in head)


def _mp3(file: BinaryIO) -> None:
    head = _head(file, 10)
    if head[:3] == b"ID3":
        # The tag's length is four times seven bits; the first frame follows it.
        length = sum(part << shift for part, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        _whole(all(part < 0x80 for part in head[6:10]) and length + 10 < _size(file))
        return
    _match(len(head) > 3 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2)  # layer III
    _match(head[2] >> 4 not in (0, 15) and head[2] >> 2 & 3 != 3)


def _wav(file: BinaryIO) -> None:
    head = _head(file, 12)
    _match(head[:4] == b"RIFF" and head[8:] == b"WAVE")
    (length,) = struct.unpack("<I", head[4:8])
    _whole(length + 8 <= _size(file) + 1)


def _ogg(file: BinaryIO) -> None:
    _match(_head(file, 5) == b"OggS\x00")


def _aac(file: BinaryIO) -> None:
    head = _head(file, 7)
    _match(head[:4] == b"ADIF" or (len(head) == 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0))


def _pdf(file: BinaryIO) -> None:
    _match(_head(file, 5) == b"%PDF-")
    file.seek(max(0, _size(file) - _TAIL))
    _whole(b"%%EOF" in file.read())


def _ole(stream: str) -> Callable[[BinaryIO], None]:
    """Check an OLE 2 file that has a stream of this name in its directory."""

    def check(file: BinaryIO) -> None:
        _match(_head(file, 8) == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
        name, last = stream.encode("utf-16-le"), b""
        while chunk := file.read(1 << 20):
            if name in last + chunk:
                return
            last = chunk[-len(name) :]
        raise Refused("type_mismatch")

    return check


def _zip(file: BinaryIO) -> None:
    _match(_head(file, 4) in (b"PK\x03\x04", b"PK\x05\x06"))
    _entries(file)


def _entries(file: BinaryIO) -> set[str]:
    """Return the names in a ZIP; a directory that would fill the memory is refused unread."""
    file.seek(0)
    found, last = 0, b""
    while chunk := file.read(1 << 20):
        found += (last + chunk).count(b"PK\x01\x02")
        last = chunk[-3:]
    _whole(found <= _MAX_PARTS)
    with zipfile.ZipFile(file) as archive:
        return set(archive.namelist())


def _office(part: str) -> Callable[[BinaryIO], None]:
    """Check a ZIP that has this part and no macros."""

    def check(file: BinaryIO) -> None:
        _match(_head(file, 4) == b"PK\x03\x04")
        names = _entries(file)
        _match("[Content_Types].xml" in names and part in names)
        _match(not any(name.endswith("vbaProject.bin") for name in names))

    return check


def _text(file: BinaryIO) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    while chunk := file.read(1 << 20):
        try:
            text = decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise Refused("type_mismatch") from error
        _match("\x00" not in text)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise Refused("bad_content") from error


_CHECKS: dict[str, Callable[[BinaryIO], Dimensions | None]] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/gif": _gif,
    "image/webp": _webp,
    "image/heic": _heif,
    "image/heif": _heif,
    "image/avif": _avif,
    "video/mp4": _mp4,
    "video/quicktime": _mov,
    "video/webm": _webm,
    "audio/webm": _webm,
    "audio/mpeg": _mp3,
    "audio/wav": _wav,
    "audio/ogg": _ogg,
    "audio/mp4": _m4a,
    "audio/aac": _aac,
    "application/pdf": _pdf,
    "application/msword": _ole("WordDocument"),
    "application/vnd.ms-excel": _ole("Workbook"),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": _office(
        "word/document.xml"
    ),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": _office("xl/workbook.xml"),
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": _office(
        "ppt/presentation.xml"
    ),
    "text/csv": _text,
    "text/plain": _text,
    "application/zip": _zip,
}
