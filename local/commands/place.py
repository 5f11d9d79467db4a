"""The stack that a command is for: the running local one, or a deployed one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local import settings
from local.commands import remote
from local.stack import emulator


@dataclass(frozen=True)
class Place:
    """The stack that a command is for; `environ` is that of the local one, else empty.

    `patience` is that of `emulator.client`.
    """

    stage: str
    environ: Mapping[str, str]
    patience: float | None = None

    @property
    def bus(self) -> str:
        """The name of its event bus."""
        return f"kyora-{self.stage}"

    @property
    def local(self) -> bool:
        """Whether it runs on this machine."""
        return bool(self.environ)

    def client(self, service: Any) -> Any:
        """Return a boto3 client."""
        if self.local:
            port = int(self.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])
            return emulator.client(service, port, patience=self.patience)
        import boto3  # a quarter of a second

        named = remote.samconfig(self.stage)
        session = boto3.Session(region_name=named.get("region"), profile_name=named.get("profile"))
        return session.client(service)


def find(env: str | None) -> Place:
    """Return the deployed stack of a samconfig environment, or the running local one."""
    if env and env != "local":
        remote.samconfig(env)
        return Place(env, {})
    found = settings.read_env()
    if not emulator.healthy(int(found["AWS_ENDPOINT_URL"].rpartition(":")[2])):
        raise settings.unavailable()
    return Place("local", found)
