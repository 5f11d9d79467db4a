"""A rotated secret takes effect without a deploy: what refuses the old one is asked with the new.

The secrets are in a Secrets Manager of the test's. Postgres is in test_postgres.py, the keys of
access tokens in test_auth.py.
"""

import json
from collections.abc import Callable, Iterator

import pytest

from kyora import aws, config
from kyora.billing import stripe_client
from kyora.email import resend, resend_http
from kyora.email.message import Message, Refusal
from kyora.errors import ConfigError
from tests.integration.support import mail_queue
from tests.scripted import Answer, Request, Server, scripted

ARN = "arn:aws:secretsmanager:eu-west-1:000000000000:secret:"
OLD, NEW = "sk_test_old_one", "sk_test_new_one"  # a Resend key may look like anything
MESSAGE = Message("dana@example.com", "hello@kyora.example", "Hello", "<p>Hello</p>", "Hello\n")


class Vault:
    """Secrets Manager, whose every secret has one value at a time."""

    def __init__(self) -> None:
        self.value = OLD
        self.reads = 0

    def __call__(self, request: Request) -> Answer:
        assert request.headers["x-amz-target"] == "secretsmanager.GetSecretValue"
        self.reads += 1
        return Answer(body=json.dumps({"SecretString": self.value}).encode())


@pytest.fixture
def vault(database: str, environment: pytest.MonkeyPatch) -> Iterator[Vault]:
    found = Vault()
    with scripted(found) as server:
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        yield found
        if kept := aws._connections.pop(server.url, None):
            kept.close()


class Api:
    """Resend and Stripe at once, as far as a key goes: one is accepted."""

    def __init__(self) -> None:
        self.accepts = OLD
        self.server: Server

    def __call__(self, request: Request) -> Answer:
        if request.headers["authorization"] != f"Bearer {self.accepts}":
            refused = {"error": {"type": "invalid_request_error"}, "name": "invalid_api_key"}
            return Answer(401, json.dumps(refused).encode())
        return Answer(body=b'{"id": "taken"}', headers={"Content-Type": "application/json"})

    @property
    def keys(self) -> list[str]:
        return [r.headers["authorization"].removeprefix("Bearer ") for r in self.server.requests]


@pytest.fixture
def api(vault: Vault, environment: pytest.MonkeyPatch) -> Iterator[Api]:
    found = Api()
    with scripted(found) as found.server:
        for name, value in mail_queue.ENVIRONMENT.items():
            environment.setenv(name, value)
        for name in ("EMAIL_RESEND_API_KEY", "BILLING_STRIPE_API_KEY"):
            environment.delenv(name, raising=False)
            environment.setenv(f"{name}_ARN", ARN + name)
        environment.setenv("EMAIL_RESEND_BASE_URL", found.server.url)
        environment.setenv("BILLING_STRIPE_BASE_URL", found.server.url)
        config.forget()
        stripe_client._clients.clear()
        yield found
        for client in stripe_client._clients.values():
            client._requestor._client.close()
        stripe_client._clients.clear()
        while resend_http._connections:
            resend_http._connections.popitem()[1].close()


def send() -> str:
    return resend.Resend(config.email()).send(MESSAGE, "key-1").id


def ask() -> str:
    return str(stripe_client.call("get", "customers/cus_1").object["id"])


@pytest.mark.parametrize("use", [send, ask], ids=["resend", "stripe"])
def test_a_rotated_key_is_read_again_when_the_old_one_is_refused(
    use: Callable[[], str], api: Api, vault: Vault
) -> None:
    assert use() == "taken"
    api.accepts = vault.value = NEW
    assert use() == "taken", "the request in which it is found out is answered, too"
    assert api.keys == [OLD, OLD, NEW]
    assert use() == "taken"
    assert (api.keys[-1], vault.reads) == (NEW, 2)


@pytest.mark.parametrize(
    ("use", "refusal"), [(send, Refusal), (ask, ConfigError)], ids=["resend", "stripe"]
)
def test_a_key_that_is_refused_and_was_not_rotated_is_not_tried_again(
    use: Callable[[], str], refusal: type[Exception], api: Api, vault: Vault
) -> None:
    assert use() == "taken"
    api.accepts = NEW
    with pytest.raises(refusal):
        use()
    assert api.keys == [OLD, OLD]


@pytest.mark.parametrize("use", [send, ask], ids=["resend", "stripe"])
def test_a_secret_is_fetched_once_for_many_uses(
    use: Callable[[], str], api: Api, vault: Vault
) -> None:
    for _ in range(3):
        use()
    assert vault.reads == 1
