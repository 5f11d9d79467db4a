"""Configuration: every fault at once, secrets by ARN, nothing read at import."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kyora import aws, config
from kyora.aws import AwsError
from kyora.config import Section
from kyora.errors import ConfigError, Unavailable
from tests.scripted import Answer, in_turn, scripted

ROOT = Path(__file__).parents[2]
EVERYTHING: tuple[Section[Any], ...] = (
    config.auth,
    config.bus_name,
    config.database_url,
    config.storage,
    config.uploads,
    config.app_base_url,
    config.schedule_minutes,
)
GOOD = {
    "STAGE": "prod",
    "DATABASE_URL": "postgresql://u:p@db.example/kyora",
    "AUTH_JWT_SECRET": "a secret of at least thirty-two bytes",
    "STORAGE_S3_BUCKET": "kyora-prod",
    "STORAGE_S3_REGION": "eu-west-1",
    "BUS_NAME": "kyora-prod",
    "APP_BASE_URL": "https://app.example.com",
}
ISSUER = {
    "AUTH_JWKS_URL": "https://id.example/jwks.json",
    "AUTH_ISSUER": "https://id.example/",
    "AUTH_AUDIENCE": "kyora",
}


def no_secrets(arn: str) -> str:
    raise AwsError(400, "ResourceNotFoundException")


def load[T](
    section: Section[T], environ: dict[str, str], secret: Callable[[str], str] = no_secrets
) -> T:
    return config.load(section, environ, secret)


def accept(environ: dict[str, str]) -> None:
    for section in EVERYTHING:
        load(section, environ)


def faults(environ: dict[str, str], *sections: Section[Any]) -> list[str]:
    """What a function that uses these sections refuses to start with."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConfigError) as refused:
        patch.setattr(os, "environ", environ)
        patch.setattr(aws, "secret", no_secrets)
        config.forget()
        config.require(*(sections or EVERYTHING))
    config.forget()
    return refused.value.faults


def test_a_complete_production_configuration_is_accepted() -> None:
    accept(GOOD)
    assert load(config.database_url, GOOD) == GOOD["DATABASE_URL"]
    assert load(config.auth, GOOD).jwt_secrets == (GOOD["AUTH_JWT_SECRET"],)
    assert load(config.storage, GOOD).s3_bucket == GOOD["STORAGE_S3_BUCKET"]
    assert load(config.stage, GOOD) == "prod"


def test_every_fault_is_named_at_once() -> None:
    assert faults({"STAGE": "production", "LOG_LEVEL": "LOUD", "UPLOADS_ALLOWED": "png"}) == [
        "APP_BASE_URL is not set",
        "AUTH_JWT_SECRET (or AUTH_JWT_SECRET_ARN) or AUTH_JWKS_URL is not set",
        "BUS_NAME is not set",
        "DATABASE_URL (or DATABASE_URL_ARN) is not set",
        "LOG_LEVEL must be one of DEBUG, INFO, WARNING, ERROR",
        "STAGE must be one of local, test, dev, staging, prod",
        "STORAGE_S3_BUCKET is not set",
        "STORAGE_S3_REGION is not set",
        "UPLOADS_ALLOWED must be a JSON object by category (docs/configuration.md)",
    ]


def test_a_function_is_asked_only_for_the_sections_it_needs() -> None:
    database = {"DATABASE_URL": "postgresql:///x"}
    assert load(config.bus_name, {"BUS_NAME": "b"}) == "b"
    assert load(config.database_url, database) == "postgresql:///x"
    assert faults(database, config.database_url, config.bus_name) == ["BUS_NAME is not set"]


@pytest.mark.parametrize(
    ("section", "defaults"),
    [
        (config.storage, {"provider": "s3", "max_bytes": None, "s3_endpoint": ""}),
        (config.uploads, {"allowed": None, "macros": False, "passwords": True}),
        (config.auth, {"jwks_url": "", "issuer": "", "audience": ""}),
        (config.billing, {"auto_sync_plans": True, "grace_days": 7, "free_plan": ""}),
        (config.cache, {"provider": "none", "memcached_servers": ()}),
        (config.email, {"provider": "mock"}),
    ],
)
def test_defaults_are_those_of_the_documentation(
    section: Section[Any], defaults: dict[str, object]
) -> None:
    environ = {name: value for name, value in GOOD.items() if name != "STAGE"}
    found = load(section, environ)
    assert {name: getattr(found, name) for name in defaults} == defaults
    assert load(config.stage, environ) == "local"
    folder = load(config.storage, environ | {"STORAGE_PROVIDER": "local"}).local_path
    assert folder == "./tmp/assets"


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        ("auth", config.Auth),
        ("storage", config.Storage),
        ("uploads", config.Uploads),
        ("email", config.Email),
        ("billing", config.Billing),
        ("cache", config.Cache),
    ],
)
def test_a_field_is_named_as_its_key(section: str, fields: type[tuple[Any, ...]]) -> None:
    code = (ROOT / "layers/kyora/kyora/config.py").read_text()
    variables = set(re.findall(r'"([A-Z][A-Z0-9_]+)"', code))
    for field in fields._fields:  # type: ignore[attr-defined]
        own, whole = f"{section}_{field}".upper(), field.upper()
        assert {own, own.removesuffix("S"), whole} & variables, field


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    empty = dict.fromkeys(
        ("LOG_LEVEL", "STORAGE_PROVIDER", "STORAGE_S3_ADDRESSING_STYLE", "STORAGE_MAX_BYTES"), " "
    )
    for section in EVERYTHING:
        assert load(section, GOOD | empty) == load(section, GOOD)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"STORAGE_PROVIDER": "local", "APP_BASE_URL": "https://app"}, "STORAGE_PROVIDER=local is"),
        ({"STORAGE_PROVIDER": "mock"}, "STORAGE_PROVIDER must be one of"),
        ({"APP_BASE_URL": "http://app.example.com"}, "APP_BASE_URL must be an https URL"),
        (ISSUER | {"AUTH_JWKS_URL": "http://id.example/jwks"}, "AUTH_JWKS_URL must be an https"),
        (ISSUER | {"AUTH_JWKS_URL": "file:///etc/passwd"}, "AUTH_JWKS_URL must be an https URL"),
        (ISSUER | {"AUTH_ISSUER": ""}, "AUTH_ISSUER is not set, and AUTH_JWKS_URL is"),
        (ISSUER | {"AUTH_AUDIENCE": " "}, "AUTH_AUDIENCE is not set, and AUTH_JWKS_URL is"),
        ({"STORAGE_S3_ENDPOINT": "http://s3.example"}, "STORAGE_S3_ENDPOINT must be an https URL"),
        ({"DATABASE_URL": "mysql://db/x"}, "DATABASE_URL must be postgresql://"),
        ({"DATABASE_URL": "db.example"}, "DATABASE_URL must be postgresql://"),
        ({"DATABASE_URL": "postgresql://db:port/x"}, "DATABASE_URL has an invalid port"),
        ({"DATABASE_URL": "postgresql://[db/x"}, "DATABASE_URL has an invalid host"),
        ({"AUTH_JWT_SECRET": "short"}, "AUTH_JWT_SECRET must have at least 32 bytes"),
        ({"AUTH_JWT_SECRET": f'["{"x" * 32}", "short"]'}, "AUTH_JWT_SECRET must have at least"),
        ({"AUTH_JWT_SECRET": "[]"}, "AUTH_JWT_SECRET (or AUTH_JWT_SECRET_ARN) or AUTH_JWKS_URL"),
        ({"AUTH_JWT_SECRET": "[1]"}, "AUTH_JWT_SECRET must be a text or a JSON list"),
        ({"AUTH_JWT_SECRET": '["'}, "AUTH_JWT_SECRET must be a text or a JSON list"),
        ({"STORAGE_S3_ADDRESSING_STYLE": "auto"}, "STORAGE_S3_ADDRESSING_STYLE must be one of"),
        ({"STORAGE_S3_ACCESS_KEY_ID": "k"}, "STORAGE_S3_SECRET_ACCESS_KEY (or STORAGE_S3_SECRET_"),
        ({"STORAGE_MAX_BYTES": '{"image": "10"}'}, "STORAGE_MAX_BYTES must be a JSON object"),
        ({"SCHEDULE_MINUTES": "2"}, "SCHEDULE_MINUTES must be one of 1, 5, 15, 60"),
        ({"UPLOADS_MACROS": "yes"}, "UPLOADS_MACROS must be one of allow, refuse"),
        ({"UPLOADS_PASSWORDS": "true"}, "UPLOADS_PASSWORDS must be one of allow, refuse"),
        ({"STORAGE_MAX_BYTES": '{"image": 0}'}, "STORAGE_MAX_BYTES must be a JSON object"),
        ({"STORAGE_MAX_BYTES": "[1]"}, "STORAGE_MAX_BYTES must be a JSON object"),
        ({"STORAGE_MAX_BYTES": '{"video": 5000000001}'}, "STORAGE_MAX_BYTES must be a JSON object"),
        ({"STORAGE_MAX_BYTES": '{"image": true}'}, "STORAGE_MAX_BYTES must be a JSON object"),
        ({"UPLOADS_ALLOWED": '{"image": "png"}'}, "UPLOADS_ALLOWED must be a JSON object"),
        ({"UPLOADS_ALLOWED": '{"image": [1]}'}, "UPLOADS_ALLOWED must be a JSON object"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stage", ["dev", "staging", "prod"])
def test_a_deployed_stage_refuses(change: dict[str, str], fault: str, stage: str) -> None:
    (found,) = faults(GOOD | change | {"STAGE": stage})
    assert found.startswith(fault)


ADDRESSES = ("APP_BASE_URL", "STORAGE_S3_ENDPOINT", "AUTH_JWKS_URL")


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("app.example.com", "must be an https URL"),
        ("HTTPS://app.example.com", "must be an https URL"),
        ("https:/app.example.com", "must be an https URL"),
        ("https://", "must be an https URL"),  # without its slashes nothing is left
        ("https:///path", "has no valid host"),
        ("https://متجر.example", "must be ASCII without blanks"),
        ("https://faß.example", "must be ASCII without blanks"),
        ("https://app.example.com/a b", "must be ASCII without blanks"),
        ("https://app.example.com\u200b", "must be ASCII without blanks"),
        ("https://app\n.example.com", "must be ASCII without blanks"),
        ("https://user:password@app.example.com", "must not hold a user or a password"),
        ("https://user@app.example.com", "must not hold a user or a password"),
        ("https://@app.example.com", "must not hold a user or a password"),
        ("https://app.example.com:99999", "has an invalid port"),
        ("https://app.example.com:0", "has an invalid port"),
        ("https://app.example.com:", "has an invalid port"),
        ("https://app.example.com:http", "has an invalid port"),
        ("https://[::1", "has no valid host"),
        ("https://[::g]", "has no valid host"),
        ("https://a..example", "has no valid host"),
        ("https://-a-.example", "has no valid host"),
        ("https://a,b.example", "has no valid host"),
        ("https://a%2eexample", "has no valid host"),
        ("https://app.example.com/#top", "must have no query and no fragment"),
        ("https://app.example.com/a\\b", "has an invalid character"),
        ('https://app.example.com/"', "has an invalid character"),
        ("https://app.example.com/<b>", "has an invalid character"),
    ],
)
def test_an_address_that_cannot_work_is_refused_with_its_reason(
    value: str, fault: str, name: str
) -> None:
    if name == "AUTH_JWKS_URL" and "query" in fault:
        fault = "has an invalid character"
    (found,) = faults(GOOD | ISSUER | {name: value})
    assert found.startswith(f"{name} {fault}")
    assert value not in found


@pytest.mark.parametrize(
    "value",
    [
        "https://app.example.com",
        "https://app.example.com/",
        "https://app.example.com:8443/shop",
        "https://xn--mgbai9azgqp6j.example",
        "https://10.0.0.1",
        "https://[2001:db8::1]:8443",
        "https://a_b.example",
        "https://app.example.com.",
        "https://localhost",
    ],
)
def test_an_address_that_works_is_accepted(value: str) -> None:
    assert load(config.app_base_url, GOOD | {"APP_BASE_URL": value}) == value.rstrip("/")


def test_a_query_breaks_the_links_of_mails_and_belongs_to_some_key_sets() -> None:
    for name in ("APP_BASE_URL", "STORAGE_S3_ENDPOINT"):
        assert faults(GOOD | {name: "https://a.example/?x=1"}) == [
            f"{name} must have no query and no fragment"
        ]
    jwks = "https://id.example/keys?p=B2C_1_signin"
    assert load(config.auth, GOOD | ISSUER | {"AUTH_JWKS_URL": jwks}).jwks_url == jwks


OWNER = {"DATABASE_OWNER_URL": "postgresql://owner:p@db.example/kyora"}


def test_the_owner_of_the_tables_is_asked_for_in_prod_only() -> None:
    assert faults(GOOD, config.database_owner_url) == [
        "DATABASE_OWNER_URL (or DATABASE_OWNER_URL_ARN) is not set"
    ]
    assert load(config.database_owner_url, GOOD | OWNER) == OWNER["DATABASE_OWNER_URL"]
    small = GOOD | {"STAGE": "dev"}
    assert load(config.database_owner_url, small) == GOOD["DATABASE_URL"]


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        (GOOD["DATABASE_URL"], "must name another role than DATABASE_URL"),
        ("postgresql://%75:other@elsewhere/kyora", "must name another role than DATABASE_URL"),
        ("mysql://owner@db/x", "must be postgresql://user:password@host:port/name"),
        ("postgresql://[db/x", "has an invalid host"),
        ("postgresql://owner@db/x?sslmode=disable", "must not weaken TLS outside local and test"),
    ],
)
@pytest.mark.parametrize("stage", ["dev", "staging", "prod"])
def test_an_address_of_the_owner_is_refused(url: str, fault: str, stage: str) -> None:
    environ = GOOD | {"STAGE": stage, "DATABASE_OWNER_URL": url}
    assert faults(environ, config.database_owner_url) == [f"DATABASE_OWNER_URL {fault}"]


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=disable",
        "sslmode=allow",
        "sslmode=prefer",
        "sslmode=%64isable",
    ],
)
def test_weak_tls_is_for_development_only(query: str) -> None:
    url = f"postgresql://u:p@db/x?{query}"
    assert faults(GOOD | {"DATABASE_URL": url}) == [
        "DATABASE_URL must not weaken TLS outside local and test"
    ]
    load(config.database_url, GOOD | {"DATABASE_URL": url, "STAGE": "local"})


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?sslmode=require",
        f"?sslmode=verify-full&sslrootcert={__file__}",
        "?sslmode=verify-full&sslrootcert=system",
        "?sslmode=require&channel_binding=require",
        "?options=endpoint%3Dep-1&connect_timeout=10&target_session_attrs=read-write",
    ],
)
def test_what_hosts_hand_out_is_accepted_and_verified(query: str) -> None:
    load(config.database_url, GOOD | {"DATABASE_URL": f"postgres://u:p@db:5432/x{query}"})


@pytest.mark.parametrize("stage", ["local", "test"])
def test_development_accepts_the_local_store_and_plain_addresses(stage: str) -> None:
    environ = GOOD | {
        "STAGE": stage,
        "STORAGE_PROVIDER": "local",
        "APP_BASE_URL": "http://127.0.0.1:8000/",
    }
    accept(environ | ISSUER | {"AUTH_JWKS_URL": "http://127.0.0.1/jwks"})
    found = load(config.storage, environ)
    assert found.app_base_url == "http://127.0.0.1:8000"
    assert found.auth_jwt_secret == GOOD["AUTH_JWT_SECRET"]


def test_the_tables_for_uploads_are_read() -> None:
    tables = {
        "STORAGE_MAX_BYTES": '{"image": 5}',
        "UPLOADS_ALLOWED": '{"image": [".PNG", "jpg"]}',
    }
    assert load(config.storage, GOOD | tables).max_bytes == {"image": 5}
    assert load(config.uploads, tables).allowed == {"image": ("png", "jpg")}


@pytest.mark.parametrize("policy", ["allow", "refuse"])
def test_the_policies_for_macros_and_passwords_are_read(policy: str) -> None:
    found = load(config.uploads, {"UPLOADS_MACROS": policy, "UPLOADS_PASSWORDS": policy})
    assert (found.macros, found.passwords) == (policy == "allow",) * 2


# ---- secrets


def test_a_secret_is_read_by_its_arn() -> None:
    environ = {"DATABASE_URL_ARN": "arn:1"}
    found = load(config.database_url, environ, lambda arn: f"postgresql://db/{arn[-1]}\n")
    assert found == "postgresql://db/1"


def test_a_value_wins_over_its_arn_and_nothing_is_fetched() -> None:
    load(config.database_url, GOOD | {"DATABASE_URL_ARN": "arn:1"}, no_secrets)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x" * 32, ("x" * 32,)),
        (f"{'x' * 16},{'y' * 16}", (f"{'x' * 16},{'y' * 16}",)),
        (json.dumps(["x" * 32, "y" * 32]), ("x" * 32, "y" * 32)),
        (f"  {'x' * 32}\n", ("x" * 32,)),
    ],
    ids=["one", "one with a comma", "a list", "a trailing newline"],
)
def test_a_secret_is_one_text_or_a_json_list(value: str, expected: tuple[str, ...]) -> None:
    assert load(config.auth, {"AUTH_JWT_SECRET": value}).jwt_secrets == expected
    arn = {"AUTH_JWT_SECRET_ARN": "arn"}
    assert load(config.auth, arn, lambda _: value).jwt_secrets == expected


@given(st.text(min_size=1).filter(lambda text: text.strip() and not text.strip().startswith("[")))
def test_any_other_text_is_one_secret_as_it_stands(text: str) -> None:
    environ = {"AUTH_JWT_SECRET": text + "x" * 32}
    assert load(config.auth, environ).jwt_secrets == ((text + "x" * 32).strip(),)


def test_no_value_of_a_variable_is_in_a_fault() -> None:
    environ = {
        "STAGE": "canary-7d1",
        "DATABASE_URL": "mysql://canary-7d1",
        "AUTH_JWT_SECRET": "[canary-7d1",
        "APP_BASE_URL": "canary-7d1",
        "STORAGE_PROVIDER": "canary-7d1",
        "UPLOADS_ALLOWED": "canary-7d1",
    }
    assert "canary" not in "".join(faults(environ))


@pytest.fixture
def fetched(environment: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment whose secrets come from the endpoint a test sets."""
    environment.delenv("AUTH_JWT_SECRET")
    environment.setenv("AUTH_JWT_SECRET_ARN", "arn:aws:secretsmanager:eu-west-1:1:secret:jwt")
    yield environment
    for connection in aws._connections.values():
        connection.close()
    aws._connections.clear()


def held(text: str) -> Answer:
    return Answer(body=json.dumps({"SecretString": text}).encode())


def test_secrets_manager_is_asked_once_and_again_after_five_minutes(
    fetched: pytest.MonkeyPatch,
) -> None:
    old, new = "o" * 32, "n" * 32
    with scripted(in_turn(held(old), held(json.dumps([new, old])))) as server:
        fetched.setenv("AWS_ENDPOINT_URL", server.url)
        for _ in range(3):
            assert config.auth().jwt_secrets == (old,)
        assert len(server.requests) == 1
        fetched.setattr(config, "_MAX_AGE", 0.0)
        assert config.auth().jwt_secrets == (new, old)


def test_no_secret_is_fetched_again_for_what_was_read(fetched: pytest.MonkeyPatch) -> None:
    fetched.setenv("DATABASE_URL", "postgresql:///x")
    with scripted(in_turn(held("o" * 32))) as server:
        fetched.setenv("AWS_ENDPOINT_URL", server.url)
        config.require(config.auth, config.database_url)
        config.require(config.auth, config.bus_name)
        assert config.auth().jwt_secrets == ("o" * 32,)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(400, b'{"__type": "ResourceNotFoundException"}'), "ResourceNotFoundException"),
        (Answer(400, b'{"__type": "AccessDeniedException"}'), "AccessDeniedException"),
        (Answer(body=b'{"SecretBinary": "AA=="}'), "NoSecretString"),
    ],
    ids=["unknown", "not allowed", "binary"],
)
def test_an_unreadable_secret_is_a_fault_with_its_name(
    answer: Answer, code: str, fetched: pytest.MonkeyPatch
) -> None:
    with scripted(in_turn(answer)) as server:
        fetched.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(ConfigError) as refused:
            config.auth()
    assert refused.value.faults == [f"AUTH_JWT_SECRET_ARN cannot be read ({code})"]


def test_secrets_manager_away_is_unavailable_at_first_and_harmless_later(
    fetched: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Unavailable):
        config.auth()
    with scripted(in_turn(held("o" * 32), Answer(500))) as server:
        fetched.setenv("AWS_ENDPOINT_URL", server.url)
        config.auth()
        fetched.setattr(config, "_MAX_AGE", 0.0)
        assert config.auth().jwt_secrets == ("o" * 32,)


@pytest.mark.parametrize("stage", ["local", "test"])
def test_a_stage_of_this_machine_refuses_to_run_on_aws(stage: str) -> None:
    """It is deployed: the database's connection would be in the clear."""
    on_lambda = {"STAGE": stage, "AWS_LAMBDA_FUNCTION_NAME": "kyora-x", "BUS_NAME": "kyora-x"}
    with pytest.raises(ConfigError, match=f"STAGE={stage} runs on this machine only"):
        config.load(config.bus_name, on_lambda, str)
    emulated = on_lambda | {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"}
    assert config.load(config.stage, emulated, str) == stage
    assert config.load(config.stage, on_lambda | {"STAGE": "dev"}, str) == "dev"


# ---- nothing happens at import

MODULES = [
    ".".join(path.relative_to(ROOT / "layers/kyora").with_suffix("").parts).removesuffix(
        ".__init__"
    )
    for path in sorted((ROOT / "layers/kyora/kyora").rglob("*.py"))
]
FUNCTIONS = [str(path) for path in sorted((ROOT / "functions").glob("*/app.py"))]
IMPORT_ALL = """
import importlib, importlib.util, os, sys, socket
def refuse(*args): raise SystemExit("a socket was opened at import")
socket.socket.connect = refuse
class Watched(dict):
    def _seen(self, name):
        frame = sys._getframe(2)
        # How Lambda starts us, not how we are configured: a snapshot is made of what is imported.
        if name == "AWS_LAMBDA_INITIALIZATION_TYPE":
            return
        if "kyora" in frame.f_globals.get("__name__", ""):
            raise SystemExit(f"{name} was read at import")
    def __getitem__(self, name): self._seen(name); return super().__getitem__(name)
    def get(self, name, default=None): self._seen(name); return super().get(name, default)
    def __contains__(self, name): self._seen(name); return super().__contains__(name)
os.environ = Watched(os.environ)
modules, functions = eval(sys.stdin.read())
for name in modules:
    importlib.import_module(name)
for number, path in enumerate(functions):
    spec = importlib.util.spec_from_file_location(f"kyora_function_{number}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module.handler), path
print(len(modules), len(functions))
"""


def test_every_module_and_function_imports_with_an_empty_environment() -> None:
    vendor = os.pathsep.join([str(ROOT / "layers/kyora"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL],
        input=repr((MODULES, FUNCTIONS)),
        capture_output=True,
        text=True,
        env={"PYTHONPATH": vendor},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(MODULES)), str(len(FUNCTIONS))]
    assert len(MODULES) > 20


# ---- the template gives what the code reads


class Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short functions."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: f"{suffix} {node.value}")


def test_the_template_sets_the_variables_the_code_reads() -> None:
    code = (ROOT / "layers/kyora/kyora/config.py").read_text()
    read = {
        name
        for name in re.findall(r'"([A-Z][A-Z0-9]*_[A-Z0-9_]+)"', code)
        if not name.startswith("AWS_")
    } | {"STAGE"}
    secrets = {
        *("DATABASE_URL", "DATABASE_OWNER_URL", "AUTH_JWT_SECRET", "STORAGE_S3_SECRET_ACCESS_KEY"),
        *("EMAIL_RESEND_API_KEY", "EMAIL_RESEND_WEBHOOK_SECRET"),
        *("BILLING_STRIPE_API_KEY", "BILLING_STRIPE_WEBHOOK_SECRET"),
    }
    template = yaml.load((ROOT / "template.yaml").read_text(), Loader)
    given = set(template["Globals"]["Function"]["Environment"]["Variables"])
    for resource in template["Resources"].values():
        properties = resource.get("Properties") or {}
        if resource["Type"] == "AWS::Serverless::Function" and "Environment" in properties:
            given |= set(properties["Environment"]["Variables"])
    assert {f"{name}_ARN" if name in secrets else name for name in read} - given == set()
    assert given - {f"{name}_ARN" for name in secrets} - read <= {"CONFIGURATION"}


SOURCES = [
    path.read_text()
    for folder in ("functions", "layers/kyora/kyora")
    for path in (ROOT / folder).rglob("*.py")
]


def test_a_function_whose_log_is_measured_writes_the_line_that_the_filter_reads() -> None:
    resources = yaml.load((ROOT / "template.yaml").read_text(), Loader)["Resources"]
    filters = [r["Properties"] for r in resources.values() if r["Type"].endswith("MetricFilter")]
    assert filters
    for found in filters:
        message = re.search(r'message = "([^"]+)"', found["FilterPattern"])
        assert message is not None
        (code,) = [source for source in SOURCES if f'"{message[1]}"' in source]
        figure = found["MetricTransformations"][0]["MetricValue"]
        assert figure == "1" or f"{figure.removeprefix('$.')}=" in code
