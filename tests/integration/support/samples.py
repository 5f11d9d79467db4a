"""A small, whole file of every type that may be uploaded, and broken or misleading ones."""

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
    duration_ms: int | None = None


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


def full(name: bytes, data: bytes = b"", version: int = 0) -> bytes:
    """A box that begins with a version and flags."""
    return box(name, struct.pack(">I", version << 24) + data)


def iso(brand: bytes, *boxes: bytes) -> bytes:
    return box(b"ftyp", brand + b"\0\0\0\0" + brand) + b"".join(boxes)


def picture(width: int, height: int, coding: bytes, at: int, *more: bytes) -> bytes:
    """The `meta` of one picture whose pixels are six bytes at `at`; `more` are its properties."""
    properties = [full(b"ispe", struct.pack(">II", width, height)), *more]
    numbers = bytes(range(1, len(properties) + 1))
    return full(
        b"meta",
        full(b"hdlr", b"\0\0\0\0pict" + b"\0" * 13)
        + full(b"pitm", struct.pack(">H", 1))
        + full(b"iloc", struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, at, 6))
        + full(
            b"iinf",
            struct.pack(">H", 1) + full(b"infe", struct.pack(">HH4sB", 1, 0, coding, 0), 2),
        )
        + box(
            b"iprp",
            box(b"ipco", b"".join(properties))
            + full(b"ipma", struct.pack(">IHB", 1, 1, len(numbers)) + numbers),
        ),
    )


def heic(width: int = 9, height: int = 8, brand: bytes = b"heic", *more: bytes) -> bytes:
    coding = b"av01" if brand == b"avif" else b"hvc1"
    size = len(iso(brand, picture(width, height, coding, 0, *more)))
    meta = picture(width, height, coding, size + 8, *more)
    return iso(brand, meta, box(b"mdat", b"pixels"))


def track(
    handler: bytes, coding: bytes, milliseconds: int, width: int = 0, height: int = 0
) -> bytes:
    """A `trak` of one sample description."""
    described = b"\0" * 6 + b"\0\1" + b"\0" * 16 + struct.pack(">HH", width, height) + b"\0" * 50
    matrix = struct.pack(">9l", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    return box(
        b"trak",
        full(b"tkhd", struct.pack(">3I", 0, 0, 1) + b"\0" * 24 + matrix + b"\0" * 8)
        + box(
            b"mdia",
            full(b"mdhd", struct.pack(">4IHH", 0, 0, 1000, milliseconds, 0, 0))
            + full(b"hdlr", b"\0\0\0\0" + handler + b"\0" * 13)
            + box(
                b"minf",
                box(b"stbl", full(b"stsd", struct.pack(">I", 1) + box(coding, described))),
            ),
        ),
    )


def moov(*tracks: bytes, milliseconds: int = 2500) -> bytes:
    times = struct.pack(">4I", 0, 0, 1000, milliseconds)
    return box(b"moov", full(b"mvhd", times + b"\0" * 80) + b"".join(tracks))


def movie(brand: bytes) -> bytes:
    sound = track(b"soun", b"mp4a", 2500)
    film = (track(b"vide", b"avc1", 2500, 64, 48), sound)
    tracks = (sound,) if brand == b"M4A " else film
    return iso(brand, moov(*tracks), box(b"mdat", b"frames"))


def element(name: str, data: bytes) -> bytes:
    """An EBML element with a length of four bytes."""
    return bytes.fromhex(name) + struct.pack(">I", len(data) | 1 << 28) + data


def webm(kind: int = 1, doc_type: bytes = b"webm", codec: bytes = b"V_VP8") -> bytes:
    size = element("e0", element("b0", b"\x40") + element("ba", b"\x30")) if kind == 1 else b""
    entry = element("ae", element("83", bytes([kind])) + element("86", codec) + size)
    info = element("2ad7b1", b"\x0f\x42\x40") + element("4489", struct.pack(">d", 1500.0))
    cluster = element("e7", b"\0") + element("a3", b"\x81\0\0\x80frame")
    return element("1a45dfa3", element("4282", doc_type)) + element(
        "18538067",
        element("1549a966", info) + element("1654ae6b", entry) + element("1f43b675", cluster),
    )


def wav() -> bytes:
    body = b"WAVE" + b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    body += b"data" + struct.pack("<I", 1600) + b"\0\1" * 800
    return b"RIFF" + struct.pack("<I", len(body)) + body


def page(flags: int, granule: int, number: int, packet: bytes) -> bytes:
    """An Ogg page of one packet; its checksum is not checked here."""
    lengths = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, granule, 1, number, 0, len(lengths))
    return head + lengths + packet


def ogg() -> bytes:
    """Opus: a second and the 312 samples that players skip."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 312, 48000, 0, 0)
    return page(2, 0, 0, head) + page(0, 0, 1, b"OpusTags" + b"\0" * 8) + page(4, 48312, 2, b"\xfc")


FREE, LAST, FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


def ole(*names: str, data: bytes = b"", storages: tuple[str, ...] = ()) -> bytes:
    """A compound file (MS-CFB) whose root has these streams of 4,096 bytes, and storages."""
    content = data.ljust(4096, b"\0")
    first = 2
    entries, fat = [], [FAT, LAST]
    for name in names:
        entries.append((name, 2, first, len(content)))
        fat += [*range(first + 1, first + 8), LAST]
        first += 8
    entries += [(name, 1, 0, 0) for name in storages]
    assert len(entries) <= 3, "one directory sector"

    def entry(name: str, kind: int, right: int, child: int, start: int, size: int) -> bytes:
        text = name.encode("utf-16-le") + b"\0\0"
        links = struct.pack("<III", FREE, right, child)
        return (
            text.ljust(64, b"\0")
            + struct.pack("<HBB", len(text), kind, 1)
            + links
            + b"\0" * 36
            + struct.pack("<IQ", start, size)
        )

    directory = entry("Root Entry", 5, FREE, 1 if entries else FREE, LAST, 0)
    for number, (name, kind, start, size) in enumerate(entries, 1):
        directory += entry(
            name, kind, number + 1 if number < len(entries) else FREE, FREE, start, size
        )
    header = (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
        + b"\0" * 16
        + struct.pack("<5H6x9I", 0x3E, 3, 0xFFFE, 9, 6, 0, 1, 1, 0, 4096, LAST, 0, LAST, 0)
        + struct.pack("<109I", 0, *[FREE] * 108)
    )
    table = struct.pack("<128I", *fat, *[FREE] * (128 - len(fat)))
    return header + table + directory.ljust(512, b"\0") + content * len(names)


def word(*, encrypted: bool = False, storages: tuple[str, ...] = ()) -> bytes:
    head = b"\xec\xa5\xc1\0\0\0\0\0\0\0" + struct.pack("<H", 0x0100 if encrypted else 0)
    return ole("WordDocument", data=head, storages=storages)


def record(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", kind, len(data)) + data


def excel(
    *,
    encrypted: bool = False,
    sheet: int = 0,
    storages: tuple[str, ...] = (),
    stream: str = "Workbook",
) -> bytes:
    records = record(0x0809, b"\0\6\5\0" + b"\0" * 12)
    records += record(0x002F, b"\0" * 54) if encrypted else b""
    records += record(0x0085, struct.pack("<IBB", 0, 0, sheet) + b"\6\0Sheet1")
    return ole(stream, data=records + record(0x000A, b""), storages=storages)


def archive(*names: str, **contents: str) -> bytes:
    return zipped({name: f"<part name='{name}'/>" for name in names} | contents)


def zipped(parts: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return buffer.getvalue()


OPEN = "application/vnd.openxmlformats-officedocument"
MAIN = {
    "word/document.xml": f"{OPEN}.wordprocessingml.document.main+xml",
    "xl/workbook.xml": f"{OPEN}.spreadsheetml.sheet.main+xml",
    "ppt/presentation.xml": f"{OPEN}.presentationml.presentation.main+xml",
}


def office(part: str, *more: str, main: str = "", types: str = "", rels: str = "") -> bytes:
    """An OOXML package with this main part; `main` is its type, `types` are further ones."""
    media = main or MAIN[part]
    return zipped(
        {
            "[Content_Types].xml": "<?xml version='1.0'?>"
            "<Types xmlns='http://schemas.openxmlformats.org/package/2006/content-types'>"
            "<Default Extension='xml' ContentType='application/xml'/>"
            f"<Override PartName='/{part}' ContentType='{media}'/>{types}</Types>",
            "_rels/.rels": rels
            or "<Relationships"
            " xmlns='http://schemas.openxmlformats.org/package/2006/relationships'>"
            "<Relationship Id='rId1' Type='http://schemas.openxmlformats.org/officeDocument/"
            f"2006/relationships/officeDocument' Target='{part}'/></Relationships>",
        }
        | dict.fromkeys((part, *more), "<part/>")
    )


PDF = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n"
MP3_FRAME = b"\xff\xfb\x90\x00" + b"\0" * 413  # 128 kbit/s at 44.1 kHz: 26.12 ms
MP3 = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + b"\0" * 10 + MP3_FRAME * 4
AAC_FRAME = b"\xff\xf1\x50\x80\x02\x1f\xfc" + b"\0" * 9  # 44.1 kHz: 23.22 ms
AAC = AAC_FRAME * 4
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
    "m4v": Sample("clip.m4v", "video/mp4", movie(b"M4V "), 64, 48, 2500),
    "mp4": Sample("clip.mp4", "video/mp4", movie(b"isom"), 64, 48, 2500),
    "mov": Sample("clip.mov", "video/quicktime", movie(b"qt  "), 64, 48, 2500),
    "webm": Sample("clip.webm", "video/webm", webm(), 64, 48, 1500),
    "mp3": Sample("song.mp3", "audio/mpeg", MP3, duration_ms=104),
    "wav": Sample("ring.wav", "audio/wav", wav(), duration_ms=100),
    "ogg": Sample("song.ogg", "audio/ogg", ogg(), duration_ms=1000),
    "oga": Sample("song.oga", "audio/ogg", ogg(), duration_ms=1000),
    "opus": Sample("note.opus", "audio/ogg", ogg(), duration_ms=1000),
    "m4a": Sample("note.m4a", "audio/mp4", movie(b"M4A "), duration_ms=2500),
    "aac": Sample("note.aac", "audio/aac", AAC, duration_ms=93),
    "pdf": Sample("bill.pdf", "application/pdf", PDF),
    "doc": Sample("letter.doc", "application/msword", word()),
    "docx": Sample("letter.docx", WORD, office("word/document.xml")),
    "xls": Sample("prices.xls", "application/vnd.ms-excel", excel()),
    "xlsx": Sample("prices.xlsx", EXCEL, office("xl/workbook.xml")),
    "pptx": Sample("talk.pptx", rules.TYPES["pptx"][0], office("ppt/presentation.xml")),
    "csv": Sample("prices.csv", "text/csv", CSV),
    "txt": Sample("notes.txt", "text/plain", "قهوة, coffee\n".encode()),
    "zip": Sample("all.zip", "application/zip", archive("a.txt", "b/c.txt")),
}
PNG = ALL["png"]
