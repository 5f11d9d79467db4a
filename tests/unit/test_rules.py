"""What may be uploaded: the default rules, and what replaces them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyora.assets import rules
from kyora.assets.content import verify
from kyora.assets.media_types import _ALIASES as ALIASES
from kyora.assets.media_types import _SAME
from kyora.errors import Invalid, KyoraError, TooLarge, UnsupportedType

MIB = 1 << 20
OFFICE = "application/vnd.openxmlformats-officedocument"
TYPE = {last: types[0] for last, types in rules.TYPES.items()}


def test_every_extension_has_a_type_and_every_type_a_look_at_its_bytes() -> None:
    assert {last for names in rules.ALLOWED.values() for last in names} == set(rules.TYPES)
    assert {name for types in rules.TYPES.values() for name in types} == set(verify._CHECKS)


# docs/uploads.md has the defaults as a table, which tests/contract/test_readme.py compares.
CASES = [
    (last, "audio/webm" if (category, last) == ("audio", "webm") else TYPE[last], size)
    for category, names in rules.ALLOWED.items()
    for last in names
    for size in [rules.MAX_BYTES[category]]
]


@pytest.mark.parametrize(("last", "content_type", "limit"), CASES)
def test_each_kind_is_accepted_up_to_its_limit_and_no_further(
    last: str, content_type: str, limit: int
) -> None:
    assert rules.accept(f"a.{last.upper()}", content_type, limit).content_type == content_type
    with pytest.raises(TooLarge) as refused:
        rules.accept(f"a.{last}", content_type, limit + 1)
    assert refused.value.code == "asset.too_large"
    assert refused.value.members == {"maxBytes": limit}
    assert refused.value.errors == [{"field": "size", "message": f"must be at most {limit}"}]


@pytest.mark.parametrize(("last", "content_type", "limit"), CASES)
def test_a_name_and_a_type_that_disagree_are_refused(
    last: str, content_type: str, limit: int
) -> None:
    for other in {"text/html", "image/svg+xml", "application/x-msdownload", *TYPE.values()}:
        if other not in {*rules.TYPES[last], *ALIASES.get(_SAME.get(last, last), ())}:
            with pytest.raises(UnsupportedType):
                rules.accept(f"a.{last}", other, 1)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.svg", "image/svg+xml"),
        ("a.html", "text/html"),
        ("a.xhtml", "application/xhtml+xml"),
        ("a.js", "text/javascript"),
        ("a.exe", "application/octet-stream"),
        ("a.pdf.exe", "application/pdf"),
        ("a.png.svg", "image/png"),
        ("png", "image/png"),
        (".png", "image/png"),
        ("a.", "image/png"),
        ("a.png", "image"),
        ("a.png", "text/html;image/png"),
        ("a.png", "image/png;\x00"),
        ("a.png", "image/pñg"),
        ("a.png", "image/png, text/html"),
        ("a.png", "image/png\r\nX: y"),
        ("a.png", "image/" + "p" * 200),
        ("a.рng", "image/png"),  # a Cyrillic letter
        ("a.docm", "application/vnd.ms-word.document.macroEnabled.12"),
    ],
)
def test_what_is_not_in_the_table_is_refused(name: str, content_type: str) -> None:
    with pytest.raises(UnsupportedType) as refused:
        rules.accept(name, content_type, 1)
    assert refused.value.code == "asset.type_not_allowed"
    assert refused.value.status == 415


@pytest.mark.parametrize("content_type", ["IMAGE/PNG", " image/png ", "Image/Png"])
def test_a_types_case_does_not_matter_and_is_stored_in_one_way(content_type: str) -> None:
    assert rules.accept("a.png", content_type, 1).content_type == "image/png"


# What browsers and devices send for a file of this extension, and what it becomes.
ANNOUNCED = [
    ("jpg", "image/jpg", "image/jpeg"),
    ("jpeg", "image/pjpeg", "image/jpeg"),
    ("png", "image/x-png", "image/png"),
    ("heic", "image/heif", "image/heic"),
    ("heic", "", "image/heic"),  # Chrome on Windows
    ("heif", "image/heic", "image/heif"),
    ("heic", "image/heic-sequence", "image/heic"),
    ("csv", "application/vnd.ms-excel", "text/csv"),  # Windows with Excel
    ("csv", "text/comma-separated-values", "text/csv"),  # Android
    ("csv", "text/csv;charset=utf-8", "text/csv"),
    ("csv", "text/plain", "text/csv"),
    ("txt", 'text/plain; charset="windows-1256"', "text/plain"),
    ("zip", "application/x-zip-compressed", "application/zip"),  # Windows
    ("wav", "audio/x-wav", "audio/wav"),  # Firefox
    ("mp3", "audio/mp3", "audio/mpeg"),
    ("m4a", "audio/x-m4a", "audio/mp4"),  # Chrome, Safari
    ("m4a", "audio/mpeg", "audio/mp4"),  # Android
    ("aac", "audio/vnd.dlna.adts", "audio/aac"),  # Windows
    ("ogg", "video/ogg", "audio/ogg"),  # Firefox
    ("ogg", "application/ogg", "audio/ogg"),
    ("ogg", "audio/ogg;codecs=opus", "audio/ogg"),  # MediaRecorder in Firefox
    ("webm", "video/webm;codecs=vp8,opus", "video/webm"),  # MediaRecorder in Chrome
    ("mov", "video/quicktime", "video/quicktime"),
    ("mp4", "video/mp4;codecs=avc1.42E01E", "video/mp4"),
    ("docx", "application/wps-office.docx", f"{OFFICE}.wordprocessingml.document"),
    ("xlsx", "application/octet-stream", f"{OFFICE}.spreadsheetml.sheet"),
    ("pdf", "application/x-pdf", "application/pdf"),
    ("pdf", "application/force-download", "application/pdf"),
    ("png", "", "image/png"),
    ("png", None, "image/png"),
    ("png", "APPLICATION/Octet-Stream", "image/png"),
]


@pytest.mark.parametrize(("last", "announced", "stored"), ANNOUNCED)
def test_the_extension_chooses_the_type_whatever_a_browser_calls_it(
    last: str, announced: str | None, stored: str
) -> None:
    assert rules.accept(f"a.{last}", announced, 1).content_type == stored


def test_an_alias_belongs_to_a_known_extension_and_is_no_type_of_its_own() -> None:
    for last, aliases in ALIASES.items():
        assert not set(aliases) & set(rules.TYPES.get(last, ())), last
        assert len(set(aliases)) == len(aliases), last
        assert all(alias == alias.lower() and alias.count("/") == 1 for alias in aliases)


def test_an_extension_of_two_categories_belongs_to_the_one_its_type_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(rules.TYPES, "webm", ("video/webm", "audio/webm"))
    both = {"video": ("webm",), "audio": ("webm",)}
    sizes = {"video": 100, "audio": 10}
    for announced, stored, limit in (
        ("video/webm", "video/webm", 100),
        ("", "video/webm", 100),
        ("audio/webm;codecs=opus", "audio/webm", 10),
    ):
        found = rules.accept("a.webm", announced, limit, allowed=both, max_bytes=sizes)
        assert found.content_type == stored
        assert not accepts("a.webm", announced, limit + 1, allowed=both, max_bytes=sizes)
    only_audio = {"audio": ("webm",)}
    assert rules.accept("a.webm", "", 1, allowed=only_audio).content_type == "audio/webm"
    assert not accepts("a.webm", "video/webm", 1, allowed=only_audio)


def test_a_refusal_names_the_field_that_is_wrong() -> None:
    with pytest.raises(UnsupportedType) as refused:
        rules.accept("a.png", "text/html", 1)
    assert refused.value.errors == [{"field": "contentType", "message": "must be image/png"}]
    assert refused.value.code == "asset.type_not_allowed"
    with pytest.raises(UnsupportedType) as refused:
        rules.accept("a.exe", "image/png", 1)
    assert refused.value.errors == [
        {"field": "filename", "message": "this extension is not accepted"}
    ]
    sizes = {"video": 5}
    with pytest.raises(UnsupportedType) as refused:
        rules.accept("a.png", "image/png", 1, max_bytes=sizes)
    assert refused.value.code == "asset.type_not_allowed"


def test_only_a_text_may_be_empty() -> None:
    assert rules.accept("a.csv", "text/csv", 0).content_type == "text/csv"
    assert rules.accept("a.txt", "text/plain", 0).content_type == "text/plain"
    with pytest.raises(Invalid) as refused:
        rules.accept("a.png", "image/png", 0)
    assert refused.value.errors == [{"field": "size", "message": "must be at least 1"}]


def accepts(name: str, content_type: str | None, size: int, **tables: object) -> bool:
    try:
        rules.accept(name, content_type, size, **tables)  # type: ignore[arg-type]
    except KyoraError:
        return False
    return True


def test_tables_given_replace_the_built_in_ones_as_a_whole() -> None:
    only_png = {"image": ("png",)}
    assert accepts("a.png", "image/png", 10 * MIB, allowed=only_png)
    assert not accepts("a.jpg", "image/jpeg", 1, allowed=only_png)
    assert not accepts("a.pdf", "application/pdf", 1, allowed=only_png)
    assert not accepts("a.png", "image/png", 1, allowed={})
    assert accepts("a.png", "image/png", 30 * MIB, max_bytes={"image": 30 * MIB})
    assert not accepts("a.png", "image/png", 6, max_bytes={"image": 5})
    assert not accepts("a.pdf", "application/pdf", 1, max_bytes={"image": 5})


def test_a_table_cannot_allow_what_no_one_can_check() -> None:
    for last in ("svg", "html", "exe", ""):
        assert not accepts(f"a.{last}", "image/svg+xml", 1, allowed={"image": (last,)})


@given(st.text(max_size=40), st.text(max_size=40), st.integers())
def test_anything_is_accepted_or_refused_and_nothing_else(
    name: str, content_type: str, size: int
) -> None:
    accepts(name, content_type, size)
