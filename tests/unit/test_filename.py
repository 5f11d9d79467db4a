"""File names as people and attackers give them."""

import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from kyora.assets import filename

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=400)
AWKWARD = st.text(
    st.sampled_from("./\\ \u200b\u202e\u2066\u061c\ufeffaé\u0301\u0338e*کعم😀conCONprn0:-_"),
    max_size=300,
)
BIDI = {
    letter
    for letter in map(chr, range(0x110000))
    if unicodedata.bidirectional(letter)
    in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
} | {"\u200e", "\u200f", "\u061c"}


@given(NAMES | AWKWARD)
@example("a" * 300)
@example("a." * 200)
@example("a" * 254 + "." + "b" * 40)
@example("a\u200b\u0301.png")
@example("." + "ب" * 200 + ". .png")
@example("İ" * 130 + ".PNG")
def test_a_clean_name_is_safe_and_cleaning_it_again_changes_nothing(name: str) -> None:
    clean = filename.clean(name)
    assert 0 < len(clean.encode()) <= 255
    assert not set(clean) & (BIDI | set("/\\\0\r\n"))
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in clean)
    assert clean == clean.strip(". ")
    assert unicodedata.is_normalized("NFC", clean)
    assert filename.clean(clean) == clean


@given(
    AWKWARD
    | st.text(st.sampled_from("می\u200c\u200dक\u094d👩💻\ufe0f\u212a\u0301 .aA/é"), max_size=90)
)
def test_a_joiner_stands_between_two_letters_of_a_script_that_joins(name: str) -> None:
    clean = f" {filename.clean(name)} "
    for before, letter, after in zip(clean, clean[1:], clean[2:], strict=False):
        if letter in "\u200c\u200d":
            assert not (before + after).isascii()
            assert not {before, after} & set(" .\u200c\u200d")


@given(
    st.text(
        st.characters(categories=["L", "N"], codec="utf-8") | st.sampled_from(" ._-"),
        min_size=1,
        max_size=400,
    ),
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=15),
)
def test_the_extension_survives_whatever_is_cut(stem: str, last: str) -> None:
    assume(stem.strip(". "))
    assert filename.extension(filename.clean(f"{stem}.{last}")) == last.lower()


@given(NAMES, st.sampled_from("\x00\x01\n\r\t\x1b\x7f\x85\x9f\u2028\u2029\ud800\udfff"), NAMES)
def test_control_characters_and_half_characters_are_refused(
    before: str, bad: str, after: str
) -> None:
    with pytest.raises(ValueError, match="control characters"):
        filename.clean(before + bad + after)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\x.png", "x.png"),
        ("/etc/x", "x"),
        ("C:\\Users\\x.pdf", "x.pdf"),
        ("a/", "file"),
        ("\u202egpj.exe", "gpj.exe"),
        ("photo\u202egnp.exe", "photognp.exe"),
        ("in\u200bvoice.pdf", "invoice.pdf"),
        ("\ufeffa.png", "a.png"),
        ("cafe\u0301.png", "café.png"),
        ("café.png", "café.png"),
        ("", "file"),
        (".", "file"),
        ("..", "file"),
        ("...", "file"),
        ("   ", "file"),
        ("\u200b\u200d", "file"),
        ("می\u200cکنم.pdf", "می\u200cکنم.pdf"),
        ("क्\u200dष.png", "क्\u200dष.png"),
        ("👩\u200d💻.png", "👩\u200d💻.png"),
        ("❤\ufe0f\u200d🔥.png", "❤\ufe0f\u200d🔥.png"),
        ("in\u200cvoi\u200dce.pdf", "invoice.pdf"),
        ("c\u200don.png", "_con.png"),
        ("\u200cمی\u200c.pdf", "می.pdf"),
        ("می\u200c\u200cخ.pdf", "میخ.pdf"),
        ("a.p\u200dng", "a.png"),
        (". . .", "file"),
        ("  a   b .png ", "a b .png"),
        ("a\u00a0\u3000b.png", "a b.png"),
        ("CON.png", "_CON.png"),
        ("aux.pdf", "_aux.pdf"),
        ("nul", "_nul"),
        ("Com1.txt", "_Com1.txt"),
        ("console.png", "console.png"),
        ("c\u200bon.png", "_con.png"),
        ("a.pdf.exe", "a.pdf.exe"),
        ("a.php.png", "a.php.png"),
        ("README", "README"),
        (".htaccess", "htaccess"),
        ("a.png.", "a.png"),
        ("a.png. .", "a.png"),
        ("<script>.png", "<script>.png"),
        ('a";x="b.png', 'a";x="b.png'),
        ("سلسلة طويلة.pdf", "سلسلة طويلة.pdf"),
    ],
)
def test_names_of_the_abuse_list(name: str, expected: str) -> None:
    assert filename.clean(name) == expected


@pytest.mark.parametrize("letter", ["ب", "😀", "e", "é"])
def test_a_long_name_is_cut_on_a_characters_border(letter: str) -> None:
    clean = filename.clean(letter * 300 + ".JPEG")
    assert clean.endswith(f"{letter}.jpeg")
    assert 255 - len(letter.encode()) < len(clean.encode()) <= 255


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("a.PNG", "png"),
        ("a.tar.gz", "gz"),
        ("a.pdf.exe", "exe"),
        ("a", ""),
        (".png", ""),
        ("a.", ""),
        ("", ""),
        ("a.p ng", "p ng"),
    ],
)
def test_the_last_extension_counts(name: str, last: str) -> None:
    assert filename.extension(name) == last


CUT = {
    "as long as may be": ("a" * 251 + ".PNG", "a" * 251 + ".PNG"),
    "a byte longer": ("a" * 252 + ".PNG", "a" * 251 + ".png"),
    "with an extension of one": ("a" * 300 + ".c", "a" * 253 + ".c"),
    "with an extension that is shorter in lower case": (
        "a" * 240 + "." + "ẞ" * 5,
        "a" * 240 + "." + "ß" * 5,
    ),
    "with an extension of sixteen": ("a" * 300 + "." + "b" * 16, "a" * 238 + "." + "b" * 16),
    "with an extension of seventeen": ("a" * 300 + "." + "b" * 17, "a" * 255),
    "without an extension": ("a" * 256, "a" * 255),
    "in the middle of a letter": ("é" * 128, "é" * 127),
}


@pytest.mark.parametrize("name", CUT)
def test_a_name_is_cut_to_255_bytes_with_its_extension(name: str) -> None:
    given_, expected = CUT[name]
    assert filename.clean(given_) == expected
