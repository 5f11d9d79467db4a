"""WebM, MP4 and MOV, byte by byte: which tracks count, what they show and how long they play."""

import io
import math
import struct

import pytest

from kyora.assets.content import verify
from kyora.assets.content.source import Facts, Refused
from tests.integration.support.samples import box, full

type Shown = tuple[int | None, int | None, int | None] | str

BAD, OTHER_TYPE = "bad_content", "type_mismatch"
PAGE = b"<html>"
FILM, QUICKTIME, SOUND = "video/mp4", "video/quicktime", "audio/mp4"
WEBM, WEBM_SOUND = "video/webm", "audio/webm"


def inspect(data: bytes, content_type: str) -> Shown:
    """Width, height and milliseconds; or the reason of the refusal and what the file is."""
    try:
        facts = verify.inspect(io.BytesIO(data), content_type)
    except Refused as refused:
        return f"{refused.reason} {refused.detected or ''}".strip()
    assert isinstance(facts, Facts)
    return facts.width, facts.height, facts.duration_ms


# ---- WebM


def length(number: int, size: int) -> bytes:
    return (1 << 7 * size | number).to_bytes(size)


def element(name: str, data: bytes = b"", *, size: int = 4, said: int | None = None) -> bytes:
    return bytes.fromhex(name) + length(len(data) if said is None else said, size) + data


def live(name: str, data: bytes = b"", size: int = 8) -> bytes:
    """An element whose size was not known yet when it was begun."""
    return element(name, data, size=size, said=(1 << 7 * size) - 1)


EBML, DOC_TYPE, SEGMENT, INFO, TRACKS, CLUSTER = (
    *("1a45dfa3", "4282", "18538067", "1549a966", "1654ae6b", "1f43b675"),
)  # fmt: skip
TIME, SIMPLE, GROUP, BLOCK, VOID, CHECKSUM = "e7", "a3", "a0", "a1", "ec", "bf"


def head(doc_type: bytes = b"webm") -> bytes:
    return element(EBML, element(DOC_TYPE, doc_type))


def info(duration: bytes = b"", scale: int | None = None) -> bytes:
    said = b"" if scale is None else element("2ad7b1", scale.to_bytes(4))
    return element(INFO, said + (element("4489", duration) if duration else b""))


def entry(kind: int = 1, codec: bytes = b"V_VP8", size: tuple[int, int] | None = (64, 48)) -> bytes:
    sides = [
        element(n, side.to_bytes(3)) for n, side in zip(("b0", "ba"), size or (), strict=False)
    ]
    shown = element("e0", b"".join(sides)) if sides else b""
    return element(
        "ae", element("83", bytes([kind])) + (element("86", codec) if codec else b"") + shown
    )


def block(offset: int, number: bytes = b"\x81") -> bytes:
    return number + struct.pack(">h", offset) + b"\0frame"


def cluster(time: int, *offsets: int) -> bytes:
    blocks = [element(SIMPLE, block(offset)) for offset in offsets]
    return element(TIME, time.to_bytes(2)) + b"".join(blocks)


DOUBLE = struct.pack(">d", 1500.0)
TRACK = element(TRACKS, entry())
VOICE = element(TRACKS, entry(2, b"A_OPUS", None))
MEDIA = element(CLUSTER, cluster(0, 0))


def webm(*parts: bytes, doc_type: bytes = b"webm", said: int | None = None) -> bytes:
    return head(doc_type) + element(SEGMENT, b"".join(parts), said=said)


def written_live(*parts: bytes, size: int = 8) -> bytes:
    return head() + live(SEGMENT, b"".join(parts), size)


MATROSKA = "type_mismatch video/x-matroska"
SHOWN = (64, 48, 1500)
ALIKE = bytes.fromhex(CLUSTER) + b"\x81\xa3\x80"
WEBMS: dict[str, tuple[bytes, Shown]] = {
    "plain": (webm(info(DOUBLE), TRACK, MEDIA), SHOWN),
    "a short duration": (webm(info(struct.pack(">f", 1500.0)), TRACK, MEDIA), SHOWN),
    "another scale": (webm(info(DOUBLE, 100_000), TRACK, MEDIA), (64, 48, 150)),
    "a scale of nothing": (webm(info(DOUBLE, 0), TRACK, MEDIA), SHOWN),
    "a duration of five bytes": (
        webm(info(b"\0" * 5), TRACK, element(CLUSTER, cluster(700))),
        (64, 48, 700),
    ),
    "no duration": (webm(info(), TRACK, element(CLUSTER, cluster(700, 40))), (64, 48, 740)),
    "no duration, another scale": (
        webm(info(b"", 2_000_000), TRACK, element(CLUSTER, cluster(700, 40))),
        (64, 48, 1480),
    ),
    "blocks out of order": (
        webm(TRACK, element(CLUSTER, cluster(700, 0, 90, 40))),
        (64, 48, 790),
    ),
    "a block before its cluster": (
        webm(TRACK, element(CLUSTER, cluster(700, -40))),
        (64, 48, 700),
    ),
    "a block of a track with a long number": (
        webm(TRACK, element(CLUSTER, cluster(700) + element(SIMPLE, block(40, b"\x40\x81")))),
        (64, 48, 740),
    ),
    "a group": (
        webm(TRACK, element(CLUSTER, cluster(700) + element(GROUP, element(BLOCK, block(40))))),
        (64, 48, 740),
    ),
    "a group with more in it": (
        webm(
            TRACK,
            element(
                CLUSTER,
                cluster(700) + element(GROUP, element("9b", b"\1") + element(BLOCK, block(40))),
            ),
        ),
        (64, 48, 740),
    ),
    "something that is no block": (
        webm(TRACK, element(CLUSTER, cluster(700) + element("a7", block(40)))),
        (64, 48, 700),
    ),
    "two clusters": (
        webm(TRACK, element(CLUSTER, cluster(100, 9)), element(CLUSTER, cluster(700, 40))),
        (64, 48, 740),
    ),
    "a time of 64 bits": (
        webm(TRACK, element(CLUSTER, element(TIME, (700).to_bytes(8)))),
        (64, 48, 700),
    ),
    "no cluster": (webm(TRACK), (64, 48, None)),
    "an empty cluster": (webm(TRACK, element(CLUSTER)), (64, 48, None)),
    "padding before the segment": (
        head() + element(VOID, b"\0" * 9) + webm(info(DOUBLE), TRACK)[len(head()) :],
        SHOWN,
    ),
    "padding twice": (
        head() + element(VOID) * 2 + webm(info(DOUBLE), TRACK)[len(head()) :],
        BAD,
    ),
    "no segment": (head() + element(INFO) + TRACK, BAD),
    "nothing behind the head": (head(), BAD),
    "another head": (element("1a45dfa4", element(DOC_TYPE, b"webm")) + webm(TRACK), OTHER_TYPE),
    "a kind that is padded": (webm(info(DOUBLE), TRACK, doc_type=b"webm\0"), SHOWN),
    "another kind": (webm(info(DOUBLE), TRACK, doc_type=b"mkv3d"), MATROSKA),
    "no kind": (element(EBML) + webm(info(DOUBLE), TRACK)[len(head()) :], MATROSKA),
    "no track": (webm(info(DOUBLE), MEDIA), BAD),
    "a track of no coding": (webm(info(DOUBLE), element(TRACKS, entry(codec=b""))), BAD),
    "a coding that does not end": (
        webm(element(TRACKS, element("ae", element("83", b"\1") + live("86", b"V_VP8")))),
        BAD,
    ),
    "sound before pictures": (
        webm(info(DOUBLE), element(TRACKS, entry(2, b"A_OPUS", None) + entry())),
        SHOWN,
    ),
    "a track in another element": (
        webm(info(DOUBLE), element(TRACKS, element("af", entry()[5:]) + entry(size=(9, 8)))),
        (9, 8, 1500),
    ),
    "a size of no width": (
        webm(info(DOUBLE), element(TRACKS, entry(size=(0, 9)) + entry())),
        SHOWN,
    ),
    "a size of what is no picture": (
        webm(info(DOUBLE), element(TRACKS, entry(3, size=(9, 8)) + entry())),
        SHOWN,
    ),
    "tracks in two places": (
        webm(info(DOUBLE), VOICE, TRACK),
        SHOWN,
    ),
    "written live": (written_live(info(), TRACK, live(CLUSTER, cluster(700, 40))), (64, 48, 740)),
    "a live cluster behind another": (
        written_live(info(), TRACK, live(CLUSTER, cluster(100)), live(CLUSTER, cluster(700))),
        (64, 48, 700),
    ),
    "live, cut in a block": (
        written_live(TRACK, live(CLUSTER, cluster(700, 40) + element(SIMPLE, block(80))[:-3])),
        (64, 48, 740),
    ),
    "a live cluster with a checksum behind another": (
        written_live(
            TRACK,
            live(CLUSTER, cluster(100)),
            live(CLUSTER, element(CHECKSUM, b"abcd") + cluster(700)),
        ),
        (64, 48, 700),
    ),
    "a live cluster with padding behind another": (
        written_live(
            TRACK, live(CLUSTER, cluster(100)), live(CLUSTER, element(VOID) + cluster(700))
        ),
        (64, 48, 700),
    ),
    "a frame that looks like a cluster": (
        written_live(TRACK, live(CLUSTER, cluster(700) + element(SIMPLE, block(40) + ALIKE))),
        (64, 48, 740),
    ),
    "a frame that begins like a cluster": (
        written_live(
            TRACK, live(CLUSTER, cluster(700) + element(SIMPLE, block(40) + ALIKE[:4] + b"\0"))
        ),
        (64, 48, 740),
    ),
    "a frame that begins like a cluster of something": (
        written_live(
            TRACK, live(CLUSTER, cluster(700) + element(SIMPLE, block(40) + ALIKE[:5] + b"\0"))
        ),
        (64, 48, 740),
    ),
    "a cluster without a time": (
        webm(TRACK, element(CLUSTER, element(SIMPLE, block(40)))),
        (64, 48, 40),
    ),
    "zeros among its tracks": (webm(info(DOUBLE), element(TRACKS, entry() + b"\0\0\0")), SHOWN),
    "a side of eight bytes": (
        webm(
            info(DOUBLE),
            element(
                TRACKS,
                element(
                    "ae",
                    element("83", b"\1")
                    + element("86", b"V_VP8")
                    + element("e0", element("b0", b"\0" * 7 + b"@") + element("ba", b"\x30")),
                ),
            ),
        ),
        SHOWN,
    ),
    "a duration of one": (webm(info(struct.pack(">d", 1.0)), TRACK), (64, 48, 1)),
    "an element whose size is behind its segment": (
        webm(info(DOUBLE), TRACK, b"\xec") + b"\x81x",
        SHOWN,
    ),
    "an element whose size is cut": (webm(info(DOUBLE), TRACK, b"\xec\x40"), SHOWN),
    "a live element that is no cluster": (written_live(TRACK, live(INFO, b"")), BAD),
    "a live element that is no cluster, behind one": (
        written_live(TRACK, MEDIA, live(INFO, b"")),
        BAD,
    ),
    "a segment of another name": (head() + element("18538068", TRACK + MEDIA), BAD),
    "two years and a half": (webm(info(struct.pack(">d", 8e10)), TRACK), (64, 48, 80_000_000_000)),
    "two years and a half of blocks": (
        webm(TRACK, element(CLUSTER, element(TIME, (80_000_000_000).to_bytes(8)))),
        (64, 48, 80_000_000_000),
    ),
    "an element whose name is too long": (
        webm(TRACK, b"\x08\1\2\3\4\x81x", element(CLUSTER, cluster(700))),
        (64, 48, None),
    ),
    "an element of no size": (webm(info(DOUBLE), TRACK, b"\xec\0\0\0"), SHOWN),
    "a segment longer than its file": (webm(TRACK, said=4000), BAD),
    "a cluster longer than its segment": (webm(TRACK, element(CLUSTER, b"", said=9)), BAD),
    "zeros behind a segment": (webm(info(DOUBLE), TRACK) + b"\0" * 9, SHOWN),
    "a page behind a segment": (webm(info(DOUBLE), TRACK) + PAGE, BAD),
    "zeros in a segment": (webm(info(DOUBLE), TRACK, b"\0" * 9), SHOWN),
    "a page behind zeros in a segment": (webm(info(DOUBLE), TRACK, b"\0" * 9 + PAGE), BAD),
}  # fmt: skip


@pytest.mark.parametrize("name", WEBMS)
def test_a_webm_is_read_as_browsers_read_it(name: str) -> None:
    data, expected = WEBMS[name]
    assert inspect(data, WEBM) == expected


@pytest.mark.parametrize("size", range(1, 9))
def test_a_size_may_be_unknown_in_any_number_of_bytes(size: int) -> None:
    data = head() + live(SEGMENT, TRACK + live(CLUSTER, cluster(700), size), size)
    assert inspect(data, WEBM) == (64, 48, 700)


@pytest.mark.parametrize("size", range(2, 9))
def test_a_size_may_have_any_number_of_bytes(size: int) -> None:
    media = element(CLUSTER, element(VOID, b"\0" * 99, size=size) + cluster(700), size=size)
    data = head() + element(SEGMENT, TRACK + media, size=size)
    assert inspect(data, WEBM) == (64, 48, 700)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, -0.5, 0.0, 1e15])
def test_a_duration_that_no_film_has_is_that_of_its_blocks(value: float) -> None:
    data = webm(info(struct.pack(">d", value)), TRACK, element(CLUSTER, cluster(700)))
    assert inspect(data, WEBM) == (64, 48, 700)


CODECS = [
    *((name, True) for name in (b"V_VP8", b"V_VP9", b"V_AV1", b"V_MPEG4/ISO/AVC")),
    *((name, True) for name in (b"V_MPEGH/ISO/HEVC", b"A_OPUS", b"A_VORBIS", b"A_AAC")),
    *((b"A_PCM/INT/LIT", True), (b"V_MPEG2", False), (b"A_FLAC", False)),
    (b"V_MPEG4/ISO/ASP", False),
]


@pytest.mark.parametrize(("codec", "played"), CODECS)
def test_matroska_is_what_browsers_play(codec: bytes, played: bool) -> None:
    """Whatever else is in it."""
    both = element(TRACKS, entry() + entry(2, codec, None))
    for tracks in (both, element(TRACKS, entry(codec=codec))):
        found = inspect(webm(info(DOUBLE), tracks, doc_type=b"matroska"), WEBM)
        assert found == (SHOWN if played else MATROSKA)
    assert inspect(webm(info(DOUBLE), both), WEBM) == SHOWN  # its kind says that they do


def test_a_recording_has_sound_and_no_pictures() -> None:
    voice = element(TRACKS, entry(2, b"A_OPUS", None))
    both = element(TRACKS, entry(2, b"A_OPUS", None) + entry())
    assert inspect(webm(info(DOUBLE), voice), WEBM_SOUND) == (None, None, 1500)
    assert inspect(webm(info(DOUBLE), voice), WEBM) == (None, None, 1500)
    assert inspect(webm(info(DOUBLE), both), WEBM_SOUND) == "type_mismatch video/webm"


SIDES = [
    *((65_535, 65_535, True), (65_536, 48, False), (64, 65_536, False)),
    *((1, 1, True), (64, 0, False)),
]


@pytest.mark.parametrize(("width", "height", "shown"), SIDES)
def test_a_size_that_no_film_has_is_left_out(width: int, height: int, shown: bool) -> None:
    data = webm(info(DOUBLE), element(TRACKS, entry(size=(width, height))))
    assert inspect(data, WEBM) == ((width, height, 1500) if shown else (None, None, 1500))


# ---- MP4 and MOV

ONE = 1 << 16
UPRIGHT, QUARTER, HALF, BACK = (1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)


def times(name: bytes, scale: int, duration: int, *, long: bool = False) -> bytes:
    if long:
        return full(name, struct.pack(">QQLQ", 7, 9, scale, duration) + b"\0" * 80, 1)
    return full(name, struct.pack(">LLLL", 7, 9, scale, duration) + b"\0" * 80)


def turn(number: int, matrix: tuple[int, ...] = UPRIGHT, *, long: bool = False) -> bytes:
    a, b, c, d = (ONE * value for value in matrix)
    cells = struct.pack(">9l", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    wide = "Q" if long else "L"
    begin = struct.pack(f">{wide}{wide}LL{wide}", 7, 9, number, 0, 0) + b"\0" * 16
    return full(b"tkhd", begin + cells + b"\0" * 8, int(long))


def described(coding: bytes = b"avc1", size: tuple[int, int] = (64, 48), cut: int = 99) -> bytes:
    fields = b"\0" * 24 + struct.pack(">HH", *size) + b"\0" * 50
    return box(b"minf", box(b"stbl", full(b"stsd", (b"\0\0\0\1" + box(coding, fields))[:cut])))


def handled(kind: bytes) -> bytes:
    return full(b"hdlr", b"\0\0\0\0" + kind + b"\0" * 13)


def track(
    kind: bytes = b"vide",
    minf: bytes = described(),
    tkhd: bytes = turn(1),
    mdhd: bytes = times(b"mdhd", 600, 1500),
) -> bytes:
    return box(b"trak", tkhd + box(b"mdia", mdhd + handled(kind) + minf))


HEARD = described(b"mp4a", (0, 0))
VIDEO, AUDIO = track(), track(b"soun", HEARD, turn(2))
MVHD = times(b"mvhd", 600, 1500)
MDAT = box(b"mdat", b"frames")
UNSAID, UNSAID_LONG = (1 << 32) - 1, (1 << 64) - 1


def moov(*parts: bytes) -> bytes:
    return box(b"moov", b"".join(parts))


def file(*boxes: bytes, brand: bytes = b"isom") -> bytes:
    return box(b"ftyp", brand + b"\0\0\0\0" + brand) + b"".join(boxes) + MDAT


UNSURE = track(mdhd=times(b"mdhd", 600, UNSAID))
LATE = times(b"mdhd", 1000, 4000)
CANON = "type_mismatch image/x-canon-cr3"
FILM_SHOWN = (64, 48, 2500)
FILMS: dict[str, tuple[bytes, Shown]] = {
    "plain": (file(moov(MVHD, VIDEO, AUDIO)), FILM_SHOWN),
    "sound before pictures": (file(moov(MVHD, AUDIO, VIDEO)), FILM_SHOWN),
    "times of 64 bits": (
        file(moov(times(b"mvhd", 600, 1500, long=True), VIDEO)),
        FILM_SHOWN,
    ),
    "a duration that is not known": (file(moov(times(b"mvhd", 600, UNSAID), VIDEO)), FILM_SHOWN),
    "a long duration that is not known": (
        file(moov(times(b"mvhd", 600, UNSAID_LONG, long=True), VIDEO)),
        FILM_SHOWN,
    ),
    "a duration of nothing": (file(moov(times(b"mvhd", 600, 0), VIDEO)), FILM_SHOWN),
    "no time scale": (file(moov(times(b"mvhd", 0, 99), VIDEO)), FILM_SHOWN),
    "no header": (file(moov(VIDEO)), FILM_SHOWN),
    "no header, the longest track": (
        file(moov(VIDEO, track(mdhd=LATE), AUDIO)),
        (64, 48, 4000),
    ),
    "a header that says less than its tracks": (
        file(moov(times(b"mvhd", 600, 600), VIDEO)),
        (64, 48, 1000),
    ),
    "a track's times of 64 bits": (
        file(moov(track(mdhd=times(b"mdhd", 600, 1500, long=True)))),
        FILM_SHOWN,
    ),
    "a track that does not say how long it is": (file(moov(UNSURE)), (64, 48, None)),
    "a track without times": (file(moov(track(mdhd=b""))), (64, 48, None)),
    "a track without a time scale": (file(moov(track(mdhd=times(b"mdhd", 0, 9)))), (64, 48, None)),
    "a track without a description": (file(moov(MVHD, track(minf=b""))), (None, None, 2500)),
    "an empty description": (
        file(moov(MVHD, track(minf=described(cut=4)))),
        (None, None, 2500),
    ),
    "a description that is cut in its name": (
        file(moov(MVHD, track(minf=described(cut=11)))),
        (None, None, 2500),
    ),
    "no table of samples": (file(moov(MVHD, track(minf=box(b"minf")))), (None, None, 2500)),
    "no descriptions": (
        file(moov(MVHD, track(minf=box(b"minf", box(b"stbl"))))),
        (None, None, 2500),
    ),
    "pictures of no width": (
        file(moov(MVHD, track(minf=described(size=(0, 9))), VIDEO)),
        FILM_SHOWN,
    ),
    "sound with a size": (
        file(moov(MVHD, track(b"soun", described(b"mp4a", (9, 8))), VIDEO)),
        FILM_SHOWN,
    ),
    "a track without a media": (file(moov(MVHD, box(b"trak", turn(1)), VIDEO)), FILM_SHOWN),
    "a track without a handler": (
        file(moov(MVHD, box(b"trak", turn(1) + box(b"mdia", described())), VIDEO)),
        FILM_SHOWN,
    ),
    "a track without a header": (file(moov(MVHD, track(tkhd=b""))), FILM_SHOWN),
    "turned": (file(moov(MVHD, track(tkhd=turn(1, QUARTER)))), (48, 64, 2500)),
    "turned back": (file(moov(MVHD, track(tkhd=turn(1, BACK)))), (48, 64, 2500)),
    "turned by a half": (file(moov(MVHD, track(tkhd=turn(1, HALF)))), FILM_SHOWN),
    "turned by an eighth": (file(moov(MVHD, track(tkhd=turn(1, (1, 1, -1, 1))))), FILM_SHOWN),
    "turned, in 64 bits": (
        file(moov(MVHD, track(tkhd=turn(1, QUARTER, long=True)))),
        (48, 64, 2500),
    ),
    "mirrored": (file(moov(MVHD, track(tkhd=turn(1, (0, 1, 1, 0))))), (48, 64, 2500)),
    "stretched along one side": (file(moov(MVHD, track(tkhd=turn(1, (3, 2, 0, 0))))), FILM_SHOWN),
    "no track": (file(moov(MVHD)), OTHER_TYPE + " video/mp4"),
    "data of a program": (file(moov(MVHD, track(b"meta", b""))), (None, None, 2500)),
    "pictures of an image": (file(moov(MVHD, track(b"pict"))), OTHER_TYPE),
    "raw pictures": (file(moov(MVHD, track(minf=described(b"CRAW")), VIDEO)), FILM_SHOWN),
    "raw pictures alone": (file(moov(MVHD, track(minf=described(b"CRAW")))), OTHER_TYPE),
    "a photograph of Canon's": (file(moov(MVHD, VIDEO), brand=b"crx "), CANON),
    "a photograph of Canon's that names others": (
        box(b"ftyp", b"crx \0\0\0\0isom") + moov(MVHD, VIDEO),
        CANON,
    ),
    "a film that names Canon's last": (
        box(b"ftyp", b"isom\0\0\0\0" + b"isom" * 1021 + b"crx ") + moov(MVHD, VIDEO),
        CANON,
    ),
    "a film that names more than are read": (
        box(b"ftyp", b"isom\0\0\0\0" + b"isom" * 1022 + b"crx ") + moov(MVHD, VIDEO),
        FILM_SHOWN,
    ),
    "a film that names Canon's behind its brands": (
        file(box(b"free", b"crx " * 9), moov(MVHD, VIDEO)),
        FILM_SHOWN,
    ),
    "an image's brand on a film": (file(moov(MVHD, VIDEO), brand=b"avis"), FILM_SHOWN),
    "an image's brand among those of a sound": (
        box(b"ftyp", b"isom\0\0\0\0mif1") + moov(MVHD, AUDIO),
        (None, None, 2500),
    ),
    "an image's brand on a sound": (file(moov(MVHD, AUDIO), brand=b"mif1"), OTHER_TYPE),
    "no film": (file(), BAD),
    "no film but a meta": (file(box(b"meta", b"\0" * 4)), OTHER_TYPE),
    "data that is cut": (file(moov(MVHD, VIDEO))[:-1], BAD),
    "a page behind it": (file(moov(MVHD, VIDEO)) + PAGE, BAD),
    "a page behind a box of no name": (file(moov(MVHD, VIDEO)) + box(b"abcd", PAGE), BAD),
    "a box of no name": (file(moov(MVHD, VIDEO)) + box(b"abcd", b"x"), FILM_SHOWN),
    "a box of no name that is cut": (
        file(moov(MVHD, VIDEO)) + box(b"abcd", b"x")[:-1],
        FILM_SHOWN,
    ),
    "a box of no name, and more": (
        file(box(b"abcd", b"x"), moov(MVHD, VIDEO)),
        FILM_SHOWN,
    ),
    "a child that is longer than its parent": (
        file(moov(MVHD, b"\0\0\0\x63trak")),
        BAD,
    ),
    "a rest too short for a child": (file(moov(MVHD, VIDEO, b"\0\0\0\0\0\0\0")), FILM_SHOWN),
    "a child of no length": (file(moov(MVHD, VIDEO, b"\0\0\0\7free")), BAD),
    "a child to its parent's end": (file(moov(MVHD, VIDEO, b"\0\0\0\0freexyz")), FILM_SHOWN),
    "a child of a long size": (
        file(moov(MVHD, b"\0\0\0\1trak" + struct.pack(">Q", len(VIDEO) + 8) + VIDEO[8:])),
        FILM_SHOWN,
    ),
    "a child of a long size below its header's": (
        file(moov(MVHD, VIDEO, b"\0\0\0\1free" + struct.pack(">Q", 15))),
        BAD,
    ),
    "a child of the least long size": (
        file(moov(MVHD, VIDEO, b"\0\0\0\1free" + struct.pack(">Q", 16))),
        FILM_SHOWN,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILMS)
def test_a_film_is_read_as_players_read_it(name: str) -> None:
    data, expected = FILMS[name]
    found = inspect(data, FILM)
    if expected == OTHER_TYPE:  # what it is, is tested with identify
        found = str(found).partition(" ")[0]
    elif expected == OTHER_TYPE + " video/mp4":
        found = f"{found} video/mp4"
    assert found == expected


FIRST = (b"styp", b"wide", b"free", b"skip", b"pnot", b"uuid", b"PICT", b"udta")


@pytest.mark.parametrize("name", FIRST)
def test_a_film_may_begin_with_another_box(name: bytes) -> None:
    assert inspect(box(name, b"\0" * 16) + moov(MVHD, VIDEO) + MDAT, QUICKTIME) == FILM_SHOWN


def test_a_film_of_another_beginning_is_none() -> None:
    assert inspect(box(b"abcd") + moov(MVHD, VIDEO) + MDAT, QUICKTIME) == OTHER_TYPE
    assert inspect(moov(MVHD, VIDEO) + MDAT, QUICKTIME) == FILM_SHOWN
    assert inspect(MDAT + moov(MVHD, VIDEO), QUICKTIME) == FILM_SHOWN


def test_a_sound_is_as_long_as_the_film_and_has_no_size() -> None:
    assert inspect(file(moov(MVHD, VIDEO, AUDIO)), SOUND) == (None, None, 2500)
    heard = track(b"soun", HEARD, mdhd=LATE)
    assert inspect(file(moov(UNSURE, heard)), SOUND) == (None, None, 4000)
    assert inspect(file(moov(VIDEO)), SOUND) == "type_mismatch video/mp4"


# ---- fragments


def fragment(*parts: bytes) -> bytes:
    return box(b"moof", box(b"traf", b"".join(parts)))


def tfhd(number: int, flags: int = 0, more: bytes = b"") -> bytes:
    return box(b"tfhd", struct.pack(">LL", flags, number) + more)


def tfdt(start: int, *, long: bool = False) -> bytes:
    return full(b"tfdt", struct.pack(">Q" if long else ">L", start), int(long))


def trun(count: int, flags: int = 0, more: bytes = b"") -> bytes:
    return box(b"trun", struct.pack(">LL", flags, count) + more)


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}L", *values)


def fragmented(
    *fragments: bytes, film: bytes = UNSURE, each: int = 60, header: bytes = b""
) -> bytes:
    mvex = box(b"mvex", box(b"mehd", b"\0" * 8) + full(b"trex", numbers(1, 1, each, 5, 5)))
    return file(moov(header, film, mvex), *fragments)


USUAL = fragment(tfhd(1), trun(10))  # a second: ten samples of 60 in 600
FRAGMENTED = {
    "the usual length of a sample": ([USUAL], 1000),
    "one after the other": ([USUAL] * 3, 3000),
    "one that says when it begins": ([fragment(tfhd(1), tfdt(1200), trun(10))], 3000),
    "one that says so in 64 bits": ([fragment(tfhd(1), tfdt(1200, long=True), trun(10))], 3000),
    "one that goes on from there": (
        [fragment(tfhd(1), tfdt(1200), trun(10)), USUAL],
        4000,
    ),
    "one that begins again": (
        [USUAL, USUAL, fragment(tfhd(1), tfdt(0), trun(5))],
        2000,
    ),
    "its own length": ([fragment(tfhd(1, 8, numbers(120)), trun(10))], 2000),
    "its own length behind a place": (
        [fragment(tfhd(1, 9, numbers(7, 7, 120)), trun(10))],
        2000,
    ),
    "its own length behind a description": (
        [fragment(tfhd(1, 10, numbers(7, 120, 7)), trun(10))],
        2000,
    ),
    "its own length behind both": (
        [fragment(tfhd(1, 11, numbers(7, 7, 7, 120, 7)), trun(10))],
        2000,
    ),
    "two runs": ([fragment(tfhd(1), trun(10), trun(5))], 1500),
    "lengths of samples": ([fragment(tfhd(1), trun(2, 0x100, numbers(60, 120)))], 300),
    "lengths and sizes": (
        [fragment(tfhd(1), trun(2, 0x300, numbers(60, 7, 120, 7)))],
        300,
    ),
    "lengths, sizes, flags and offsets": (
        [fragment(tfhd(1), trun(2, 0xF00, numbers(60, 7, 7, 7, 120, 7, 7, 7)))],
        300,
    ),
    "lengths and flags": ([fragment(tfhd(1), trun(1, 0x500, numbers(60, 7)))], 100),
    "lengths and offsets": ([fragment(tfhd(1), trun(2, 0x900, numbers(60, 7, 60, 7)))], 200),
    "lengths behind a place": ([fragment(tfhd(1), trun(1, 0x101, numbers(7, 60)))], 100),
    "lengths behind the first's flags": (
        [fragment(tfhd(1), trun(1, 0x104, numbers(7, 60)))],
        100,
    ),
    "lengths behind both": ([fragment(tfhd(1), trun(1, 0x105, numbers(7, 7, 60)))], 100),
    "sizes without lengths": ([fragment(tfhd(1), trun(10, 0x200, numbers(*[7] * 10)))], 1000),
    "no sample": ([fragment(tfhd(1), trun(0))], None),
    "a track that there is not": ([fragment(tfhd(9, 8, numbers(99)), trun(10))], None),
    "something else in a fragment": (
        [box(b"moof", full(b"mfhd", b"\0\0\0\1") + box(b"abcd") + USUAL[8:])],
        1000,
    ),
    "more than are read": ([USUAL] * 2001, 2_000_000),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAGMENTED)
def test_a_film_in_fragments_plays_as_long_as_they_do(name: str) -> None:
    fragments, expected = FRAGMENTED[name]
    assert inspect(fragmented(*fragments), FILM) == (64, 48, expected)


def test_a_film_and_its_fragments_play_as_long_as_the_longer() -> None:
    assert inspect(fragmented(USUAL, film=VIDEO, header=MVHD), FILM) == FILM_SHOWN
    assert inspect(fragmented(*[USUAL] * 3, film=VIDEO, header=MVHD), FILM) == (64, 48, 3000)
    # Only a film that says that it has fragments has any.
    assert inspect(file(moov(UNSURE), USUAL), FILM) == (64, 48, None)


def test_lengths_that_are_not_there_are_refused() -> None:
    cut = fragment(tfhd(1), trun(3, 0x100, numbers(60, 120)))
    assert inspect(fragmented(cut), FILM) == BAD


# ---- pictures in a track

AV1, HEVC = track(b"pict", described(b"av01")), track(b"pict", described(b"hvc1"))
BRANDS = ("avif", "avis", "heic", "heix", "hevc", "hevx", "heim", "heis", "mif1", "msf1")


@pytest.mark.parametrize("brand", BRANDS)
def test_a_sequence_of_pictures_is_what_its_track_is_coded_in(brand: str) -> None:
    hevc, av1 = (file(moov(MVHD, one), brand=brand.encode()) for one in (HEVC, AV1))
    assert inspect(hevc, "image/heic") == (64, 48, None)
    assert inspect(av1, "image/avif") == (64, 48, None)
    assert inspect(av1, "image/heic") == "type_mismatch image/avif"
    assert inspect(hevc, "image/avif") == "type_mismatch image/heic"
    heard = inspect(file(moov(MVHD, AUDIO), brand=brand.encode()), FILM)
    assert str(heard).startswith(OTHER_TYPE)


def test_the_first_track_of_pictures_that_has_a_size_is_shown() -> None:
    empty = track(b"pict", described(b"av01", (0, 9)))
    data = file(moov(MVHD, VIDEO, empty, HEVC, AV1), brand=b"msf1")
    assert inspect(data, "image/heic") == (64, 48, None)
    assert inspect(file(moov(MVHD, empty), brand=b"msf1"), "image/heic") == BAD
    assert inspect(file(brand=b"msf1"), "image/heic") == BAD


def test_a_film_is_no_sequence_of_pictures() -> None:
    assert inspect(file(moov(MVHD, HEVC)), "image/heic") == "type_mismatch video/mp4"
    behind = box(b"ftyp", b"isom\0\0\0\0isommsf1") + moov(MVHD, HEVC)
    assert inspect(behind, "image/heic") == (64, 48, None)
