"""A small, whole file of every type that may be uploaded, and the broken ones of the abuse list."""

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

from kyora.assets import rules


@dataclass(frozen=True)
class Sample:
    filename: str
    content_type: str
    data: bytes
    width: int | None = None
    height: int | None = None


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int = 3, height: int = 2, tail: bytes = b"", note: bytes = b"") -> bytes:
    """A PNG whose header says `width` x `height`; `note` makes two of them differ."""
    pixels = zlib.compress(b"".join(b"\0" + b"\x7f\x40\x20" * 3 for _ in range(2)))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"tEXt", b"Comment\0" + note) if note else b"")
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
        + tail
    )


def jpeg(width: int = 5, height: int = 4) -> bytes:
    def segment(marker: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

    return (
        b"\xff\xd8"
        + segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")
        + segment(0xDB, bytes([0, *[1] * 64]))
        + segment(0xC0, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00")
        + segment(0xC4, bytes([0x00, 1, *[0] * 15, 0]))
        + segment(0xDA, b"\x01\x01\x00\x00\x3f\x00")
        + b"\x12\x34\xff\x00\x56"
        + b"\xff\xd9"
    )


def gif(width: int = 2, height: int = 2) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + b"\0\0\0\xff\xff\xff"
        + b"\x21\xf9\x04\0\0\0\0\0"
        + b"\x2c"
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\x02\x03\x44\x34\x05\x00"
        + b"\x3b"
    )


def webp(width: int = 7, height: int = 6) -> bytes:
    bits = struct.pack("<I", (width - 1) | (height - 1) << 14)
    body = b"\x2f" + bits + b"\x07\x10\x11\x11\x88\x88\xfe\x07"
    body += b"\0" * (len(body) % 2)
    lossless = b"WEBP" + b"VP8L" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(lossless)) + lossless


def box(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data) + 8) + name + data


def iso(brand: bytes, *boxes: bytes) -> bytes:
    return box(b"ftyp", brand + b"\0\0\0\0" + brand) + b"".join(boxes)


def heic(width: int = 9, height: int = 8, brand: bytes = b"heic") -> bytes:
    size = box(b"ispe", struct.pack(">III", 0, width, height))
    meta = box(b"meta", b"\0\0\0\0" + box(b"iprp", box(b"ipco", size)))
    return iso(brand, meta, box(b"mdat", b"pixels"))


def movie(brand: bytes) -> bytes:
    return iso(brand, box(b"moov", box(b"mvhd", b"\0" * 100)), box(b"mdat", b"frames"))


def webm() -> bytes:
    header = b"\x42\x86\x81\x01\x42\x82\x84webm\x42\x87\x81\x04"
    return b"\x1a\x45\xdf\xa3" + bytes([0x80 | len(header)]) + header + b"\x18\x53\x80\x67\x80"


def wav() -> bytes:
    body = b"WAVE" + b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    body += b"data" + struct.pack("<I", 4) + b"\0\1\2\3"
    return b"RIFF" + struct.pack("<I", len(body)) + body


def ole(stream: str) -> bytes:
    """A compound file of one sector whose directory names `stream`."""
    name = stream.encode("utf-16-le")
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 504 + name.ljust(512, b"\0")


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, f"<part name='{name}'/>")
    return buffer.getvalue()


def office(part: str, *more: str) -> bytes:
    return archive("[Content_Types].xml", "_rels/.rels", part, *more)


PDF = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n"
MP3 = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + b"\0" * 10 + b"\xff\xfb\x90\x00" + b"\0" * 413
OGG = b"OggS\x00\x02" + b"\0" * 20 + b"\x01\x1e\x01vorbis" + b"\0" * 23
AAC = b"\xff\xf1\x50\x80\x02\x1f\xfc" + b"\0" * 9
CSV = "id,name,price\n1,كوب قهوة,12.50\n".encode()
WORD = f"{rules.TYPES['docx'][0]}"
EXCEL = f"{rules.TYPES['xlsx'][0]}"

ALL = {
    "jpg": Sample("photo.jpg", "image/jpeg", jpeg(), 5, 4),
    "jpeg": Sample("photo.jpeg", "image/jpeg", jpeg(11, 10), 11, 10),
    "png": Sample("mug.png", "image/png", png(), 3, 2),
    "webp": Sample("banner.webp", "image/webp", webp(), 7, 6),
    "gif": Sample("spin.gif", "image/gif", gif(), 2, 2),
    "heic": Sample("phone.heic", "image/heic", heic(), 9, 8),
    "heif": Sample("phone.heif", "image/heif", heic(12, 13), 12, 13),
    "jfif": Sample("photo.jfif", "image/jpeg", jpeg(13, 12), 13, 12),
    "avif": Sample("phone.avif", "image/avif", heic(14, 15, b"avif"), 14, 15),
    "m4v": Sample("clip.m4v", "video/mp4", movie(b"M4V ")),
    "mp4": Sample("clip.mp4", "video/mp4", movie(b"isom")),
    "mov": Sample("clip.mov", "video/quicktime", movie(b"qt  ")),
    "webm": Sample("clip.webm", "video/webm", webm()),
    "mp3": Sample("song.mp3", "audio/mpeg", MP3),
    "wav": Sample("ring.wav", "audio/wav", wav()),
    "ogg": Sample("song.ogg", "audio/ogg", OGG),
    "oga": Sample("song.oga", "audio/ogg", OGG),
    "opus": Sample("note.opus", "audio/ogg", OGG),
    "m4a": Sample("note.m4a", "audio/mp4", movie(b"M4A ")),
    "aac": Sample("note.aac", "audio/aac", AAC),
    "pdf": Sample("bill.pdf", "application/pdf", PDF),
    "doc": Sample("letter.doc", "application/msword", ole("WordDocument")),
    "docx": Sample("letter.docx", WORD, office("word/document.xml")),
    "xls": Sample("prices.xls", "application/vnd.ms-excel", ole("Workbook")),
    "xlsx": Sample("prices.xlsx", EXCEL, office("xl/workbook.xml")),
    "pptx": Sample("talk.pptx", rules.TYPES["pptx"][0], office("ppt/presentation.xml")),
    "csv": Sample("prices.csv", "text/csv", CSV),
    "txt": Sample("notes.txt", "text/plain", "قهوة, coffee\n".encode()),
    "zip": Sample("all.zip", "application/zip", archive("a.txt", "b/c.txt")),
}
PNG = ALL["png"]
