"""What a deploy says about a bucket that is not set up, with S3's own answers."""

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from kyora import config
from kyora.storage import bucket, s3
from tests.scripted import Answer, Request, scripted

XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
READY = {
    "notification": f"<NotificationConfiguration {XMLNS}><EventBridgeConfiguration/>"
    "</NotificationConfiguration>",
    "publicAccessBlock": f"<PublicAccessBlockConfiguration {XMLNS}>"
    + "".join(
        f"<{n}>true</{n}>"
        for n in (
            "BlockPublicAcls",
            "IgnorePublicAcls",
            "BlockPublicPolicy",
            "RestrictPublicBuckets",
        )
    )
    + "</PublicAccessBlockConfiguration>",
    "lifecycle": f"<LifecycleConfiguration {XMLNS}><Rule><ID>x</ID><Status>Enabled</Status>"
    "<Filter><Prefix>incoming/</Prefix></Filter><Expiration><Days>1</Days></Expiration></Rule>"
    "<Rule><ID>y</ID><Status>Enabled</Status><Filter/><AbortIncompleteMultipartUpload>"
    "<DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>"
    "</LifecycleConfiguration>",
    "cors": f"<CORSConfiguration {XMLNS}><CORSRule><AllowedOrigin>https://app.example.com"
    "</AllowedOrigin><AllowedMethod>PUT</AllowedMethod><AllowedMethod>GET</AllowedMethod>"
    "<AllowedHeader>Content-Type</AllowedHeader><AllowedHeader>if-none-match</AllowedHeader>"
    "<AllowedHeader>x-amz-*</AllowedHeader><ExposeHeader>ETag</ExposeHeader></CORSRule></CORSConfiguration>",
}
UNSET = {
    "lifecycle": "NoSuchLifecycleConfiguration",
    "cors": "NoSuchCORSConfiguration",
    "publicAccessBlock": "NoSuchPublicAccessBlockConfiguration",
}
ABORT = "AbortIncompleteMultipartUpload for incoming/"
SAID = {
    "notification": ["sends no events to EventBridge"],
    "publicAccessBlock": ["does not block public access"],
    "lifecycle": ["no lifecycle rule for incoming/", ABORT],
    "cors": ["takes no upload from pages of https://app.example.com"],
}

type Looks = Callable[[dict[str, str | None]], list[str]]


def answer(found: dict[str, str | None]) -> Callable[[Request], Answer]:
    def answering(request: Request) -> Answer:
        what = urlsplit(request.path).query.partition("=")[0]
        body = found.get(what, READY[what])
        if body is None:
            code = UNSET[what]
            return Answer(404, f"<Error><Code>{code}</Code></Error>".encode())
        return Answer(403 if "AccessDenied" in body else 200, body.encode())

    return answering


@pytest.fixture
def looks(environment: pytest.MonkeyPatch) -> Looks:
    """Look at a bucket that differs from a ready one in these answers."""
    environment.setenv("STAGE", "dev")
    environment.setenv("APP_BASE_URL", "https://app.example.com")
    environment.setenv("STORAGE_PROVIDER", "s3")
    environment.setenv("STORAGE_S3_BUCKET", "files")
    environment.setenv("STORAGE_S3_ADDRESSING_STYLE", "path")
    environment.setenv("CORS_ORIGINS", "https://app.example.com")

    def look(found: dict[str, str | None]) -> list[str]:
        with scripted(answer(found)) as server:
            environment.setenv("AWS_ENDPOINT_URL", server.url)
            config.forget()
            client = s3.connect(config.storage())
            return bucket.faults(client, config.storage().s3_bucket, config.cors_origins())

    return look


def test_a_bucket_as_the_template_makes_it_is_ready(looks: Looks) -> None:
    assert looks({}) == []


@pytest.mark.parametrize("what", SAID)
def test_a_bucket_that_nothing_was_set_on_is_reported(what: str, looks: Looks) -> None:
    empty = None if what in UNSET else f"<NotificationConfiguration {XMLNS}/>"
    found = looks({what: empty})
    assert len(found) == len(SAID[what])
    for fault, said in zip(found, SAID[what], strict=True):
        assert fault.startswith("bucket files ")
        assert said in fault


@pytest.mark.parametrize(
    ("what", "damage", "said"),
    [
        ("lifecycle", ("incoming/", "logs/"), "no lifecycle rule for incoming/"),
        ("lifecycle", ("<Days>1", "<Days>0"), "no lifecycle rule for incoming/"),
        ("lifecycle", ("y</ID><Status>Enabled", "y</ID><Status>Disabled"), ABORT),
        ("lifecycle", ("<Filter/>", "<Filter><Prefix>logs/</Prefix></Filter>"), ABORT),
        ("lifecycle", ("<Filter/>", "<Filter><Prefix>incoming/ws_1/</Prefix></Filter>"), ABORT),
        ("lifecycle", ("<Filter/>", "<Filter><Tag><Key>a</Key></Tag></Filter>"), ABORT),
        ("lifecycle", ("AbortIncompleteMultipartUpload", "Other"), ABORT),
        ("cors", ("https://app.example.com", "https://other.example.com"), "takes no upload from"),
        ("cors", ("<AllowedMethod>PUT</AllowedMethod>", ""), "allows PUT"),
        ("cors", ("if-none-match", "x-other"), "if-none-match"),
        ("cors", ("x-amz-*", "x-amz-acl"), "x-amz-checksum-sha256"),
        ("cors", ("<ExposeHeader>ETag</ExposeHeader>", ""), "lacks ETag in ExposeHeaders"),
        ("cors", ("ETag", "x-amz-id-2"), "takes no upload in parts from pages of https://app"),
        (
            "publicAccessBlock",
            ("<BlockPublicPolicy>true", "<BlockPublicPolicy>false"),
            "does not block public access",
        ),
    ],
)
def test_half_of_it_is_not_ready(
    what: str, damage: tuple[str, str], said: str, looks: Looks
) -> None:
    assert damage[0] in READY[what]
    [fault] = looks({what: READY[what].replace(*damage)})
    assert said in fault


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("lifecycle", ("<Filter/>", "")),
        ("lifecycle", ("<Filter/>", "<Prefix/>")),
        ("lifecycle", ("<Filter/>", "<Filter><Prefix>incoming/</Prefix></Filter>")),
        ("cors", ("https://app", "https://*")),
        ("cors", ("https://app.example.com", "*")),
        ("cors", ("<AllowedHeader>x-amz-*", "<AllowedHeader>*")),
        ("cors", ("ETag", "etag")),
    ],
)
def test_the_same_said_in_another_way_is_ready(
    what: str, change: tuple[str, str], looks: Looks
) -> None:
    assert change[0] in READY[what]
    assert looks({what: READY[what].replace(*change)}) == []


def test_the_first_cors_rule_that_fits_must_expose_the_etag(looks: Looks) -> None:
    rule = READY["cors"].partition("<CORSRule>")[2].partition("</CORSRules>")[0]
    blind = "<CORSRule>" + rule.partition("</CORSRule>")[0].replace("ETag", "Date") + "</CORSRule>"
    [fault] = looks({"cors": READY["cors"].replace("<CORSRule>", blind + "<CORSRule>")})
    assert "lacks ETag in ExposeHeaders" in fault


def test_a_bucket_that_may_not_be_looked_at_is_no_ready_one(looks: Looks) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        looks({"cors": "<Error><Code>AccessDenied</Code></Error>"})


def test_every_fault_is_reported_at_once(environment: pytest.MonkeyPatch, looks: Looks) -> None:
    looks({})
    everything: dict[str, str | None] = dict.fromkeys(UNSET)
    everything["notification"] = f"<NotificationConfiguration {XMLNS}/>"
    with scripted(answer(everything)) as server:
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(bucket.BucketNotReady) as refused:
            bucket.check()
    assert all(said in str(refused.value) for every in SAID.values() for said in every)


@pytest.mark.parametrize(
    ("name", "value"), [("STORAGE_S3_ENDPOINT", "https://127.0.0.1:9"), ("STAGE", "local")]
)
def test_another_store_is_not_looked_at(
    name: str, value: str, environment: pytest.MonkeyPatch, looks: Looks
) -> None:
    looks({})
    environment.setenv(name, value)
    config.forget()
    bucket.check()
