"""Configuration of e-mail: every fault at once, secrets decoded strictly."""

import base64
import json

import pytest

from kyora import config
from kyora.aws import AwsError
from kyora.config import Email, Section
from kyora.errors import ConfigError

GOOD = {
    "STAGE": "prod",
    "APP_BASE_URL": "https://app.kyora.example",
    "EMAIL_RESEND_API_KEY": "re_123",
    "EMAIL_FROM_EMAIL": "hello@kyora.example",
    "EMAIL_SUPPORT_EMAIL": "support@kyora.example",
}
KEY = b"a key of at least sixteen bytes"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def no_secret(arn: str) -> str:
    raise AwsError(400, "ResourceNotFoundException")


def load(environ: dict[str, str]) -> Email:
    return config.load(config.email, environ, no_secret)


def keys(environ: dict[str, str]) -> tuple[bytes, ...]:
    return config.load(config.resend_webhook_keys, environ, no_secret)


def faults(environ: dict[str, str], section: Section[object] = config.email) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        config.load(section, environ, no_secret)
    return refused.value.faults


def test_production_sends_through_resend() -> None:
    found = load(GOOD)
    assert (found.provider, found.resend_api_key) == ("resend", "re_123")
    assert found.resend_base_url == "https://api.resend.com"
    assert (found.from_email, found.from_name) == ("hello@kyora.example", "Kyora")
    assert found.support_email == "support@kyora.example"


@pytest.mark.parametrize("stage", ["local", "test"])
def test_development_keeps_mail_and_needs_no_key(stage: str) -> None:
    found = load({"STAGE": stage, "APP_BASE_URL": "http://127.0.0.1:8000"})
    assert found.provider == "mock"
    assert found.from_email
    assert found.support_email


@pytest.mark.parametrize("stage", ["dev", "staging", "prod"])
def test_elsewhere_everything_is_asked_for_at_once(stage: str) -> None:
    assert faults({"STAGE": stage}) == [
        "APP_BASE_URL is not set",
        "EMAIL_FROM_EMAIL is not set",
        "EMAIL_RESEND_API_KEY (or EMAIL_RESEND_API_KEY_ARN) is not set",
        "EMAIL_SUPPORT_EMAIL is not set",
    ]


def test_production_refuses_the_mock() -> None:
    assert faults(GOOD | {"EMAIL_PROVIDER": "mock"}) == ["EMAIL_PROVIDER=mock is refused in prod"]
    assert load(GOOD | {"STAGE": "staging", "EMAIL_PROVIDER": "mock"}).provider == "mock"


def test_the_address_of_resend_can_be_another_one() -> None:
    there = GOOD | {"EMAIL_RESEND_BASE_URL": "https://resend.example/v1/"}
    assert load(there).resend_base_url == "https://resend.example/v1"
    plain = {"EMAIL_RESEND_BASE_URL": "http://127.0.0.1:1"}
    assert faults(GOOD | plain) == ["EMAIL_RESEND_BASE_URL must be an https URL"]
    local = GOOD | plain | {"STAGE": "local", "EMAIL_PROVIDER": "resend"}
    assert load(local).resend_base_url == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"EMAIL_PROVIDER": "smtp"}, "EMAIL_PROVIDER must be one of resend, mock"),
        ({"EMAIL_FROM_EMAIL": "kyora"}, "EMAIL_FROM_EMAIL must be a plain ASCII e-mail address"),
        (
            {"EMAIL_FROM_EMAIL": "a@b.example\r\nBcc: c@d.example"},
            "EMAIL_FROM_EMAIL must be a plain ASCII e-mail address",
        ),
        (
            {"EMAIL_SUPPORT_EMAIL": "Kyora <a@b.example>"},
            "EMAIL_SUPPORT_EMAIL must be a plain ASCII e-mail address",
        ),
        (
            {"EMAIL_FROM_NAME": "Kyora\nBcc: c@d.example"},
            "EMAIL_FROM_NAME must be at most 64 printable characters",
        ),
        (
            {"EMAIL_FROM_NAME": "Kyora \u202e"},
            "EMAIL_FROM_NAME must be at most 64 printable characters",
        ),
        (
            {"EMAIL_FROM_NAME": "K" * 65},
            "EMAIL_FROM_NAME must be at most 64 printable characters",
        ),
        (
            {"EMAIL_RESEND_API_KEY": "re_1\nX-Header: 2"},
            "EMAIL_RESEND_API_KEY must be printable ASCII without blanks",
        ),
        ({"APP_BASE_URL": "http://app.kyora.example"}, "APP_BASE_URL must be an https URL"),
        (
            {"EMAIL_RESEND_API_KEY": "", "EMAIL_RESEND_API_KEY_ARN": "arn:aws:x"},
            "EMAIL_RESEND_API_KEY_ARN cannot be read (ResourceNotFoundException)",
        ),
    ],
)
def test_a_fault_is_named(change: dict[str, str], fault: str) -> None:
    assert fault in faults(GOOD | change)


def test_without_a_secret_the_webhook_is_closed() -> None:
    assert keys({}) == ()


def test_secrets_of_the_webhook_are_decoded_once() -> None:
    environ = {"EMAIL_RESEND_WEBHOOK_SECRET": SECRET + "\n"}
    assert keys(environ) == (KEY,)
    other = "whsec_" + base64.b64encode(b"0123456789abcdef").decode()
    both = {"EMAIL_RESEND_WEBHOOK_SECRET": json.dumps([SECRET, other])}
    assert keys(both) == (KEY, b"0123456789abcdef")


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_",
        "whsec_====",
        "whsec_!!!!",
        "whsec_" + base64.b64encode(b"fifteen bytes..").decode(),
        SECRET.removeprefix("whsec_"),
        SECRET + "!",
        SECRET[:10] + "\n" + SECRET[10:],
        "x" + SECRET,
        SECRET.rstrip("="),
        json.dumps([SECRET, "whsec_"]),
        "whsec_" + "ä" * 32,
    ],
)
def test_a_malformed_secret_is_a_fault_at_the_start(secret: str) -> None:
    environ = {"EMAIL_RESEND_WEBHOOK_SECRET": secret}
    assert faults(environ, config.resend_webhook_keys) == [
        "EMAIL_RESEND_WEBHOOK_SECRET must be whsec_ and the base64 of at least 16 bytes"
    ]
