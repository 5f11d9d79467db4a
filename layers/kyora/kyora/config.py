"""Configuration from environment variables, read at first use; every fault reported together.

A key's variable is its name in upper case with underscores: `storage.s3.bucket` is
`STORAGE_S3_BUCKET`. A secret may instead be named by `<NAME>_ARN` (Secrets Manager); its value is
the text itself or a JSON list, for rotation.

Each section is a function: `config.storage().s3_bucket`. A field is named as its key, a list in
the plural; a key of another section has its whole name (`app_base_url`). A function names the
sections that it uses at its start (`require`), so that a wrong configuration fails there and not
at the first request that needs it. Nothing is read at import.
"""

import base64
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from kyora import aws
from kyora.aws import AwsError
from kyora.database_url import WEAK, BadUrl, parse
from kyora.errors import ConfigError, Unavailable

SCHEDULE_MINUTES = ("1", "5", "15", "60")  # `Schedules` of template.yaml
STAGES = ("local", "test", "dev", "staging", "prod")
_DEVELOPMENT = ("local", "test")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_EMULATOR = "AWS_ENDPOINT_URL"  # AWS's own variable, which no function on AWS is given
_POLICIES = ("allow", "refuse")
_IN_REQUEST = 256 << 20  # bytes that confirm_upload verifies within its request
_MAX_AGE = 300.0  # seconds a value is kept, so that a rotated secret arrives without a deploy
# Our own addresses; what may stand in a customer's is in kyora.email.address.
_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@([A-Za-z0-9-]+\.)*[A-Za-z0-9-]+")


class Auth(NamedTuple):
    """Who may call the API: signing secrets, or an issuer's key set, or both."""

    jwt_secrets: tuple[str, ...]
    jwks_url: str
    issuer: str
    audience: str


class Storage(NamedTuple):
    """Where files are. `local_*` and the last two are empty for S3, `s3_*` for a local folder."""

    provider: str
    max_bytes: Mapping[str, int] | None = None
    local_path: str = ""
    s3_bucket: str = ""
    s3_region: str = ""
    s3_endpoint: str = ""
    s3_addressing_style: str = "virtual"
    s3_access_key_id: str = ""
    s3_secret_access_key: str = ""
    app_base_url: str = ""
    auth_jwt_secret: str = ""

    @property
    def sends_events(self) -> bool:
        """Return whether the store reports new objects: S3 at AWS does, by EventBridge."""
        return self.provider == "s3" and not self.s3_endpoint


class Uploads(NamedTuple):
    """Which files are accepted; `macros` and `passwords`: whether a document may have them.

    `scanning`: off, guardduty or local; `unscanned`: reject or accept a file without a verdict
    after `scan_minutes`.
    """

    allowed: Mapping[str, tuple[str, ...]] | None
    macros: bool
    passwords: bool
    scanning: str
    scan_minutes: int
    unscanned: str


class Email(NamedTuple):
    """How mail is sent. `resend_*` is empty for the mock."""

    provider: str
    from_email: str
    from_name: str
    support_email: str
    app_base_url: str
    resend_api_key: str = ""
    resend_base_url: str = ""


class Billing(NamedTuple):
    """How Stripe is asked, and our own terms. `grace_days` is a number of days."""

    stripe_api_key: str
    stripe_base_url: str
    grace_days: int
    free_plan: str
    auto_sync_plans: bool


class Cache(NamedTuple):
    """Which cache is used; the servers are hosts with ports."""

    provider: str
    memcached_servers: tuple[tuple[str, int], ...]
    memcached_tls: bool


class Trace(NamedTuple):
    """Where spans are sent, and whose they are; an empty endpoint: nowhere."""

    otlp_endpoint: str
    function_name: str


class _Reader:
    """Reads variables; collects every fault instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str], secret: Callable[[str], str]) -> None:
        self.environ, self.secret, self.faults = environ, secret, list[str]()
        self.stage = self.choice("STAGE", "local", STAGES)
        self.development = self.stage in _DEVELOPMENT
        self.choice("LOG_LEVEL", "INFO", _LEVELS)
        if (
            self.development
            and environ.get("AWS_LAMBDA_FUNCTION_NAME")
            and not environ.get(_EMULATOR)
        ):
            # Its plain connections and mock providers are for one machine.
            self.faults.append(f"STAGE={self.stage} runs on this machine only, never on AWS")

    def text(self, name: str, default: str = "", *, required: bool = False) -> str:
        value = self.environ.get(name, "").strip() or default
        if required and not value:
            self.faults.append(f"{name} is not set")
        return value

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in choices:
            self.faults.append(f"{name} must be one of {', '.join(choices)}")
        return value

    def secrets(self, name: str, *, required: bool = False) -> tuple[str, ...]:
        value = self.secret_text(name, required=required)
        if not value.startswith("["):
            return (value,) if value else ()
        try:
            listed = json.loads(value)
        except ValueError:
            listed = None
        if not isinstance(listed, list) or not all(isinstance(s, str) and s for s in listed):
            self.faults.append(f"{name} must be a text or a JSON list of texts")
            return ()
        return tuple(listed)

    def secret_text(self, name: str, *, required: bool = False) -> str:
        """Return a secret that is one value."""
        value, arn = self.text(name), self.text(f"{name}_ARN")
        if arn and not value:
            try:
                value = self.secret(arn).strip()
            except AwsError as error:
                self.faults.append(f"{name}_ARN cannot be read ({error.code})")
                return ""
        if required and not value:
            self.faults.append(f"{name} (or {name}_ARN) is not set")
        return value

    def url(
        self, name: str, *, required: bool = False, query: bool = False, plain: bool = False
    ) -> str:
        """Return an address without a slash at its end; http if `plain`, or in development."""
        value = self.text(name, required=required).rstrip("/")
        plain = plain or self.development
        if value and (fault := _url_fault(value, plain=plain, query=query)):
            self.faults.append(f"{name} {fault}")
        return value

    def table[T](self, name: str, check: Callable[[object], T | None]) -> dict[str, T] | None:
        value = self.text(name)
        if not value:
            return None
        try:
            table = {str(k): check(v) for k, v in json.loads(value).items()}
        except (ValueError, AttributeError):
            table = {"": None}
        checked = {key: item for key, item in table.items() if item is not None}
        if len(checked) != len(table):
            self.faults.append(f"{name} must be a JSON object by category (docs/configuration.md)")
        return checked


def _url_fault(value: str, *, plain: bool, query: bool) -> str:  # noqa: PLR0911  # a row each
    """Return what is wrong with an address, without repeating it; empty when nothing is."""
    if not value.startswith(("https://", "http://") if plain else "https://"):
        return "must be an https URL"
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        return "must be ASCII without blanks; a name in another script is written xn--…"
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        return "has an invalid port" if "port" in str(error).lower() else "has no valid host"
    if "@" in parts.netloc:
        return "must not hold a user or a password"
    if port == 0 or parts.netloc.endswith(":"):
        return "has an invalid port"
    name = r"([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.?"
    if not re.fullmatch(rf"{name}|[0-9a-f:.]*:[0-9a-f:.]*", host) or len(host) > 253:
        return "has no valid host"
    if not query and re.search(r"[?#]", value):
        return "must have no query and no fragment"
    if re.search(r"[\\\"<>^`{|}]", value) or (query and "#" in value):
        return "has an invalid character"
    return ""


class Section[T]:
    """A part of the configuration; a call returns its values, read at most five minutes ago.

    Raises ConfigError naming every variable at fault, and Unavailable while Secrets Manager does
    not answer for the first time.
    """

    def __init__(self, read: Callable[[_Reader], T]) -> None:
        self.read, self.__doc__ = read, read.__doc__

    def __call__(self) -> T:
        """Return the values."""
        kept: tuple[float, T] | None = _cached.get(self)
        if kept and time.monotonic() - kept[0] < _MAX_AGE:
            return kept[1]
        try:
            found = load(self, os.environ, aws.secret)
        except Unavailable:
            if kept is None:
                raise
            found = kept[1]  # better an old secret than none: if it was rotated, it is read again
        _cached[self] = (time.monotonic(), found)
        return found


_cached: dict[Section[Any], tuple[float, Any]] = {}


def load[T](section: Section[T], environ: Mapping[str, str], secret: Callable[[str], str]) -> T:
    """Read a section; `secret` returns the value behind an ARN. Raises ConfigError."""
    reader = _Reader(environ, secret)
    found = section.read(reader)
    if reader.faults:
        raise ConfigError(sorted(set(reader.faults)))
    return found


def require(*sections: Section[Any]) -> None:
    """Read the sections that a function uses. Raises one ConfigError with the faults of all."""
    needed: tuple[Section[Any], ...] = (stage, trace, *sections)
    faults = set()
    for section in needed:
        try:
            section()
        except ConfigError as error:
            faults.update(error.faults)
    if faults:
        raise ConfigError(sorted(faults))


def is_own_machine() -> bool:
    """Return whether this is a developer's own machine, also when nothing else is configured."""
    return os.environ.get("STAGE") == "local"


def is_development() -> bool:
    """Return whether mock providers and plain connections are accepted here."""
    return stage() in _DEVELOPMENT


def forget() -> None:
    """Drop what was read, so that the next use reads again (a rotated secret, a test)."""
    _cached.clear()


# ---- the sections


@Section
def stage(read: _Reader) -> str:
    """Return the stage: one of STAGES."""
    return read.stage


@Section
def database_url(read: _Reader) -> str:
    """Return the address that functions connect to, with the role that they have."""
    return _database(read, "DATABASE_URL", required=True)


@Section
def database_owner_url(read: _Reader) -> str:
    """Return the address of the schema's owner. Outside prod one role may be both."""
    url = _database(read, "DATABASE_URL", required=True)
    owner = _database(read, "DATABASE_OWNER_URL", required=read.stage == "prod")
    if owner and (role := _role(owner)) is not None and role == _role(url):
        read.faults.append("DATABASE_OWNER_URL must name another role than DATABASE_URL")
    return owner or url


def _database(read: _Reader, name: str, *, required: bool) -> str:
    url = read.secret_text(name, required=required)
    try:
        if url and parse(url).mode in WEAK and not read.development:
            read.faults.append(f"{name} must not weaken TLS outside local and test")
    except BadUrl as fault:
        read.faults.append(f"{name} {fault}")
    return url


def _role(url: str) -> str | None:
    try:
        return parse(url).user
    except BadUrl:
        return None


@Section
def auth(read: _Reader) -> Auth:
    """Return how tokens are checked."""
    faults = len(read.faults)
    secrets = read.secrets("AUTH_JWT_SECRET")
    jwks_url = read.url("AUTH_JWKS_URL", query=True)
    if not secrets and not jwks_url and len(read.faults) == faults:
        read.faults.append("AUTH_JWT_SECRET (or AUTH_JWT_SECRET_ARN) or AUTH_JWKS_URL is not set")
    if any(len(secret.encode()) < 32 for secret in secrets):  # RFC 7518 3.2
        read.faults.append("AUTH_JWT_SECRET must have at least 32 bytes")
    issuer, audience = read.text("AUTH_ISSUER"), read.text("AUTH_AUDIENCE")
    for name, value in (("AUTH_ISSUER", issuer), ("AUTH_AUDIENCE", audience)):
        if jwks_url and not value:  # or a token that the issuer gave another application passes
            read.faults.append(f"{name} is not set, and AUTH_JWKS_URL is")
    return Auth(secrets, jwks_url, issuer, audience)


@Section
def storage(read: _Reader) -> Storage:
    """Return where files are stored."""
    provider = read.choice("STORAGE_PROVIDER", "s3", ("s3", "local"))
    max_bytes = read.table("STORAGE_MAX_BYTES", _size)
    if provider == "local":
        if not read.development:
            read.faults.append("STORAGE_PROVIDER=local is for development and tests only")
        secrets = read.secrets("AUTH_JWT_SECRET", required=True)
        return Storage(
            provider,
            max_bytes,
            local_path=read.text("STORAGE_LOCAL_PATH", "./tmp/assets"),
            app_base_url=read.url("APP_BASE_URL", required=True),
            auth_jwt_secret=secrets[0] if secrets else "",
        )
    largest = max((max_bytes or {}).values(), default=0)
    if largest > _IN_REQUEST and read.text("STORAGE_S3_ENDPOINT") and not read.development:
        read.faults.append(
            f"STORAGE_MAX_BYTES above {_IN_REQUEST} needs the events of S3 at AWS, which start the"
            " verification of large files; STORAGE_S3_ENDPOINT names another store"
        )
    key, secret = read.text("STORAGE_S3_ACCESS_KEY_ID"), "STORAGE_S3_SECRET_ACCESS_KEY"
    return Storage(
        provider,
        max_bytes,
        s3_bucket=read.text("STORAGE_S3_BUCKET", required=True),
        s3_region=read.text("STORAGE_S3_REGION", read.text("AWS_REGION"), required=True),
        s3_endpoint=read.url("STORAGE_S3_ENDPOINT"),
        s3_addressing_style=read.choice(
            "STORAGE_S3_ADDRESSING_STYLE", "virtual", ("virtual", "path")
        ),
        s3_access_key_id=key,
        s3_secret_access_key=read.secret_text(secret, required=True) if key else "",
    )


@Section
def public_base_url(read: _Reader) -> str:
    """Return the address below which public files are served; empty: nothing can be public."""
    return read.url("STORAGE_PUBLIC_BASE_URL")


@Section
def uploads(read: _Reader) -> Uploads:
    """Return which files are accepted, and whether they are scanned for malware."""
    scanning = read.choice("UPLOADS_SCANNING", "off", ("off", "guardduty", "local"))
    if scanning == "local" and not read.development:
        read.faults.append("UPLOADS_SCANNING=local is for development and tests only")
    minutes = read.text("UPLOADS_SCAN_MINUTES", "60")
    if not re.fullmatch(r"[1-9][0-9]{0,3}", minutes):
        read.faults.append("UPLOADS_SCAN_MINUTES must be a whole number of minutes, 1 to 9999")
        minutes = "60"
    return Uploads(
        read.table("UPLOADS_ALLOWED", _extensions),
        macros=read.choice("UPLOADS_MACROS", "refuse", _POLICIES) == "allow",
        passwords=read.choice("UPLOADS_PASSWORDS", "allow", _POLICIES) == "allow",
        scanning=scanning,
        scan_minutes=int(minutes),
        unscanned=read.choice("UPLOADS_UNSCANNED", "reject", ("reject", "accept")),
    )


def _size(value: object) -> int | None:
    """Return a size in bytes. S3 copies 5 GB in one call at most (CopyObject)."""
    return value if type(value) is int and 0 < value <= 5_000_000_000 else None


def _extensions(value: object) -> tuple[str, ...] | None:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(str(item).lower().lstrip(".") for item in value)
    return None


@Section
def app_base_url(read: _Reader) -> str:
    """Return the address of the web application, without a slash at its end."""
    return read.url("APP_BASE_URL", required=True)


@Section
def cors_origins(read: _Reader) -> tuple[str, ...]:
    """Return the origins whose pages may call the API and upload files."""
    return tuple(o for o in read.text("CORS_ORIGINS").split(",") if o)


@Section
def schedule_minutes(read: _Reader) -> int:
    """Return the fewest minutes between two runs of a scheduled function."""
    minutes = read.choice("SCHEDULE_MINUTES", "1", SCHEDULE_MINUTES)
    return int(minutes) if minutes in SCHEDULE_MINUTES else 1


@Section
def trace(read: _Reader) -> Trace:
    """Return where spans are sent: the address of an OTLP collector, to which /v1/traces is added.

    Plain HTTP is for one on the same machine, such as a Lambda extension.
    """
    own = re.match(r"http://(localhost|127\.0\.0\.1)[:/]", read.text("TRACE_OTLP_ENDPOINT") + "/")
    found = read.url("TRACE_OTLP_ENDPOINT", plain=bool(own))
    return Trace(found, read.text("AWS_LAMBDA_FUNCTION_NAME"))


@Section
def bus_name(read: _Reader) -> str:
    """Return the name of the event bus."""
    return read.text("BUS_NAME", required=True)


@Section
def email(read: _Reader) -> Email:
    """Return how mail is sent."""
    provider = read.choice(
        "EMAIL_PROVIDER", "mock" if read.development else "resend", ("resend", "mock")
    )
    real = provider == "resend"
    if not real and read.stage == "prod":
        read.faults.append("EMAIL_PROVIDER=mock is refused in prod")
    sender = read.text("EMAIL_FROM_EMAIL", "" if real else "hello@kyora.test", required=real)
    support = read.text("EMAIL_SUPPORT_EMAIL", "" if real else "support@kyora.test", required=real)
    for name, value in (("EMAIL_FROM_EMAIL", sender), ("EMAIL_SUPPORT_EMAIL", support)):
        if value and not _ADDRESS.fullmatch(value):
            read.faults.append(f"{name} must be a plain ASCII e-mail address")
    sender_name = read.text("EMAIL_FROM_NAME", "Kyora")
    if not sender_name.isprintable() or len(sender_name) > 64:  # a line break would end the header
        read.faults.append("EMAIL_FROM_NAME must be at most 64 printable characters")
    key = read.secret_text("EMAIL_RESEND_API_KEY", required=True) if real else ""
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        read.faults.append("EMAIL_RESEND_API_KEY must be printable ASCII without blanks")
    base = (read.url("EMAIL_RESEND_BASE_URL") or "https://api.resend.com") if real else ""
    app = read.url("APP_BASE_URL", required=True)
    return Email(provider, sender, sender_name, support, app, key, base)


@Section
def resend_webhook_keys(read: _Reader) -> tuple[bytes, ...]:
    """Return the keys of EMAIL_RESEND_WEBHOOK_SECRET, decoded; empty: the endpoint is closed.

    Decoded strictly: a lenient decoder makes an empty key, which anyone can sign with.
    """
    keys = [_webhook_key(secret) for secret in read.secrets("EMAIL_RESEND_WEBHOOK_SECRET")]
    if None in keys:
        read.faults.append(
            "EMAIL_RESEND_WEBHOOK_SECRET must be whsec_ and the base64 of at least 16 bytes"
        )
    return tuple(key for key in keys if key)


def _webhook_key(secret: str) -> bytes | None:
    head, prefix, text = secret.partition("whsec_")
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return key if prefix and not head and len(key) >= 16 else None


@Section
def email_domain(read: _Reader) -> str:
    """Return the domain that we send from; empty: every domain that Resend reports is ours."""
    return read.text("EMAIL_FROM_EMAIL").rpartition("@")[2].lower()


@Section
def billing(read: _Reader) -> Billing:
    """Return how Stripe is asked. Without a key, what needs Stripe fails when it is used.

    Test mode and real money are kept apart: prod takes a live key, every other stage a test key.
    """
    prod = read.stage == "prod"
    key = read.secret_text("BILLING_STRIPE_API_KEY", required=prod)
    mode = "live" if prod else "test"
    if key and not re.fullmatch(rf"[sr]k_{mode}_[\x21-\x7e]+", key):
        read.faults.append(
            f"BILLING_STRIPE_API_KEY must be a key of {mode} mode (sk_{mode}_… or rk_{mode}_…)"
        )
    base = read.url("BILLING_STRIPE_BASE_URL")
    if base and not read.development:
        read.faults.append("BILLING_STRIPE_BASE_URL is for development and tests only")
    days = read.text("BILLING_GRACE_DAYS", "7")
    if not re.fullmatch(r"[0-9]{1,3}", days):
        read.faults.append("BILLING_GRACE_DAYS must be a whole number of days, 0 to 999")
        days = "0"
    free_plan = read.text("BILLING_FREE_PLAN")
    if not re.fullmatch(r"([a-z0-9][a-z0-9_-]{0,79})?", free_plan):
        read.faults.append("BILLING_FREE_PLAN must be a plan's id")
    auto = read.choice("BILLING_AUTO_SYNC_PLANS", "true", ("true", "false"))
    return Billing(key, base, int(days), free_plan, auto == "true")


@Section
def stripe_webhook_secrets(read: _Reader) -> tuple[str, ...]:
    """Return every secret of BILLING_STRIPE_WEBHOOK_SECRET; empty: the endpoint is closed."""
    secrets = tuple(text.strip() for text in read.secrets("BILLING_STRIPE_WEBHOOK_SECRET"))
    if not all(re.fullmatch(r"whsec_[\x21-\x7e]{16,}", secret) for secret in secrets):
        read.faults.append("BILLING_STRIPE_WEBHOOK_SECRET must be whsec_ and at least 16 letters")
    return secrets


@Section
def cache(read: _Reader) -> Cache:
    """Return which cache is used."""
    provider = read.choice("CACHE_PROVIDER", "none", ("none", "memory", "memcached", "postgres"))
    text = read.text("CACHE_MEMCACHED_SERVERS", required=provider == "memcached")
    servers = [_server(part) for part in text.split(",")] if text else []
    good = [server for server in servers if server]
    if len(set(good)) != len(servers):
        read.faults.append("CACHE_MEMCACHED_SERVERS must be host:port,host:port, each once")
    tls = read.choice("CACHE_MEMCACHED_TLS", "false", ("true", "false")) == "true"
    return Cache(provider, tuple(good), tls)


def _server(text: str) -> tuple[str, int] | None:
    """Read host:port, or [IPv6 address]:port."""
    if not re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]+", text.strip()):
        return None
    try:
        parts = urlsplit(f"//{text.strip()}")
        return (parts.hostname, parts.port) if parts.hostname and parts.port else None
    except ValueError:  # brackets around no address, a port past 65535
        return None
