"""Makes the files of the corpus with the programs that people's files come from.

    .venv/bin/python tests/corpus/make.py

needs ffmpeg, sox and zip (Debian) beside the development packages. What it makes is committed:
encoders change, and a test needs the bytes that were judged. Files that no free program writes
(a password, macros, Excel 5) are from public test suites and are only copied; see README.md.
"""

import io
import random
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pillow_heif
from PIL import Image

FILES = Path(__file__).parent / "files"
MADE: dict[str, Callable[[], bytes]] = {}


def makes(name: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    def register(make: Callable[[], bytes]) -> Callable[[], bytes]:
        MADE[name] = make
        return make

    return register


def picture(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    dice = random.Random(7)
    small = Image.new("RGB", (8, 6))
    small.putdata([tuple(dice.randrange(256) for _ in range(3)) for _ in range(48)])
    return small.resize((width, height)).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


# ---- boxes of HEIC and MP4, to move and to change


def boxes(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        found.append(data[at : at + length])
        at += length
    return found


def data_first(data: bytes) -> bytes:
    """Put `mdat` before `meta`, as Samsung's phones do, and correct the offsets."""
    ftyp, meta, mdat = boxes(data)
    return ftyp + mdat + shifted(meta, -len(meta))


def heif(*images: Image.Image, primary: int = 0, **options: object) -> bytes:
    file = pillow_heif.HeifFile()
    for image in images:
        file.add_from_pillow(image)
    buffer = io.BytesIO()
    file.save(buffer, primary_index=primary, quality=50, **options)
    return buffer.getvalue()


def irot(data: bytes) -> bytes:
    """Add a rotation by a quarter to the only picture: a property, and its number in `ipma`."""
    ftyp, meta, mdat = boxes(data)
    before = len(meta)
    meta = grown(meta, (b"iprp", b"ipco"), struct.pack(">I4sB", 9, b"irot", 1))
    count = properties(meta)
    at = meta.index(b"ipma") + 4 + 4 + 4 + 2  # version and flags, how many items, the item
    meta = meta[:at] + bytes([meta[at] + 1]) + meta[at + 1 :]
    end = at + meta[at]
    meta = grown(meta[:end] + bytes([count]) + meta[end:], (b"iprp", b"ipma"), b"", longer=1)
    return ftyp + shifted(meta, len(meta) - before) + mdat


def properties(meta: bytes) -> int:
    at = meta.index(b"ipco")
    length = int.from_bytes(meta[at - 4 : at])
    return len(boxes(meta[at + 4 : at - 4 + length]))


def grown(meta: bytes, path: tuple[bytes, bytes], more: bytes, longer: int = 0) -> bytes:
    """Lengthen `meta` and the boxes on the path, and put `more` at the end of the last one."""
    data = bytearray(meta)
    extra = len(more) + longer
    for name in (b"meta", *path):
        at = data.index(name) - 4
        struct.pack_into(">I", data, at, int.from_bytes(data[at : at + 4]) + extra)
    at = data.index(path[-1]) - 4
    end = at + int.from_bytes(data[at : at + 4]) - extra
    return bytes(data[:end]) + more + bytes(data[end:]) if more else bytes(data)


def shifted(meta: bytes, by: int) -> bytes:
    """Correct the offsets of items' data (`iloc` of version 0 or 1, in the file itself)."""
    data = bytearray(meta)
    at = data.index(b"iloc") + 4
    version, base_size = data[at], data[at + 5] >> 4
    assert version < 2, "iloc"
    assert data[at + 4] == 0x44, "offsets and lengths of four bytes"
    (count,) = struct.unpack_from(">H", data, at + 6)
    at += 8
    for _ in range(count):
        at += 4 + 2 * version
        base = int.from_bytes(data[at : at + base_size])
        if base:
            data[at : at + base_size] = (base + by).to_bytes(base_size)
        at += base_size
        (extents,) = struct.unpack_from(">H", data, at)
        at += 2
        for _ in range(extents):
            if not base:
                (offset,) = struct.unpack_from(">I", data, at)
                struct.pack_into(">I", data, at, offset + by)
            at += 8
    return bytes(data)


@makes("data-before-boxes.heic")
def _() -> bytes:
    return data_first(heif(picture(160, 120)))


@makes("primary-is-the-smaller.heic")
def _() -> bytes:
    return heif(picture(64, 48), picture(32, 24), primary=1)


@makes("odd-size-by-clap.heic")
def _() -> bytes:
    return heif(picture(29, 101))


@makes("turned-by-irot.heic")
def _() -> bytes:
    return irot(heif(picture()))


@makes("avif-named.heic")
def _() -> bytes:
    return saved(picture(), "AVIF")


@makes("photo.avif")
def _() -> bytes:
    return saved(picture(), "AVIF")


@makes("orientation-6.jpg")
def _() -> bytes:
    return saved(picture(), "JPEG", exif=turned(6))


@makes("orientation-5.jfif")
def _() -> bytes:
    return saved(picture(), "JPEG", exif=turned(5))


@makes("progressive-cmyk.jpeg")
def _() -> bytes:
    return saved(picture(mode="CMYK"), "JPEG", progressive=True)


@makes("mpo-with-a-tail.jpg")
def _() -> bytes:
    more = [picture(32, 24)]
    return saved(picture(), "MPO", save_all=True, append_images=more) + b"\0\0SEFT"


@makes("fifty-megapixels-8160x6144.jpg")
def _() -> bytes:
    return saved(Image.new("L", (8160, 6144), 128), "JPEG", optimize=True, quality=1)


@makes("stray-bytes-between-segments.jpg")
def _() -> bytes:
    data = saved(picture(), "JPEG")
    at = data.index(b"\xff\xdb")
    return data[:at] + b"\0\1\2 Photoshop \0" + data[at:]


def without_end_mark(**options: object) -> bytes:
    data = saved(Image.effect_noise((160, 120), 50), "JPEG", **options)
    assert data.endswith(b"\xff\xd9")
    return data[:-2]


@makes("without-its-end-mark.jpg")
def _() -> bytes:
    return without_end_mark()


@makes("restart-marks-and-no-end-mark.jpg")
def _() -> bytes:
    return without_end_mark(restart_marker_blocks=8)


@makes("cut-in-its-last-rows.jpg")
def _() -> bytes:
    return without_end_mark()[:-400]


@makes("cut-and-filled-with-zeros.jpg")
def _() -> bytes:
    data = without_end_mark()
    return data[:5000].ljust(len(data), b"\0")


@makes("cut-by-an-interval.jpg")
def _() -> bytes:
    data = without_end_mark(restart_marker_blocks=8)
    return data[: data.rindex(b"\xff\xd0")]


@makes("page-behind-its-end.jpg")
def _() -> bytes:
    return saved(picture(), "JPEG") + b"\x17+Xt</td><html><script>alert(1)</script></html>"


@makes("sixteen-bits.png")
def _() -> bytes:
    return saved(picture(mode="L").convert("I;16"), "PNG")


@makes("animated.png")
def _() -> bytes:
    return saved(picture(), "PNG", save_all=True, append_images=[picture().rotate(90)])


@makes("one-pixel-wide.png")
def _() -> bytes:
    return saved(picture(1, 400), "PNG")


@makes("orientation-8-in-exif.png")
def _() -> bytes:
    return saved(picture(), "PNG", exif=turned(8))


@makes("zero-behind-the-end.png")
def _() -> bytes:
    return saved(picture(), "PNG") + b"\0"


@makes("pixels-are-a-page.png")
def _() -> bytes:
    data = saved(Image.new("RGB", (1, 1)), "PNG")
    at = data.index(b"IDAT")
    page = b"<html><body><script>alert(document.domain)</script></body></html>"
    return data[: at - 4] + struct.pack(">I", len(page)) + b"IDAT" + page + data[-16:]


@makes("zero-behind-the-end.gif")
def _() -> bytes:
    return saved(picture(mode="P"), "GIF") + b"\0"


@makes("no-trailer.gif")
def _() -> bytes:
    return saved(picture(mode="P"), "GIF")[:-1]


@makes("animated-with-alpha.webp")
def _() -> bytes:
    frames = [picture(mode="RGBA").rotate(45)]
    return saved(picture(mode="RGBA"), "WEBP", save_all=True, append_images=frames)


@makes("orientation-6.webp")
def _() -> bytes:
    return saved(picture(), "WEBP", exif=turned(6))


# ---- films and sounds


def ffmpeg(suffix: str, *options: str, sound: bool = True, film: bool = True) -> bytes:
    given = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=10:duration=1"] if film else []
    given += ["-f", "lavfi", "-i", "sine=frequency=440:duration=1"] if sound else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"out.{suffix}"
        subprocess.run(
            ["ffmpeg", "-v", "error", *given, "-bitexact", "-shortest", *options, str(out)],
            check=True,
        )
        return out.read_bytes()


H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "32k")


def branded(data: bytes, *brands: bytes) -> bytes:
    """Write other brands into `ftyp`; the boxes behind it are addressed from the start."""
    (length,) = struct.unpack_from(">I", data)
    kept = (length - 16) // 4
    names = (brands[0] + data[12:16] + b"".join(brands) + brands[0] * kept)[: length - 8]
    return data[:8] + names + data[length:]


@makes("brand-qt.mp4")
def _() -> bytes:
    return branded(ffmpeg("mp4", *H264), b"qt  ")


@makes("brand-3gp4-only.mp4")
def _() -> bytes:
    return branded(ffmpeg("mp4", *H264), b"3gp4")


@makes("fragmented.mp4")
def _() -> bytes:
    return ffmpeg("mp4", *H264, "-movflags", "frag_keyframe+empty_moov+default_base_moof")


@makes("turned-by-its-matrix.m4v")
def _() -> bytes:
    data = ffmpeg("mp4", *H264, sound=False)
    quarter = struct.pack(">5l", 0, 1 << 16, 0, -(1 << 16), 0)
    straight = struct.pack(">5l", 1 << 16, 0, 0, 0, 1 << 16)
    at = data.index(straight, data.index(b"tkhd"))
    return data[:at] + quarter + data[at + 20 :]


@makes("brands-of-mp4.mov")
def _() -> bytes:
    return branded(ffmpeg("mov", *H264), b"mp42", b"isom")


@makes("without-ftyp.mov")
def _() -> bytes:
    data = ffmpeg("mov", *H264, "-movflags", "faststart")
    (length,) = struct.unpack_from(">I", data)
    return struct.pack(">I4s", length, b"wide") + b"\0" * (length - 8) + data[length:]


@makes("doctype-matroska.webm")
def _() -> bytes:
    options = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "libopus")
    return ffmpeg("mkv", *options)


@makes("written-live.webm")
def _() -> bytes:
    return ffmpeg("webm", "-c:v", "libvpx", "-b:v", "60k", "-c:a", "libopus", "-live", "1")


@makes("sound-alone.webm")
def _() -> bytes:
    return ffmpeg("webm", "-c:a", "libopus", film=False)


@makes("mpeg-2-in-matroska.webm")
def _() -> bytes:
    return ffmpeg("mkv", "-c:v", "mpeg2video", "-r", "25", sound=False)


@makes("alac.m4a")
def _() -> bytes:
    return ffmpeg("m4a", "-c:a", "alac", film=False)


@makes("cut-in-the-middle.mp4")
def _() -> bytes:
    data = ffmpeg("mp4", *H264, "-movflags", "faststart")
    return data[: -len(data) // 4]


@makes("cut-in-the-middle.m4a")
def _() -> bytes:
    data = ffmpeg("m4a", "-c:a", "aac", "-movflags", "faststart", film=False)
    return data[: -len(data) // 4]


@makes("cut-in-a-cluster.webm")
def _() -> bytes:
    return ffmpeg("webm", "-c:a", "libopus", film=False)[:-700]


@makes("into-a-pipe.wav")
def _() -> bytes:
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=duration=1:sample_rate=8000"]
    return subprocess.run([*command, "-f", "wav", "-"], check=True, capture_output=True).stdout


@makes("rf64.wav")
def _() -> bytes:
    return ffmpeg("wav", "-ar", "8000", "-rf64", "always", film=False)


def sox(suffix: str, *options: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"out.{suffix}"
        subprocess.run(
            ["sox", "-R", "-n", "-r", "8000", *options, str(out), "synth", "1", "sine", "440"],
            check=True,
        )
        return out.read_bytes()


@makes("sox.wav")
def _() -> bytes:
    return sox("wav", "-b", "8")


@makes("sox.ogg")
def _() -> bytes:
    return sox("ogg")


def mp3(*options: str) -> bytes:
    return ffmpeg("mp3", "-c:a", "libmp3lame", "-b:a", "32k", *options, film=False)


@makes("behind-zeros.mp3")
def _() -> bytes:
    return b"\0" * 512 + mp3("-id3v2_version", "0", "-write_xing", "0")


@makes("id3v1-only.mp3")
def _() -> bytes:
    return mp3("-id3v2_version", "0", "-write_id3v1", "1", "-metadata", "title=tone")


@makes("cut-from-a-stream.mp3")
def _() -> bytes:
    return mp3("-id3v2_version", "0", "-write_xing", "0")[201:]


def behind_short_tag(data: bytes) -> bytes:
    """Put a tag before frames that says ten bytes less than it has, as some taggers count it."""
    title = b"TIT2\0\0\0\5\0\0\0tone"
    return b"ID3\3\0\0\0\0\0" + bytes([len(title) - 10]) + title + data


@makes("tag-says-ten-bytes-less.mp3")
def _() -> bytes:
    return behind_short_tag(mp3("-id3v2_version", "0", "-t", "0.05"))


@makes("few-frames-behind-such-a-tag.mp3")
def _() -> bytes:
    return behind_short_tag(mp3("-id3v2_version", "0", "-write_xing", "0", "-t", "0.05"))


def flac() -> bytes:
    return ffmpeg("flac", "-ar", "8000", "-c:a", "flac", film=False)


@makes("flac-behind-id3.mp3")
def _() -> bytes:
    return b"ID3\4\0\0\0\0\0\0" + flac()


@makes("behind-id3.aac")
def _() -> bytes:
    return b"ID3\4\0\0\0\0\0\0" + ffmpeg("aac", "-c:a", "aac", "-b:a", "32k", film=False)


@makes("tone.opus")
def _() -> bytes:
    return ffmpeg("opus", "-c:a", "libopus", "-b:a", "16k", film=False)


@makes("page-behind-its-magic.ogg")
def _() -> bytes:
    return b"OggS\0<html><body><script>alert(document.domain)</script></body></html>"


# ---- text and archives


@makes("windows-1256.csv")
def _() -> bytes:
    return "المنتج;السعر\r\nقهوة;12,50\r\n".encode("cp1256")


@makes("zero-in-a-field.csv")
def _() -> bytes:
    return b"a,b,c\n1,\0,3\n"


@makes("unicode-text.csv")
def _() -> bytes:
    return "المنتج\tالسعر\r\nقهوة\t12.50\r\n".encode("utf-16")


@makes("encrypted-zip64-with-arabic-names.zip")
def _() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        name = "فاتورة.txt"
        (Path(folder) / name).write_text("قهوة")
        command = ["zip", "-q", "-X", "-fz", "-P", "secret", "out.zip", name]
        subprocess.run(command, cwd=folder, check=True)
        return (Path(folder) / "out.zip").read_bytes()


def zip_without(field: int) -> bytes:
    """A ZIP whose directory leaves a field to a zip64 record that is not there."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.txt").write_text("a")
        subprocess.run(["zip", "-q", "-X", "out.zip", "a.txt"], cwd=folder, check=True)
        data = bytearray((Path(folder) / "out.zip").read_bytes())
    struct.pack_into("<L", data, data.index(b"PK\1\2") + field, 0xFFFFFFFF)
    return bytes(data)


@makes("zip64-without-its-size.zip")
def _() -> bytes:
    return zip_without(20)


@makes("zip64-without-its-place.zip")
def _() -> bytes:
    return zip_without(42)


@makes("nothing.txt")
def _() -> bytes:
    return b""


PDF = b"""%PDF-1.4
1 0 obj
<< /Type /Catalog /Pages 2 0 R >>
endobj
2 0 obj
<< /Type /Pages /Kids [3 0 R] /Count 1 >>
endobj
3 0 obj
<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] >>
endobj
trailer
<< /Root 1 0 R /Size 4 >>
%%EOF
"""


@makes("behind-a-mark.pdf")
def _() -> bytes:
    return b"\xef\xbb\xbf" + PDF


def main() -> None:
    """Make every file again."""
    pillow_heif.register_heif_opener()
    for name, make in MADE.items():
        data = make()
        (FILES / name).write_bytes(data)
        print(f"{len(data):8} {name}")


if __name__ == "__main__":
    main()
