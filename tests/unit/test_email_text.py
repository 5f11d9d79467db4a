"""Names and links from outside, on their way into a mail."""

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from kyora.email.text import LIMIT, LinkPolicy, SafeUrl, UserText, clean, shorten
from local.tools.email_samples import HOSTILE


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Dana Haddad", "Dana Haddad"),
        ("  Dana\t\n Haddad ", "Dana Haddad"),
        ("Eve\r\nBcc: all@example.net", "Eve Bcc: all@example.net"),
        ("a\u202eb\u2066c\u200bd\ufeffe\u061cf\x00g\x85h", "abcdefg h"),
        ("\u3164\u2800", ""),
        ("\ud800x", "x"),
        ("Cafe\u0301", "Café"),
        ("مُحَمَّد بن عبدُ ٱللَّٰه", "مُحَمَّد بن عبدُ ٱللَّٰه"),
        ("Z" + "\u0335\u0321\u031b\u0359\u0308" * 9 + "a", "Za"),
        ("see https://evil.example now", "see evil.example now"),
        ("JAVASCRIPT://x", "x"),
        ("www.www.evil.example", "evil.example"),
        ("ht\u0335\u0321\u031b\u0359\u0308tp://x", "x"),
        ("O'Brien & Söhne <Ltd>", "O'Brien & Söhne <Ltd>"),
        ("x" * 200, "x" * 79 + "…"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # a Persian word: without it, another shape
        ("ශ්\u200dරී", "ශ්\u200dරී"),
        ("👨\u200d👩\u200d👧 shop", "👨\u200d👩\u200d👧 shop"),
        ("❤\ufe0f\u200d🔥", "❤\ufe0f\u200d🔥"),
        ("pay\u200cpal D\u200dan\u200ca", "paypal Dana"),
        ("\u200d\u200cمی\u200c\u200d\u200c خواهم\u200c", "می خواهم"),
        ("\u200c\u200d", ""),
        ("ا\u200c" * 60, "ا" + "\u200cا" * 38 + "…"),
    ],
)
def test_a_name_is_one_line_of_what_can_be_seen(given: str, shown: str) -> None:
    assert clean(given) == shown


@pytest.mark.parametrize("word", ["x" * 2000, "x." * 1000])
def test_a_long_word_takes_no_longer_than_many_short_ones(word: str) -> None:
    def taken(value: str) -> float:
        started = time.process_time()
        for _ in range(10):
            clean(value)
        return time.process_time() - started

    assert min(taken(word) for _ in range(3)) < 5 * min(taken("x y " * 500) for _ in range(3))


@given(st.text(st.characters(codec=None), max_size=300))
def test_any_text_becomes_harmless(value: str) -> None:
    found = clean(value)
    assert len(found) <= LIMIT
    joined = re.sub("(?<=[^\\x00-\\x7f])[\u200c\u200d](?=[^\\x00-\\x7f])", "", found)
    assert not {unicodedata.category(c) for c in joined} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    assert clean(found) == found
    assert found == " ".join(found.split())
    assert "://" not in found
    html = str(escape(UserText(value)))
    assert not re.search(r"<(?!/?(bdi|span)>)", html)
    for direction in ("ltr", "rtl"):
        shown = UserText(value).plain(direction).strip("\u2068\u2069")
        assert shown == found, "as it is"
        assert not re.search("[\u2066-\u2069\u202a-\u202e\x00-\x1f]", shown)


def test_a_mark_stays_with_its_letter() -> None:
    assert shorten("abcx\u0323\u0323d", 5) == "abc…"
    assert shorten("abcd", 4) == "abcd"


def test_a_name_is_escaped_and_isolated() -> None:
    assert str(escape(UserText("<b>&"))) == "<bdi>&lt;b&gt;&amp;</bdi>"
    assert str(escape(UserText(""))) == ""


def test_a_name_with_a_dot_is_no_link() -> None:
    assert str(escape(UserText("Prize.example"))) == "<bdi>Prize<span>.</span>example</bdi>"


@pytest.mark.parametrize("name", ["Booking.com", "v2.10", "Dr. J. Salem", "a.b.c", "3.14"])
def test_plain_text_has_names_as_they_were_typed(name: str) -> None:
    assert UserText(name).plain("ltr") == name


@pytest.mark.parametrize("attack", HOSTILE)
def test_cleaning_again_changes_nothing(attack: str) -> None:
    assert clean(clean(attack)) == clean(attack)


PROD = LinkPolicy("https://app.example.com")
LOCAL = LinkPolicy("http://127.0.0.1:8000", development=True)


@pytest.mark.parametrize(
    "link",
    [
        "https://app.example.com",
        "https://app.example.com/a?b=c&d=%20#e",
        "https://APP.example.com/",
    ],
)
def test_a_link_into_the_application_is_taken(link: str) -> None:
    assert PROD.check(link) == link
    assert isinstance(PROD.check(link), SafeUrl)


@pytest.mark.parametrize(
    "link",
    ["http://127.0.0.1:8000/x", "http://localhost:3000/x", "https://localhost/x"],
)
def test_plain_links_are_taken_on_this_machine_only(link: str) -> None:
    assert LOCAL.check(link) == link
    with pytest.raises(ValueError, match="must"):
        PROD.check(link)


@pytest.mark.parametrize(
    "link", ["http://192.168.0.1/x", "http://127.0.0.1.evil.example/", "ftp://127.0.0.1/"]
)
def test_development_is_no_excuse(link: str) -> None:
    with pytest.raises(ValueError, match="must"):
        LOCAL.check(link)


def test_other_hosts_are_named_one_by_one() -> None:
    hosts = frozenset({"invoice.stripe.com"})
    assert PROD.check("https://invoice.stripe.com/i/x", also=hosts)
    for link in (
        "https://stripe.com/",
        "https://invoice.stripe.com:1/",
        "http://invoice.stripe.com/",
    ):
        with pytest.raises(ValueError, match="must"):
            PROD.check(link, also=hosts)


def test_a_base_url_may_have_a_path() -> None:
    assert LinkPolicy("https://x.example/shop/").to("/billing") == "https://x.example/shop/billing"
