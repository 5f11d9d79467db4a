"""The local stack's folder, ports and secrets."""

import fcntl
import json
import os
import platform
import random
import secrets
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from local import process
from local.progress import Trouble

ROOT = Path(__file__).resolve().parent.parent
STACK = "kyora-local"
HOST = "127.0.0.1"

# Usual ports of front ends' development servers, each under two host names.
PAGE_PORTS = (
    1234,  # Parcel
    3000,  # Next.js, Nuxt, Remix
    3001,
    4173,  # vite preview
    4200,  # Angular
    4321,  # Astro
    5000,
    5173,  # Vite, SvelteKit
    5174,
    5500,  # Live Server
    8000,
    8080,  # webpack, Vue CLI
    8081,  # Expo
)
WORKSPACE, BUSINESS = "ws_demo", "biz_demo"
ADMIN, MEMBER = "usr_demo_admin", "usr_demo_member"

# Generated once per folder and kept; an environment variable of the same name wins.
_SECRETS: dict[str, Callable[[], str]] = {
    "AUTH_JWT_SECRET": lambda: secrets.token_hex(32),
    "BILLING_STRIPE_API_KEY": lambda: f"sk_test_{secrets.token_hex(24)}",  # the stand-in's
    "BILLING_STRIPE_WEBHOOK_SECRET": lambda: f"whsec_{secrets.token_hex(24)}",
    "EMAIL_RESEND_WEBHOOK_SECRET": lambda: f"whsec_{b64encode(secrets.token_bytes(24)).decode()}",
    "POSTGRES_PASSWORD": lambda: secrets.token_hex(16),
}


@dataclass(frozen=True)
class Settings:
    """What the parts of the local stack need to know."""

    home: Path
    port: int
    gateway_port: int
    postgres_port: int
    stripe_port: int
    secrets: Mapping[str, str]
    environ: Mapping[str, str]

    @property
    def url(self) -> str:
        """The one address a person uses."""
        return f"http://{HOST}:{self.port}"

    @property
    def own_postgres(self) -> bool:
        """False when DATABASE_URL names a server of the user's."""
        return not self.environ.get("DATABASE_URL")

    @property
    def own_stripe(self) -> bool:
        """False when a key of Stripe's test mode is given: then the stack uses Stripe."""
        return not self.environ.get("BILLING_STRIPE_API_KEY")

    @property
    def cors_origins(self) -> list[str]:
        """Origins that may call the API and upload: CORS_ORIGINS, or the usual ports."""
        if given := self.environ.get("CORS_ORIGINS"):
            return given.split(",")
        ports = sorted({self.port, *PAGE_PORTS})
        return [f"http://{host}:{port}" for port in ports for host in (HOST, "localhost")]

    @property
    def stripe_url(self) -> str:
        """The stand-in for Stripe: its API, pages and dashboard."""
        return f"http://{HOST}:{self.stripe_port}"

    @property
    def database_url(self) -> str:
        """The database the functions use."""
        if given := self.environ.get("DATABASE_URL"):
            return given
        password = self.secrets["POSTGRES_PASSWORD"]
        return f"postgresql://kyora:{password}@{HOST}:{self.postgres_port}/kyora"

    @property
    def database_owner_url(self) -> str:
        """The same database for the migrations; empty when one role does both."""
        if not self.own_postgres:
            return self.environ.get("DATABASE_OWNER_URL", "")
        password = self.secrets["POSTGRES_PASSWORD"]
        return f"postgresql://kyora_owner:{password}@{HOST}:{self.postgres_port}/kyora"

    @property
    def logs(self) -> Path:
        """The folder of the child processes' logs."""
        return self.home / "logs"

    @property
    def assets(self) -> Path:
        """The folder of the `local` storage provider."""
        return (ROOT / self.environ.get("STORAGE_LOCAL_PATH", "./tmp/assets")).resolve()


def read_port(environ: Mapping[str, str]) -> int:
    """Return PORT; 8000 by default."""
    text = environ.get("PORT") or "8000"
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise Trouble(f"PORT must be a number from 1 to 65535, not {text!r}")
    return int(text)


def claim_home(environ: Mapping[str, str], port: int) -> tuple[Path, IO[str]]:
    """Return the stack's folder and the lock that keeps a second stack out of it.

    A second stack of the same checkout, on another port, gets a folder of its own inside it.
    """
    home = (ROOT / (environ.get("KYORA_LOCAL_DIR") or ".local")).resolve()
    if lock := _lock(home, port):
        return home, lock
    running = int(_read_json(home / "lock").get("port", 0))
    if running != port and not environ.get("KYORA_LOCAL_DIR"):
        home = home / str(port)
        if lock := _lock(home, port):
            return home, lock
        running = port
    raise Trouble(
        f"this checkout already runs at http://{HOST}:{running} "
        f"(process {_read_json(home / 'lock').get('pid')}); "
        "end it with `make stop`, or give another PORT to run a second one beside it"
    )


def _lock(home: Path, port: int) -> IO[str] | None:
    home.mkdir(parents=True, exist_ok=True)
    file = (home / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    file.truncate(0)
    file.write(json.dumps({"port": port, "pid": os.getpid()}))
    file.flush()
    return file


def load(home: Path, port: int, environ: Mapping[str, str]) -> Settings:
    """Read what an earlier run kept in the folder, and add what is missing."""
    (home / "logs").mkdir(exist_ok=True)
    ports = _read_json(home / "ports.json")
    chosen = {port}
    for name in ("gateway", "postgres", "stripe"):
        ports[name] = _choose_port(ports.get(name), chosen)
        chosen.add(ports[name])
    _write_json(home / "ports.json", ports)
    kept = _read_json(home / "secrets.json")
    for name, make in _SECRETS.items():
        kept.setdefault(name, make())
    _write_json(home / "secrets.json", kept)
    given = {name: value for name, value in environ.items() if not _is_ours(name, value, kept)}
    if key := given.get("STRIPE_API_KEY"):  # the name that Stripe's own tools use
        given.setdefault("BILLING_STRIPE_API_KEY", key)
    values = {name: given.get(name) or kept[name] for name in _SECRETS}
    return Settings(home, port, ports["gateway"], ports["postgres"], ports["stripe"], values, given)


def _is_ours(name: str, value: str, kept: Mapping[str, Any]) -> bool:
    """Return whether a variable is an address that an earlier run here wrote into its env.

    A shell that exports `.local/env` (direnv does) would make it look like a server of the user's.
    """
    password = str(kept["POSTGRES_PASSWORD"])
    return name in {"DATABASE_URL", "DATABASE_OWNER_URL"} and f":{password}@{HOST}:" in value


def _choose_port(kept: object, taken: set[int]) -> int:
    if isinstance(kept, int) and kept not in taken and process.is_free(kept):
        return kept
    # Below the kernel's range for outgoing connections, so that it is free at the next start.
    for candidate in random.SystemRandom().sample(range(20000, 30000), 200):
        if candidate not in taken and process.is_free(candidate):
            return candidate
    raise Trouble("no free port was found between 20000 and 30000")


def architecture() -> str:
    """Return this machine's architecture by Lambda's name."""
    return "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.touch(mode=0o600)
    path.write_text(json.dumps(value, indent=1))


def read_env(home: Path | None = None) -> dict[str, str]:
    """Read the `env` file of a running stack: PORT's where that is set, else this checkout's."""
    file = (home or _home(os.environ)) / "env"
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise Trouble("the local stack has not run here yet; start it with `make run`") from error
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def running(environ: Mapping[str, str]) -> int | None:
    """Return the process id of the stack that PORT or this checkout names, while it runs."""
    return _runs(_home(environ))


def _runs(home: Path) -> int | None:
    file = home / "lock"
    try:
        with file.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(_read_json(file)["pid"])
    except OSError:  # no folder: nothing has run here
        pass
    return None


def running_clock(environ: Mapping[str, str]) -> Path | None:
    """Return the file with the clock of the stack that PORT or this checkout names, if any."""
    try:
        file = _home(environ) / "clock"
    except Trouble:  # for a command that needs a stack to say
        return None
    return file if file.exists() else None


def undeployed_file(home: Path | None = None) -> Path:
    """Return the file that says why the last save was not deployed; without one it was."""
    return (home or _home(os.environ)) / "undeployed"


def undeployed(home: Path | None = None) -> str:
    """Return why the last save was not deployed, or an empty text."""
    with suppress(FileNotFoundError):
        return undeployed_file(home).read_text()
    return ""


def unavailable() -> Trouble:
    """Return the trouble of a command whose stack does not answer."""
    if running(os.environ) is None:
        return Trouble("the local stack is not running; start it with `make run`")
    log = _home(os.environ) / "logs" / "emulator.log"
    return Trouble(f"the local stack runs, but its AWS emulator does not answer (log: {log})")


def _home(environ: Mapping[str, str]) -> Path:
    """Return the folder of the stack on PORT, or the checkout's own.

    Raises Trouble when the checkout's own runs on another port: a command would act on a stack that
    was not meant.
    """
    own = (ROOT / (environ.get("KYORA_LOCAL_DIR") or ".local")).resolve()
    port = environ.get("PORT")
    if not port:
        return own
    second = own / port
    if (second / "lock").exists():
        return second
    other = _read_json(own / "lock").get("port")
    if str(other) != port and _runs(own):
        raise Trouble(
            f"no stack of this checkout runs on port {port}; "
            f"one runs at http://{HOST}:{other} (PORT={other})"
        )
    return own
