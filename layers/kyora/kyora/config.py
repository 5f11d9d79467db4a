"""Configuration from environment variables: read once, every fault reported together.

A key's variable is its name in upper case with underscores: `storage.s3.bucket` is
`STORAGE_S3_BUCKET`. A secret may instead be named by `<NAME>_ARN` (Secrets Manager); its value is
the text itself or a JSON list, for rotation. Nothing is read at import.
"""

import base64
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from kyora import aws, database_url
from kyora.aws import AwsError
from kyora.errors import ConfigError, Unavailable

STAGES = ("local", "test", "dev", "staging", "prod")
_DEVELOPMENT = ("local", "test")
_EMULATOR = "AWS_ENDPOINT_URL"  # AWS's own variable, which no function on AWS is given
_POLICIES = ("allow", "refuse")
_MAX_AGE = 300.0  # seconds a value is kept, so that a rotated secret arrives without a deploy
# Our own addresses; what may stand in a customer's is in kyora.email.address.
_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@([A-Za-z0-9-]+\.)*[A-Za-z0-9-]+")

type Section = str


class Settings(NamedTuple):
    """What a function runs with. Values of sections it did not ask for are empty."""

    stage: str
    log_level: str
    app_base_url: str = ""
    database_url: str = ""
    database_owner_url: str = ""
    jwt_secrets: tuple[str, ...] = ()
    jwks_url: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    storage_provider: str = "s3"
    storage_local_path: str = "./tmp/assets"
    storage_local_secret: str = ""
    s3_bucket: str = ""
    s3_region: str = ""
    s3_endpoint: str = ""
    s3_addressing_style: str = "virtual"
    s3_access_key_id: str = ""
    s3_secret_access_key: str = ""
    cors_origins: tuple[str, ...] = ()
    max_bytes: Mapping[str, int] | None = None
    allowed: Mapping[str, tuple[str, ...]] | None = None
    macros_allowed: bool = False
    passwords_allowed: bool = True
    bus_name: str = ""
    email_provider: str = "mock"
    email_api_key: str = ""
    email_base_url: str = ""
    email_from: str = ""
    email_from_name: str = ""
    email_support: str = ""
    email_webhook_keys: tuple[bytes, ...] = ()
    stripe_api_key: str = ""
    stripe_base_url: str = ""
    stripe_webhook_secrets: tuple[str, ...] = ()
    auto_sync_plans: bool = True
    grace_days: int = 7
    free_plan: str = ""
    cache_provider: str = "none"
    cache_servers: tuple[tuple[str, int], ...] = ()
    cache_tls: bool = False

    @property
    def development(self) -> bool:
        """True where development providers and plain connections are accepted."""
        return self.stage in _DEVELOPMENT

    @property
    def database_role(self) -> str:
        """The role that the functions log in as."""
        return _role(self.database_url)


class _Reader:
    """Reads variables and keeps every fault instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str], secret: Callable[[str], str]) -> None:
        self.environ, self.secret, self.faults = environ, secret, list[str]()

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

    def url(self, name: str, *, plain: bool, required: bool = False, query: bool = False) -> str:
        """Return an address without a slash at its end; `plain` lets http pass as well."""
        value = self.text(name, required=required).rstrip("/")
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
            self.faults.append(f"{name} must be a JSON object by category, see README")
        return checked


def _url_fault(value: str, *, plain: bool, query: bool) -> str:  # noqa: PLR0911  # a row each
    """Say what is wrong with an address, never repeating it; empty when nothing is."""
    if not value.startswith(("https://", "http://") if plain else "https://"):
        return "must be an https URL"
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        return "must be ASCII without blanks; a name in another script is written xn--…"
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        return "has a port that is none" if "port" in str(error).lower() else "has no valid host"
    if "@" in parts.netloc:
        return "must not hold a user or a password"
    if port == 0 or parts.netloc.endswith(":"):
        return "has a port that is none"
    name = r"([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.?"
    if not re.fullmatch(rf"{name}|[0-9a-f:.]*:[0-9a-f:.]*", host) or len(host) > 253:
        return "has no valid host"
    if not query and re.search(r"[?#]", value):
        return "must have no query and no fragment"
    if re.search(r"[\\\"<>^`{|}]", value) or (query and "#" in value):
        return "has a character that no address has"
    return ""


def _positive(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _extensions(value: object) -> tuple[str, ...] | None:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(str(item).lower().lstrip(".") for item in value)
    return None


def load(
    environ: Mapping[str, str], sections: tuple[Section, ...], secret: Callable[[str], str]
) -> Settings:
    """Read the sections a function needs.

    Sections: the keys of `_SECTIONS`. `secret` turns an ARN into its value.
    Raises ConfigError naming every variable at fault.
    """
    read = _Reader(environ, secret)
    stage = read.choice("STAGE", "local", STAGES)
    development = stage in _DEVELOPMENT
    if development and environ.get("AWS_LAMBDA_FUNCTION_NAME") and not environ.get(_EMULATOR):
        # Its plain connections and providers that only pretend are for one machine.
        read.faults.append(f"STAGE={stage} runs on this machine only, never on AWS")
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    found: dict[str, object] = {
        "stage": stage,
        "log_level": read.choice("LOG_LEVEL", "INFO", levels),
    }
    for section in sections:
        found |= _SECTIONS[section](read, development)
    if read.faults:
        raise ConfigError(sorted(set(read.faults)))
    return Settings(**found)  # type: ignore[arg-type]  # the readers below return what it takes


def _database(read: _Reader, development: bool) -> dict[str, object]:
    url = read.secret_text("DATABASE_URL", required=True)
    _check_database(read, "DATABASE_URL", url, development)
    return {"database_url": url}


def _database_owner(read: _Reader, development: bool) -> dict[str, object]:
    """Read who may change the schema. Outside prod one role may do both."""
    found = _database(read, development)
    url = read.secret_text("DATABASE_OWNER_URL", required=read.text("STAGE") == "prod")
    good = _check_database(read, "DATABASE_OWNER_URL", url, development)
    role = _role(str(found["database_url"]))
    if url and good and _role(url) == role:
        read.faults.append("DATABASE_OWNER_URL must name another role than DATABASE_URL")
    return found | {"database_owner_url": url or found["database_url"]}


def _role(url: str) -> str:
    """Return the role that an address logs in as; empty when it makes no sense."""
    try:
        return database_url.parse(url).user
    except database_url.BadUrl:
        return ""


def _check_database(read: _Reader, name: str, url: str, development: bool) -> bool:
    """Note what is wrong with an address; tell whether it makes sense at all."""
    if not url:
        return True
    try:
        found = database_url.parse(url)
    except database_url.BadUrl as fault:
        read.faults.append(f"{name} {fault}")
        return False
    if not development and found.mode in database_url.WEAK:
        read.faults.append(f"{name} must not weaken TLS outside local and test")
    return True


def _auth(read: _Reader, development: bool) -> dict[str, object]:
    faults = len(read.faults)
    secrets = read.secrets("AUTH_JWT_SECRET")
    jwks_url = read.url("AUTH_JWKS_URL", plain=development, query=True)
    if not secrets and not jwks_url and len(read.faults) == faults:
        read.faults.append("AUTH_JWT_SECRET (or AUTH_JWT_SECRET_ARN) or AUTH_JWKS_URL is not set")
    if any(len(secret.encode()) < 32 for secret in secrets):  # RFC 7518 3.2
        read.faults.append("AUTH_JWT_SECRET must have at least 32 bytes")
    issuer, audience = read.text("AUTH_ISSUER"), read.text("AUTH_AUDIENCE")
    for name, value in (("AUTH_ISSUER", issuer), ("AUTH_AUDIENCE", audience)):
        if jwks_url and not value:  # or a token that the issuer gave another application passes
            read.faults.append(f"{name} is not set, and AUTH_JWKS_URL is")
    return {
        "jwt_secrets": secrets,
        "jwks_url": jwks_url,
        "jwt_issuer": issuer,
        "jwt_audience": audience,
    }


def _storage(read: _Reader, development: bool) -> dict[str, object]:
    provider = read.choice("STORAGE_PROVIDER", "s3", ("s3", "local"))
    found: dict[str, object] = {
        "storage_provider": provider,
        "app_base_url": read.url("APP_BASE_URL", plain=development, required=provider == "local"),
        "max_bytes": read.table("STORAGE_MAX_BYTES", _positive),
        "allowed": read.table("UPLOADS_ALLOWED", _extensions),
        "macros_allowed": read.choice("UPLOADS_MACROS", "refuse", _POLICIES) == "allow",
        "passwords_allowed": read.choice("UPLOADS_PASSWORDS", "allow", _POLICIES) == "allow",
    }
    if provider == "local":
        if not development:
            read.faults.append("STORAGE_PROVIDER=local is for development and tests only")
        secrets = read.secrets("AUTH_JWT_SECRET", required=True)
        found["storage_local_path"] = read.text("STORAGE_LOCAL_PATH", "./tmp/assets")
        found["storage_local_secret"] = secrets[0] if secrets else ""
        return found
    key, secret = read.text("STORAGE_S3_ACCESS_KEY_ID"), "STORAGE_S3_SECRET_ACCESS_KEY"
    return found | {
        "s3_bucket": read.text("STORAGE_S3_BUCKET", required=True),
        "s3_region": read.text("STORAGE_S3_REGION", read.text("AWS_REGION"), required=True),
        "s3_endpoint": read.url("STORAGE_S3_ENDPOINT", plain=development),
        "s3_addressing_style": read.choice(
            "STORAGE_S3_ADDRESSING_STYLE", "virtual", ("virtual", "path")
        ),
        "s3_access_key_id": key,
        "s3_secret_access_key": read.secret_text(secret, required=True) if key else "",
    }


def _app(read: _Reader, development: bool) -> dict[str, object]:
    return {"app_base_url": read.url("APP_BASE_URL", plain=development, required=True)}


def _cors(read: _Reader, development: bool) -> dict[str, object]:
    return {"cors_origins": tuple(o for o in read.text("CORS_ORIGINS").split(",") if o)}


def _bus(read: _Reader, development: bool) -> dict[str, object]:
    return {"bus_name": read.text("BUS_NAME", required=True)}


def _email(read: _Reader, development: bool) -> dict[str, object]:
    provider = read.choice(
        "EMAIL_PROVIDER", "mock" if development else "resend", ("resend", "mock")
    )
    real = provider == "resend"
    if not real and read.text("STAGE") == "prod":
        read.faults.append("EMAIL_PROVIDER=mock is refused in prod")
    sender = read.text("EMAIL_FROM_EMAIL", "" if real else "hello@kyora.test", required=real)
    support = read.text("EMAIL_SUPPORT_EMAIL", "" if real else "support@kyora.test", required=real)
    for name, value in (("EMAIL_FROM_EMAIL", sender), ("EMAIL_SUPPORT_EMAIL", support)):
        if value and not _ADDRESS.fullmatch(value):
            read.faults.append(f"{name} must be a plain ASCII e-mail address")
    sender_name = read.text("EMAIL_FROM_NAME", "Kyora")
    if not sender_name.isprintable() or len(sender_name) > 64:  # a line break would end the header
        read.faults.append("EMAIL_FROM_NAME must be at most 64 printable characters")
    found: dict[str, object] = {
        "email_provider": provider,
        "email_from": sender,
        "email_from_name": sender_name,
        "email_support": support,
        "app_base_url": read.url("APP_BASE_URL", plain=development, required=True),
    }
    if real:
        key = read.secret_text("EMAIL_RESEND_API_KEY", required=True)
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            read.faults.append("EMAIL_RESEND_API_KEY must be printable ASCII without blanks")
        found["email_api_key"] = key
        base = read.url("EMAIL_RESEND_BASE_URL", plain=development)
        found["email_base_url"] = base or "https://api.resend.com"
    return found


def _email_webhook(read: _Reader, development: bool) -> dict[str, object]:
    """Decode the keys strictly: a lenient decoder makes an empty key, which anyone can sign with.

    No secret at all is allowed: the endpoint is then closed.
    """
    keys = [_webhook_key(secret) for secret in read.secrets("EMAIL_RESEND_WEBHOOK_SECRET")]
    if None in keys:
        read.faults.append(
            "EMAIL_RESEND_WEBHOOK_SECRET must be whsec_ and the base64 of at least 16 bytes"
        )
    # Whose domain the webhook is to look at; empty: each that it tells of.
    sender = read.text("EMAIL_FROM_EMAIL")
    return {"email_webhook_keys": tuple(key for key in keys if key), "email_from": sender}


def _webhook_key(secret: str) -> bytes | None:
    head, prefix, text = secret.partition("whsec_")
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return key if prefix and not head and len(key) >= 16 else None


def _billing(read: _Reader, development: bool) -> dict[str, object]:
    """Keep test mode and real money apart. Without a key, what needs Stripe says so when asked."""
    prod = read.text("STAGE") == "prod"
    key = read.secret_text("BILLING_STRIPE_API_KEY", required=prod)
    mode = "live" if prod else "test"
    if key and not re.fullmatch(rf"[sr]k_{mode}_[\x21-\x7e]+", key):
        read.faults.append(
            f"BILLING_STRIPE_API_KEY must be a key of {mode} mode (sk_{mode}_… or rk_{mode}_…)"
        )
    base = read.url("BILLING_STRIPE_BASE_URL", plain=development)
    if base and not development:
        read.faults.append("BILLING_STRIPE_BASE_URL is for development and tests only")
    days = read.text("BILLING_GRACE_DAYS", "7")
    if not re.fullmatch(r"[0-9]{1,3}", days):
        read.faults.append("BILLING_GRACE_DAYS must be a whole number of days, 0 to 999")
        days = "0"
    free_plan = read.text("BILLING_FREE_PLAN")
    if not re.fullmatch(r"([a-z0-9][a-z0-9_-]{0,79})?", free_plan):
        read.faults.append("BILLING_FREE_PLAN must be a plan's id")
    auto = read.choice("BILLING_AUTO_SYNC_PLANS", "true", ("true", "false"))
    return {
        "stripe_api_key": key,
        "stripe_base_url": base,
        "grace_days": int(days),
        "free_plan": free_plan,
        "auto_sync_plans": auto == "true",
    }


def _billing_webhook(read: _Reader, development: bool) -> dict[str, object]:
    """Read every signing secret. No secret at all is allowed: the endpoint is then closed."""
    secrets = tuple(text.strip() for text in read.secrets("BILLING_STRIPE_WEBHOOK_SECRET"))
    if not all(re.fullmatch(r"whsec_[\x21-\x7e]{16,}", secret) for secret in secrets):
        read.faults.append("BILLING_STRIPE_WEBHOOK_SECRET must be whsec_ and at least 16 letters")
    return {"stripe_webhook_secrets": secrets}


def _cache(read: _Reader, development: bool) -> dict[str, object]:
    provider = read.choice("CACHE_PROVIDER", "none", ("none", "memory", "memcached", "postgres"))
    text = read.text("CACHE_MEMCACHED_SERVERS", required=provider == "memcached")
    servers = [_server(part) for part in text.split(",")] if text else []
    good = [server for server in servers if server]
    if len(set(good)) != len(servers):
        read.faults.append("CACHE_MEMCACHED_SERVERS must be host:port,host:port, each once")
    return {
        "cache_provider": provider,
        "cache_servers": tuple(good),
        "cache_tls": read.choice("CACHE_MEMCACHED_TLS", "false", ("true", "false")) == "true",
    }


def _server(text: str) -> tuple[str, int] | None:
    """Read host:port, or [IPv6 address]:port."""
    if not re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]+", text.strip()):
        return None
    try:
        parts = urlsplit(f"//{text.strip()}")
        return (parts.hostname, parts.port) if parts.hostname and parts.port else None
    except ValueError:  # brackets around no address, a port past 65535
        return None


_SECTIONS: dict[Section, Callable[[_Reader, bool], dict[str, object]]] = {
    "database": _database,
    "database_owner": _database_owner,
    "auth": _auth,
    "storage": _storage,
    "cors": _cors,
    "app": _app,
    "bus": _bus,
    "email": _email,
    "email_webhook": _email_webhook,
    "billing": _billing,
    "billing_webhook": _billing_webhook,
    "cache": _cache,
}

_cached: dict[tuple[Section, ...], tuple[float, Settings]] = {}


def settings(*sections: Section) -> Settings:
    """Return the settings of this process, at most five minutes old.

    What was read for more sections serves as well: no secret is fetched twice.
    """
    wider = [kept for names, kept in _cached.items() if set(sections) <= set(names)]
    kept = max(wider, key=lambda found: found[0], default=None)
    if kept and time.monotonic() - kept[0] < _MAX_AGE:
        return kept[1]
    try:
        loaded = load(os.environ, sections, aws.secret)
    except Unavailable:
        if kept is None:
            raise
        loaded = kept[1]  # better an old secret than none: a rotated one is refused and read anew
    _cached[sections] = (time.monotonic(), loaded)
    return loaded


def is_own_machine() -> bool:
    """Tell whether this is a developer's own machine, also when nothing else is configured."""
    return os.environ.get("STAGE") == "local"


def forget() -> None:
    """Drop what was read, so that the next use reads anew (a rotated secret, a test)."""
    _cached.clear()
