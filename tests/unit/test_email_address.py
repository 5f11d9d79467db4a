"""Addresses and headers: nothing in them ends a header, and nothing of them shows in a log."""

from email.headerregistry import Address
from email.parser import HeaderParser
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyora.email import address
from kyora.email.address import InvalidAddress
from kyora.email.message import Message, Refusal, check

LONGEST = "a" * 64 + "@" + "b" * 63 + "." + "c" * 63 + "." + "d" * 61  # 254 letters


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("dana@example.com", "dana@example.com"),
        (" dana@example.com ", "dana@example.com"),
        ("Dana.O'Neil+tag@Example.COM", "Dana.O'Neil+tag@example.com"),
        ("dana@example.com.", "dana@example.com"),
        ("dana@bücher.example", "dana@xn--bcher-kva.example"),
        ("dana@مثال.example", "dana@xn--mgbh0fb.example"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
        (LONGEST, LONGEST),
        # IDNA 2008: each of these is another domain than the one it resembles.
        ("reader@faß.example", "reader@xn--fa-hia.example"),
        ("reader@FAẞ.example", "reader@xn--fa-hia.example"),
        ("reader@βόλος.example", "reader@xn--nxasmm1c.example"),
        ("reader@نامه\u200cای.example", "reader@xn--mgba3gch31f060k.example"),
        ("reader@ශ්\u200dරී.example", "reader@xn--10cl1a0b660p.example"),
        ("reader@bücher。example", "reader@xn--bcher-kva.example"),
        ("reader@ＢÜCHER.example", "reader@xn--bcher-kva.example"),
    ],
)
def test_an_address_is_normalised(given: str, wanted: str) -> None:
    assert address.normalise(given) == wanted
    assert address.normalise(wanted) == wanted


@pytest.mark.parametrize(
    "given",
    [
        "",
        "dana",
        "@example.com",
        "dana@",
        "dana@localhost",
        "dana@example.com?",
        LONGEST + "a",
        "dana@example..com",
        "dana@-example.com",
        "dana@exa_mple.com",
        ".dana@example.com",
        "da..na@example.com",
        '"dana x"@example.com',
        "dana@@example.com",
        "dana@example.com\nBcc: eve@example.com",
        "dana\r\n@example.com",
        "Dana <dana@example.com>",
        "dana@example.com,eve@example.com",
        "دانا@example.com",
        "dana@exam\u202eple.com",
        "dana@exa\u200dmple.com",
        "dana@☃.example",
        "dana@xn--ü.example",
        "dana@\ud800.com",
        "dana\0@example.com",
        "dana@[127.0.0.1]",
        "a" * 65 + "@example.com",
        "dana@" + "a" * 64 + ".com",
        "dana@" + ("a" * 50 + ".") * 5 + "com",
    ],
)
def test_what_cannot_be_sent_to_is_refused(given: str) -> None:
    with pytest.raises(InvalidAddress):
        address.normalise(given)


@given(st.text(max_size=300) | st.from_regex(r"[a-zäب.+]{1,9}@[a-zäب.-]{1,20}"))
def test_what_passes_is_plain(text: str) -> None:
    try:
        found = address.normalise(text)
    except InvalidAddress:
        return
    assert found.isascii()
    assert found.isprintable()
    assert len(found) <= 254
    Address(addr_spec=found)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (" Dana@Example.COM ", "dana@example.com"),
        ("Dana@BÜCHER.example", "dana@xn--bcher-kva.example"),
        (" Not An Address ", "not an address"),
    ],
)
def test_a_suppression_is_found_however_its_address_is_typed(given: str, wanted: str) -> None:
    assert address.key_of(given) == wanted


def test_without_a_name_a_sender_is_its_address() -> None:
    assert address.sender("", "hello@kyora.example") == "hello@kyora.example"


@given(st.emails())
def test_a_masked_address_reveals_nothing(given: str) -> None:
    masked = address.mask(given)
    local, _, domain = given.rpartition("@")
    assert len(local) < 3 or local not in masked
    assert domain not in masked


@pytest.mark.parametrize(
    "name", ["Kyora", 'The "best", really', "كيورا", "a\\b", "Kyora (shop); x@y.example", ""]
)
def test_a_display_name_is_read_back_as_it_was(name: str) -> None:
    header = address.sender(name, "hello@kyora.example")
    parsed = HeaderParser(policy=default).parsestr(f"From: {header}\n\n")["from"].addresses
    assert [(a.display_name, a.addr_spec) for a in parsed] == [(name, "hello@kyora.example")]


def message(**changes: object) -> Message:
    found = {
        "recipient": "dana@example.com",
        "sender": '"Kyora" <hello@kyora.example>',
        "subject": "Hello",
        "html": "<p>Hello</p>",
        "text": "Hello",
        "tags": {"template": "welcome"},
    }
    return Message(**(found | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["recipient", "sender", "subject", "reply_to"])
@pytest.mark.parametrize("bad", ["\r\nBcc: eve@example.com", "\n", "\r", "\0", "\x85", "\u2028"])
def test_no_header_holds_a_line_break(field: str, bad: str) -> None:
    with pytest.raises(Refusal) as refused:
        check(message(**{field: "x@example.com" + bad}), "key")
    assert (refused.value.status, refused.value.name) == (422, "validation_error")


@pytest.mark.parametrize("key", ["", "a" * 257, "a b", "a\n", "clé"])
def test_a_key_is_plain(key: str) -> None:
    with pytest.raises(Refusal) as refused:
        check(message(), key)
    assert (refused.value.status, refused.value.name) == (400, "invalid_idempotency_key")


@pytest.mark.parametrize("field", ["recipient", "sender", "subject", "html", "text"])
def test_nothing_is_left_out(field: str) -> None:
    with pytest.raises(Refusal) as refused:
        check(message(**{field: ""}), "key")
    assert refused.value.name == "missing_required_field"


@pytest.mark.parametrize("tags", [{"a b": "c"}, {"a": "c d"}, {"a": ""}, {"a": "é"}])
def test_a_tag_is_plain(tags: dict[str, str]) -> None:
    with pytest.raises(Refusal):
        check(message(tags=tags), "key")


def test_emoji_made_of_several_characters_may_stand_in_a_subject() -> None:
    check(message(subject="Family 👨\u200d👩\u200d👧"), "key")
