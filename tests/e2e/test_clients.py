"""Clients that generators make of openapi.json: they see every documented answer, and they work."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local.bootstrap import CLIENTS, CLIENTS_NPM
from local.settings import ROOT
from local.tools.openapi import document
from tests.e2e.conftest import Stack

HERE = Path(__file__).parent / "clients"
DOCUMENT = json.loads(document.DOCUMENT.read_text())
PYTHON = ROOT / CLIENTS / "bin" / "python"
NPM = ROOT / CLIENTS_NPM
python_needed = pytest.mark.skipif(
    not PYTHON.exists(), reason="openapi-python-client is not installed (make test installs it)"
)
node_needed = pytest.mark.skipif(
    not shutil.which("node") or not (NPM / "node_modules").exists(),
    reason="the generators of TypeScript are not installed (make test gets them from npm)",
)


def ran(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a program and return what it says; it must succeed."""
    programs = (NPM / "node_modules" / ".bin", PYTHON.parent, os.environ["PATH"])
    path = os.pathsep.join(map(str, programs))
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={"PATH": path, "HOME": str(cwd), **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def operations() -> dict[str, Any]:
    return {
        made["operationId"]: made
        for methods in DOCUMENT["paths"].values()
        for method, made in methods.items()
        if method in {"get", "post", "put", "delete"}
    }


# ---- Python

PROGRAM = """
import json, os
from kyora_integrations_client import AuthenticatedClient
from kyora_integrations_client.api.assets import get_asset
from kyora_integrations_client.api.uploads import confirm_upload, request_upload
from kyora_integrations_client.models import UploadRequest

client = AuthenticatedClient(base_url=os.environ["KYORA_URL"], token=os.environ["KYORA_TOKEN"])

def ask(size, name):
    return request_upload.sync_detailed(client=client, body=UploadRequest(filename=name, size=size))

ticket = ask(48213, "mug.png").parsed
missing = get_asset.sync_detailed("ast_00000000000000000000000000", client=client)
again = confirm_upload.sync_detailed(ticket.asset_id, client=client)
print(json.dumps({
    "asset": ticket.asset_id, "code": str(ask(1, "mug.exe").parsed.code),
    "title": missing.parsed.title, "conflict": str(again.parsed.code),
    "status": again.status_code,
}))
"""


@pytest.fixture(scope="module")
def python_client(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The package that openapi-python-client makes, and what it said."""
    folder = tmp_path_factory.mktemp("python")
    program = PYTHON.with_name("openapi-python-client")
    (folder / "config.yml").write_text("package_name_override: kyora_integrations_client\n")
    said = ran(
        *(program, "generate", "--path", document.DOCUMENT, "--config", folder / "config.yml"),
        *("--output-path", folder / "out", "--meta", "none", "--overwrite"),
        cwd=folder,
        PYTHONPATH="",
    )
    (folder / "out").rename(folder / "kyora_integrations_client")
    return folder, said


@python_needed
def test_a_python_client_is_made_without_a_warning(python_client: tuple[Path, str]) -> None:
    assert not re.search(r"warning|error|unable", python_client[1], re.IGNORECASE), python_client[1]


@python_needed
def test_a_python_client_knows_every_documented_status(python_client: tuple[Path, str]) -> None:
    folder, _ = python_client
    for name, made in operations().items():
        file = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        [module] = (folder / "kyora_integrations_client/api").rglob(f"{file}.py")
        known = set(re.findall(r"status_code == (\d+)", module.read_text()))
        assert known == set(made["responses"]), name


@python_needed
def test_a_python_client_works(stack: Stack, python_client: tuple[Path, str]) -> None:
    said = ran(
        *(PYTHON, "-c", PROGRAM),
        cwd=python_client[0],
        KYORA_URL=stack.env["KYORA_URL"],
        KYORA_TOKEN=stack.env["KYORA_TOKEN"],
    )
    worked(json.loads(said.splitlines()[-1]))


def worked(found: dict[str, Any]) -> None:
    asset = found.pop("asset")
    assert re.fullmatch(r"ast_[0-9a-z]{26}", asset)
    assert found == {
        "code": "asset.type_not_allowed",
        "title": "Not found",
        "conflict": "asset.not_uploaded",
        "status": 409,
    }


# ---- TypeScript


OPTIONS = {
    "compilerOptions": {
        "strict": True,
        "target": "es2022",
        "module": "nodenext",
        "lib": ["es2022", "dom", "dom.iterable"],
        "skipLibCheck": True,
        "outDir": "out",
    },
    "include": ["*.ts", "hey/**/*.ts"],
}


def bodies(kind: str) -> str:
    """Return a program that holds every documented body as a value of its type."""
    source = 'import type { components } from "./types.js";\n'
    lines = []
    for name, made in operations().items():
        body = (made.get("requestBody") or {}).get("content", {}).get("application/json")
        if body:
            schema = body["schema"]["$ref"].rpartition("/")[2]
            of = schema if kind == "hey" else f'components["schemas"]["{schema}"]'
            lines.append(f"export const {name}: {of} = {json.dumps(body['example'])};")
            if kind == "hey":
                source = source if "hey/" in source else ""
                source += f'import type {{ {schema} }} from "./hey/types.gen.js";\n'
    # hey-api's types are imported once each.
    return "\n".join([*dict.fromkeys(source.splitlines()), *lines]) + "\n"


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both generated clients and the programs on them, compiled."""
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(NPM / "node_modules")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "tsconfig.json").write_text(json.dumps(OPTIONS))
    shutil.copy(document.DOCUMENT, folder)
    shutil.copy(HERE / "openapi-ts.config.mjs", folder)
    ran("openapi-typescript", "openapi.json", "-o", "types.ts", cwd=folder)
    ran("openapi-ts", cwd=folder)
    for kind in ("fetched", "hey"):
        (folder / f"{kind}.ts").write_text((HERE / f"{kind}.ts").read_text())
        (folder / f"{kind}-bodies.ts").write_text(bodies(kind))
    ran("tsc", "--project", ".", cwd=folder)
    shutil.copy(folder / "package.json", folder / "out")
    return folder


@node_needed
@pytest.mark.parametrize("kind", ["fetched", "hey"])
def test_a_typescript_client_takes_every_documented_body_and_works(
    stack: Stack, typescript: Path, kind: str
) -> None:
    said = ran(
        *("node", f"out/{kind}.js"),
        cwd=typescript,
        KYORA_URL=stack.env["KYORA_URL"],
        KYORA_TOKEN=stack.env["KYORA_TOKEN"],
    )
    worked(json.loads(said.splitlines()[-1]))


@node_needed
def test_typescript_types_have_every_documented_status(typescript: Path) -> None:
    types = (typescript / "types.ts").read_text()
    operation_types = types.partition("export interface operations")[2]
    hey = (typescript / "hey" / "types.gen.ts").read_text()
    for name, made in operations().items():
        body = operation_types.partition(f"\n    {name}: {{")[2].partition("\n    };")[0]
        assert set(re.findall(r"^            (\d{3}): ", body, re.MULTILINE)) == set(
            made["responses"]
        ), name
        title = name[0].upper() + name[1:]
        known = {
            status
            for part in ("Errors", "Responses")
            for status in re.findall(
                r"^    (\d{3}): ",
                hey.partition(f"export type {title}{part} = {{")[2].partition("\n};")[0],
                re.MULTILINE,
            )
        }
        assert known == set(made["responses"]), name


def test_what_installs_the_clients_generators_is_pinned() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text())
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert all(one.get("integrity", "").startswith("sha512-") for one in packages.values())
    assert sys.version_info >= (3, 13)
