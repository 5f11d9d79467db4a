"""WAV, Ogg, MP3 and AAC, byte by byte: what is skipped and how long it plays."""

import io
import struct

import pytest

from kyora.assets.content import verify
from kyora.assets.content.source import Facts, Refused

BAD, OTHER_TYPE = "bad_content", "type_mismatch"
PAGE = b"<html>"


def inspect(data: bytes, content_type: str) -> int | str | None:
    """The duration in milliseconds, or the reason of the refusal."""
    try:
        facts = verify.inspect(io.BytesIO(data), content_type)
    except Refused as refused:
        return refused.reason
    assert facts == Facts(duration_ms=facts.duration_ms)
    return facts.duration_ms


# ---- WAV


def part(name: bytes, data: bytes, length: int | None = None, order: str = "<") -> bytes:
    size = struct.pack(f"{order}L", len(data) if length is None else length)
    return name + size + data + b"\0" * (len(data) % 2)


def wav(
    *parts: bytes, mark: bytes = b"RIFF", kind: bytes = b"WAVE", size: int | None = None
) -> bytes:
    body = kind + b"".join(parts)
    order = ">" if mark == b"RIFX" else "<"
    return mark + struct.pack(f"{order}L", len(body) if size is None else size) + body


def form(
    coding: int = 1,
    frequency: int = 8000,
    rate: int = 16000,
    block: int = 2,
    channels: int = 1,
    order: str = "<",
) -> bytes:
    fields = struct.pack(f"{order}HHLLHH", coding, channels, frequency, rate, block, 16)
    return part(b"fmt ", fields, order=order)


SOUND = b"\1\2" * 800  # a tenth of a second
DATA = part(b"data", SOUND)
NOTE = part(b"LIST", PAGE)


def fact(samples: int, length: int = 4) -> bytes:
    return part(b"fact", struct.pack("<L", samples)[:length])


def long_sizes(sound: int) -> bytes:
    return part(b"ds64", struct.pack("<QQQL", 0, sound, 0, 0))


UNSAID = 0xFFFFFFFF
LONG = (long_sizes(1600), form(), part(b"data", SOUND, UNSAID), NOTE)
WAVS = {
    "plain": (wav(form(), DATA), 100),
    "the other byte order": (
        wav(form(order=">"), part(b"data", SOUND, order=">"), mark=b"RIFX"),
        100,
    ),
    "a chunk with padding": (wav(part(b"bext", b"abc"), form(), DATA), 100),
    "no rate": (wav(form(rate=0), DATA), 100),
    "no rate and no block": (wav(form(rate=0, block=0), DATA), None),
    "a byte each second": (wav(form(frequency=1, rate=1, block=1), part(b"data", b"\1\2\3")), 3000),
    "no channel": (wav(form(channels=0), DATA), BAD),
    "no frequency": (wav(form(frequency=0), DATA), BAD),
    "sound before its form": (wav(DATA, form()), BAD),
    "no sound": (wav(form()), BAD),
    "another kind": (wav(form(), DATA, kind=b"WAVX"), OTHER_TYPE),
    "another container": (wav(form(), DATA, mark=b"RIFQ"), OTHER_TYPE),
    "counted samples of packed sound": (wav(form(2), fact(8000), DATA), 1000),
    "packed sound without a count": (wav(form(2), DATA), 100),
    "packed sound with a count of none": (wav(form(2), fact(0), DATA), 100),
    "a count that is cut": (wav(form(2), fact(4000, 3), DATA), 100),
    "a count of plain sound": (wav(form(), fact(4000), DATA), 100),
    "a count of floating point": (wav(form(3), fact(4000), DATA), 100),
    "a count of A-law": (wav(form(6), fact(4000), DATA), 100),
    "a count of µ-law": (wav(form(7), fact(4000), DATA), 100),
    "a count of an extended form": (wav(form(0xFFFE), fact(4000), DATA), 100),
    "into a pipe": (wav(form(), part(b"data", SOUND, 0)), 100),
    "into a pipe, another way": (wav(form(), part(b"data", SOUND, UNSAID)), 100),
    "into a pipe, a page": (wav(form(), part(b"data", SOUND + PAGE, UNSAID)), 100),
    "more than there is": (wav(form(), part(b"data", SOUND, 1700)), 100),
    "a byte more than there is": (wav(form(), part(b"data", SOUND, 1616)), 100),
    "a note behind the sound": (wav(form(), DATA, NOTE), 100),
    "a page behind the size": (wav(form(), DATA, NOTE, size=36 + 1600), BAD),
    "a page behind the size, the other byte order": (
        wav(form(order=">"), part(b"data", SOUND, order=">"), NOTE, mark=b"RIFX", size=36 + 1600),
        BAD,
    ),
    "a note behind the sound, the other byte order": (
        wav(form(order=">"), part(b"data", SOUND, order=">"), NOTE, mark=b"RIFX"),
        100,
    ),
    "a page behind the last byte": (wav(form(), DATA) + PAGE, BAD),
    "words that are a page with the byte before": (
        wav(form(), DATA, part(b"LIST", b"abc<")) + b"html>",
        100,
    ),
    "a size too small": (wav(form(), DATA, size=9), 100),
    "long": (wav(*LONG, mark=b"RF64", size=UNSAID), 100),
    "long, of broadcasters": (wav(*LONG, mark=b"BW64", size=UNSAID), 100),
    "long sizes that are not needed": (wav(long_sizes(160), form(), DATA), 100),
}  # fmt: skip


@pytest.mark.parametrize("name", WAVS)
def test_a_wav_is_read_as_players_read_it(name: str) -> None:
    data, expected = WAVS[name]
    assert inspect(data, "audio/wav") == expected


# ---- Ogg


def page(
    packet: bytes, granule: int = 0, serial: int = 1, flags: int = 0, *, head: bytes = b"OggS\0"
) -> bytes:
    lengths = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
    numbers = struct.pack("<BqIIIB", flags, granule, serial, 0, 0, len(lengths))
    return head + numbers + lengths + packet


BEGINS = 2
OPUS = b"OpusHead\1\1" + struct.pack("<H", 312)
VORBIS = b"\1vorbis\0\0\0\0\2" + struct.pack("<L", 44100)
FLAC = b"\x7fFLAC\1" + b"\0" * 21 + (8000 << 4 | 2).to_bytes(3)
SPEEX = b"Speex   " + b"\0" * 28 + struct.pack("<L", 16000)


def ogg(packet: bytes, last: int) -> bytes:
    """A stream of two pages, the last of which ends at that sample."""
    return page(packet, flags=BEGINS) + page(b"x", last, flags=4)


def with_others(*streams: tuple[bytes, int]) -> bytes:
    """Streams beside each other, by their first packet and last sample."""
    first = [page(head, serial=at, flags=BEGINS) for at, (head, _) in enumerate(streams)]
    return b"".join(first + [page(b"x", end, at) for at, (_, end) in enumerate(streams)])


MANY = [page(OPUS, serial=number, flags=BEGINS) for number in range(65)]
FAR = b"x" * 65_000
OGGS = {
    "Opus": (ogg(OPUS, 48_312), 1000),
    "Opus, without its last byte": (ogg(OPUS[:-1], 48_312), OTHER_TYPE),
    "Vorbis": (ogg(VORBIS, 22_050), 500),
    "Vorbis, without its last byte": (ogg(VORBIS[:-1], 22_050), OTHER_TYPE),
    "FLAC": (ogg(FLAC, 16_000), 2000),
    "FLAC, without its last byte": (ogg(FLAC[:-1], 16_000), OTHER_TYPE),
    "Speex": (ogg(SPEEX, 4000), 250),
    "Speex, without its last byte": (ogg(SPEEX[:-1], 4000), OTHER_TYPE),
    "FLAC of before 2004": (ogg(b"fLaC", 4000), None),
    "CELT": (ogg(b"CELT    ", 4000), None),
    "PCM": (ogg(b"PCM     ", 4000), None),
    "Theora": (ogg(b"\x80theora", 4000), None),
    "Dirac": (ogg(b"BBCD\0", 4000), None),
    "something else": (ogg(b"fishead", 4000), OTHER_TYPE),
    "something else and Opus": (with_others((b"fishead\0", 0), (OPUS, 48_312)), 1000),
    "Opus and something else": (with_others((OPUS, 48_312), (b"fishead\0", 0)), 1000),
    "Vorbis of one sample": (ogg(VORBIS[:-4] + struct.pack("<L", 1), 1), 1000),
    "FLAC of one sample": (ogg(FLAC[:-3] + b"\0\0\x12", 1), 1000),
    "a page in its last page": (ogg(OPUS, 48_312) + page(PAGE, -1), 1000),
    "a film with sound": (with_others((b"\x80theora", 99), (OPUS, 48_312)), 1000),
    "the longer one first": (with_others((SPEEX, 32_000), (OPUS, 48_312)), 2000),
    "the longer one last": (with_others((OPUS, 48_312), (SPEEX, 32_000)), 2000),
    "no frequency": (ogg(VORBIS[:-4] + b"\0\0\0\0", 22_050), None),
    "no end": (ogg(OPUS, -1), None),
    "no sample": (ogg(VORBIS, 0), None),
    "fewer samples than are skipped": (ogg(OPUS, 312), None),
    "one sample": (ogg(SPEEX[:-4] + struct.pack("<L", 1), 1), 1000),
    "a last page that ends no packet": (ogg(OPUS, 48_312) + page(b"x", -1), 1000),
    "a last page of another stream": (ogg(OPUS, 48_312) + page(b"x", 99, 9), 1000),
    "pages that say less before the last": (
        page(OPUS, flags=BEGINS) + page(b"x", 312 + 4800) + page(b"x", 48_312),
        1000,
    ),
    "a last page within reach": (
        ogg(OPUS, 48_312) + page(FAR, -1) + page(FAR, -1),
        1000,
    ),
    "a last page out of reach": (
        ogg(OPUS, 48_312) + page(FAR, -1) + page(FAR, -1) + page(FAR, -1),
        None,
    ),
    "a page of many parts": (page(OPUS + b"\0" * 700, flags=BEGINS) + page(b"x", 48_312), 1000),
    "all flags": (page(OPUS, flags=7) + page(b"x", 48_312), 1000),
    "a flag that there is not": (page(OPUS, flags=8 + BEGINS) + page(b"x", 48_312), BAD),
    "a later flag that there is not": (ogg(OPUS, 312 + 4800) + page(b"x", 48_312, flags=8), 100),
    "another version": (page(OPUS, flags=BEGINS, head=b"OggS\1") + page(b"x", 48_312), BAD),
    "headers alone": (page(OPUS, flags=BEGINS), BAD),
    "a first page that begins nothing": (page(OPUS) + page(b"x", 48_312), BAD),
    "sixty-four streams": (b"".join(MANY[:64]) + page(b"x", 48_312, 63), 1000),
    "headers of sixty-five streams": (b"".join(MANY), None),
    "headers of sixty-four streams": (b"".join(MANY[:64]), BAD),
    "a last page that is cut": (ogg(OPUS, 48_312) + page(b"x" * 90, 96_312)[:-5], 2000),
    "a page behind its end": (ogg(OPUS, 48_312) + PAGE, BAD),
    "a page in its sound": (page(OPUS, flags=BEGINS) + page(PAGE, 48_312), 1000),
}


@pytest.mark.parametrize("name", OGGS)
def test_an_ogg_is_read_as_players_read_it(name: str) -> None:
    data, expected = OGGS[name]
    assert inspect(data, "audio/ogg") == expected


# ---- MP3

MPEG_1, MPEG_2, MPEG_25 = 3, 2, 0
LAYER_1, LAYER_2, LAYER_3 = 3, 2, 1
# ISO/IEC 11172-3, 2.4.2.3 and 13818-3, 2.4.2.3: kbit/s by the index, for MPEG 1 in layers I, II
# and III, and for MPEG 2 in layer I and in layers II and III.
BIT_RATES = """
    32  32  32  32   8
    64  48  40  48  16
    96  56  48  56  24
   128  64  56  64  32
   160  80  64  80  40
   192  96  80  96  48
   224 112  96 112  56
   256 128 112 128  64
   288 160 128 144  80
   320 192 160 160  96
   352 224 192 176 112
   384 256 224 192 128
   416 320 256 224 144
   448 384 320 256 160
"""
ROWS = [[int(word) for word in row.split()] for row in BIT_RATES.strip().splitlines()]
FREQUENCIES = {
    MPEG_1: (44100, 48000, 32000),
    MPEG_2: (22050, 24000, 16000),
    MPEG_25: (11025, 12000, 8000),
}


def mpeg(
    version: int = MPEG_1, layer: int = LAYER_3, index: int = 9, rate: int = 0, padding: int = 0
) -> bytes:
    """A frame of silence, as long as the standard says."""
    column = 3 - layer if version == MPEG_1 else 3 if layer == LAYER_1 else 4
    bits, frequency = 1000 * ROWS[index - 1][column], FREQUENCIES[version][rate]
    if layer == LAYER_1:
        length = 4 * (12 * bits // frequency + padding)
    else:
        half = layer == LAYER_3 and version != MPEG_1
        length = (72 if half else 144) * bits // frequency + padding
    head = bytes((0xFF, 0xE1 | version << 3 | layer << 1, index << 4 | rate << 2 | padding << 1, 0))
    return head.ljust(length, b"\0")


@pytest.mark.parametrize("index", range(1, 15))
@pytest.mark.parametrize("layer", [LAYER_1, LAYER_2, LAYER_3])
@pytest.mark.parametrize("version", [MPEG_1, MPEG_2, MPEG_25])
def test_an_mp3_plays_as_long_as_its_frames(version: int, layer: int, index: int) -> None:
    samples = 384 if layer == LAYER_1 else 1152
    if layer == LAYER_3 and version != MPEG_1:
        samples = 576
    for rate, frequency in enumerate(FREQUENCIES[version]):
        frames = [mpeg(version, layer, index, rate, padding) for padding in (0, 1, 0, 0)]
        expected = round(4000 * samples / frequency)
        assert inspect(b"".join(frames), "audio/mpeg") == expected


MP3, LOW = mpeg(), mpeg(rate=1)
MS = 1152 / 44.1


def plays(frames: int) -> int:
    return round(frames * MS)


def tag(length: int, *, said: int | None = None, flags: int = 0) -> bytes:
    said = length if said is None else said
    size = bytes(said >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0" + bytes([flags]) + size + b"\0" * length


def informed(name: bytes, frames: int, flags: int = 1, at: int = 36) -> bytes:
    """A frame of an encoder that says how many follow it."""
    if name == b"VBRI":
        note = name + b"\0" * 10 + struct.pack(">L", frames)
    else:
        note = name + struct.pack(">LL", flags, frames)
    return (MP3[:4] + b"\0" * (at - 4) + note).ljust(len(MP3), b"\0")


JUNK = b"\x11\x22\x33"
MP3S = {
    "behind a tag": (tag(300) + MP3 * 4, plays(4)),
    "behind a tag of 20,000 bytes": (tag(20_000) + MP3 * 4, plays(4)),
    "behind a tag of three million bytes": (tag(3_000_000) + MP3 * 4, plays(4)),
    "behind two tags": (tag(9) + tag(0) + MP3 * 4, plays(4)),
    "behind a tag with an end": (
        tag(9, flags=0x10) + b"3DI".ljust(10, b"\0") + MP3 * 3 + JUNK * 9,
        plays(3),
    ),
    "behind a tag of 127 bytes": (tag(127) + MP3 * 3 + JUNK * 9, plays(3)),
    "behind a tag that says that all is its own": (tag(0, said=4 * len(MP3)) + MP3 * 4, plays(4)),
    "behind a tag that says too little": (tag(300, said=200) + MP3 * 12, plays(12)),
    "behind a tag that says too much": (tag(0, said=99_999) + MP3 * 4, plays(4)),
    "behind a tag of no length": (b"ID3\4\0\0\x80\0\0\0" + MP3 * 4, plays(4)),
    "three frames behind such a tag": (tag(0, said=99_999) + MP3 * 3 + JUNK * 9, plays(3)),
    "an encoder's note behind no frame": (
        JUNK + b"\xff\xfb\xf0\0Xing\0\0\0\1\0\0\0\1" + MP3 * 12,
        plays(12),
    ),
    "a tag alone": (tag(20), OTHER_TYPE),
    "a tag that is cut": (b"ID3\4\0\0\0", OTHER_TYPE),
    "one frame": (MP3, plays(1)),
    "one frame and zeros": (MP3 + b"\0" * 99, plays(1)),
    "one frame and a tag": (MP3 + b"TAG".ljust(128, b"\0"), plays(1)),
    "one frame and junk": (MP3 + JUNK * 9, OTHER_TYPE),
    "two frames and junk": (MP3 * 2 + JUNK * 9, OTHER_TYPE),
    "three frames and junk": (MP3 * 3 + JUNK * 9, plays(3)),
    "a frame that is cut": (MP3[:-1], OTHER_TYPE),
    "a second frame that is cut": ((MP3 * 2)[:-1], OTHER_TYPE),
    "a third frame that is cut": ((MP3 * 3)[:-1], plays(3)),
    "frames that do not match": (MP3 + LOW + MP3 + LOW + MP3, OTHER_TYPE),
    "junk and eleven frames and junk": (JUNK + MP3 * 11 + JUNK * 9, OTHER_TYPE),
    "junk and twelve frames and junk": (JUNK + MP3 * 12 + JUNK * 9, plays(12)),
    "junk and three frames": (JUNK + MP3 * 3, OTHER_TYPE),
    "junk and four frames": (JUNK + MP3 * 4, plays(4)),
    "junk and five frames, the last cut": (JUNK + (MP3 * 5)[:-1], plays(5)),
    "junk and four frames, the last cut": (JUNK + (MP3 * 4)[:-1], OTHER_TYPE),
    "junk and an encoder's frame": (JUNK + informed(b"Info", 7) + MP3 * 2, plays(7)),
    "junk in which a stream may begin": (b"\0" * ((1 << 18) - 2) + MP3 * 12, plays(12)),
    "junk in which none may": (b"\0" * ((1 << 18) - 1) + MP3 * 12, OTHER_TYPE),
    "junk between frames": (MP3 * 4 + JUNK * 5 + MP3 * 4, plays(8)),
    "a lone sync between frames": (MP3 * 4 + b"\xff\0" + MP3 * 4, plays(8)),
    "frames behind a tag at the end": (MP3 * 4 + b"TAG".ljust(128, b"\0") + MP3, plays(4)),
    "Xing": (informed(b"Xing", 100) + MP3 * 3, plays(100)),
    "Info": (informed(b"Info", 100) + MP3 * 3, plays(100)),
    "VBRI": (informed(b"VBRI", 100) + MP3 * 3, plays(100)),
    "VBRI at another place": (informed(b"VBRI", 100, at=35) + MP3 * 3, plays(4)),
    "Xing without a count": (informed(b"Xing", 100, flags=2) + MP3 * 3, plays(4)),
    "Xing with all its fields": (informed(b"Xing", 100, flags=15) + MP3 * 3, plays(100)),
    "Xing right behind the header": (informed(b"Xing", 100, at=4) + MP3 * 3, plays(100)),
    "Xing at its last place": (informed(b"Xing", 100, at=40) + MP3 * 3, plays(100)),
    "Xing behind it": (informed(b"Xing", 100, at=41) + MP3 * 3, plays(4)),
    "Xing of no frames": (informed(b"Xing", 0) + MP3 * 3, plays(4)),
    "FLAC behind a tag": (tag(10) + b"fLaC" + MP3 * 4, OTHER_TYPE),
    "a reserved version": (bytes((0xFF, 0xE1 | 1 << 3 | 1 << 1)) + MP3[2:] + MP3 * 2, OTHER_TYPE),
    "a reserved layer": (bytes((0xFF, 0xE1 | 3 << 3)) + MP3[2:] + MP3 * 2, OTHER_TYPE),
    "a free bit rate": (MP3[:2] + b"\x00" + MP3[3:] + MP3 * 2, OTHER_TYPE),
    "a bad bit rate": (MP3[:2] + b"\xf0" + MP3[3:] + MP3 * 2, OTHER_TYPE),
    "a reserved frequency": (MP3[:2] + b"\x9c" + MP3[3:] + MP3 * 2, OTHER_TYPE),
    "a protected frame": ((MP3[:1] + b"\xfa" + MP3[2:]) * 2 + MP3 * 2, plays(4)),
}  # fmt: skip


@pytest.mark.parametrize("name", MP3S)
def test_an_mp3_is_read_as_players_read_it(name: str) -> None:
    data, expected = MP3S[name]
    assert inspect(data, "audio/mpeg") == expected


def test_the_duration_of_a_long_mp3_is_worked_out_from_its_first_frames() -> None:
    short = mpeg(MPEG_2, LAYER_3, 1, 1)  # 24 bytes, 24 ms
    assert inspect(short * 150_000, "audio/mpeg") == 150_000 * 24


# ---- AAC

# ISO/IEC 14496-3, 1.6.3.4: by the index.
AAC_RATES = [
    *(96000, 88200, 64000, 48000, 44100, 32000, 24000),
    *(22050, 16000, 12000, 11025, 8000, 7350),
]


def adts(rate: int = 4, length: int = 20, blocks: int = 1, sync: int = 0xF1) -> bytes:
    head = bytes(
        (0xFF, sync, 0x40 | rate << 2, length >> 11, length >> 3 & 0xFF, (length & 7) << 5 | 0x1F)
    )
    return (head + bytes([0xFC | blocks - 1])).ljust(length, b"\0")


@pytest.mark.parametrize("rate", range(len(AAC_RATES)))
def test_aac_plays_as_long_as_its_blocks(rate: int) -> None:
    for blocks in (1, 2, 3, 4):
        expected = round(1_024_000 * 5 * blocks / AAC_RATES[rate])
        assert inspect(adts(rate, 20, blocks) * 5, "audio/aac") == expected


def latm(length: int) -> bytes:
    return b"\x56" + struct.pack(">H", 0xE000 | length) + b"\x20" * length


AAC = adts()


def lasts(frames: int) -> int:
    return round(frames * 1024 / 44.1)


AACS = {
    "frames of any length": (b"".join(adts(length=n) for n in (7, 8, 2047, 2048, 8191)), lasts(5)),
    "frames that are too short": (adts(length=6) * 9, OTHER_TYPE),
    "a frequency that there is not": (adts(rate=13) * 9, OTHER_TYPE),
    "with a checksum": (adts(sync=0xF0) * 4, lasts(4)),
    "of MPEG 2": (adts(sync=0xF9) * 4, lasts(4)),
    "of another layer": (adts(sync=0xF3) * 4, OTHER_TYPE),
    "behind a tag": (tag(30) + AAC * 4, lasts(4)),
    "behind junk": (JUNK + AAC * 4, lasts(4)),
    "behind junk, too few": (JUNK + AAC * 3, OTHER_TYPE),
    "junk between frames": (AAC * 4 + JUNK + AAC * 4, lasts(8)),
    "of two frequencies": (AAC + adts(rate=3) + AAC + adts(rate=3), OTHER_TYPE),
    "a header that is cut": (AAC * 4 + AAC[:6], lasts(4)),
    "in LATM": (latm(511) + latm(8191) + latm(0) + latm(1) + latm(256), None),
    "a last frame of nothing but its header": (AAC * 4 + adts(length=7), lasts(5)),
    "in LATM, behind junk": (JUNK + latm(50) * 4, None),
    "in LATM, cut": (latm(50) * 2 + latm(50)[:9], None),
    "in LATM, one of a wrong length": (latm(50) + b"\x20" + latm(50), OTHER_TYPE),
    "in LATM, its second of another mark": (
        latm(50) + b"\x57" + latm(50)[1:] + latm(50),
        OTHER_TYPE,
    ),
    "in LATM, its second of half a mark": (
        latm(50) + b"\x56\x40" + latm(50)[2:] + latm(50),
        OTHER_TYPE,
    ),
    "in ADIF": (b"ADIF" + b"\x20" * 13, None),
    "in ADIF, of nothing": (b"ADIF" + b"\x20" * 12, BAD),
    "in ADIF, behind a tag": (tag(30) + b"ADIF" + b"\x20" * 13, None),
    "in ADIF of nothing, behind a tag": (tag(30) + b"ADIF" + b"\x20" * 12, BAD),
    "FLAC behind a tag": (tag(30) + b"fLaC" + AAC * 4, OTHER_TYPE),
}


@pytest.mark.parametrize("name", AACS)
def test_an_aac_is_read_as_players_read_it(name: str) -> None:
    data, expected = AACS[name]
    assert inspect(data, "audio/aac") == expected
