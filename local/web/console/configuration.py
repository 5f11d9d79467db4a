"""The configuration in force: each function's variables and its settings, with secrets masked."""

from typing import Any

from local.settings import Settings
from local.web.console import invocations, masking, sources


def read(stack: Settings) -> dict[str, Any]:
    """Return the variables that all functions share, and of each function what is its own."""
    with sources.asking_emulator():
        client = sources.aws("lambda", stack.gateway_port)
        pages = client.get_paginator("list_functions").paginate()
        found = [one for page in pages for one in page["Functions"]]
    given = {
        invocations.folder(one["FunctionName"]): one.get("Environment", {}).get("Variables", {})
        for one in found
    }
    shared: dict[str, str] = {}
    if given:
        first, *rest = given.values()
        shared = {k: v for k, v in first.items() if all(other.get(k) == v for other in rest)}
    secrets = masking.secrets_of(stack)
    return {
        "shared": [_variable(name, value, secrets) for name, value in sorted(shared.items())],
        "functions": sorted(
            (
                {
                    "name": (name := invocations.folder(one["FunctionName"])),
                    "description": one.get("Description", ""),
                    "memoryMb": one["MemorySize"],
                    "timeout": one["Timeout"],
                    "codeBytes": one["CodeSize"],
                    "modified": one["LastModified"],
                    "layers": [layer["Arn"].split(":")[-2] for layer in one.get("Layers", [])],
                    "variables": [
                        _variable(key, value, secrets)
                        for key, value in sorted(given[name].items())
                        if key not in shared
                    ],
                }
                for one in found
            ),
            key=lambda one: str(one["name"]),
        ),
        "stack": [
            {"name": name, "value": value}
            for name, value in (
                ("address", stack.url),
                ("AWS emulator", f"http://127.0.0.1:{stack.gateway_port}"),
                ("Stripe", stack.stripe_url if stack.own_stripe else "Stripe's test mode"),
                ("database", str(masking.clean(stack.database_url, secrets))),
                ("folder", str(stack.home)),
            )
        ],
    }


def _variable(name: str, value: str, secrets: list[str]) -> dict[str, Any]:
    hidden = masking.is_secret_name(name) and bool(value)
    return {
        "name": name,
        "value": masking.HIDDEN if hidden else masking.clean(value, secrets),
        "from": "Secrets Manager" if name.endswith("_ARN") and value else "",
    }
