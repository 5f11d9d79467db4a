"""JSON Schemas of the events, made from the models: `make schemas`, or `--check` to compare.

events/schemas/<Event>.json is for other services. released.lock beside it lists the released fields
and only ever grows, so that a field that a service reads cannot disappear, change or become
required.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kyora.bus.events import EVENTS, Envelope
from local.progress import complain, say
from local.settings import ROOT

FOLDER = ROOT / "events" / "schemas"
RELEASED = FOLDER / "released.lock"
_FOR_PEOPLE = {"title", "description", "examples", "default"}

type Schema = dict[str, Any]
type Promise = dict[str, dict[str, Any]]


def documents() -> dict[str, Schema]:
    """Return the JSON Schema of each event's `detail` by the event's name."""
    return {name: _document(name) for name in sorted(EVENTS)}


def _document(name: str) -> Schema:
    kind = EVENTS[name]
    envelope, data = Envelope.model_json_schema(), kind.model.model_json_schema()
    properties = {**envelope["properties"], "data": _plain(data)}
    # A model inside the data: JSON Schema looks for it at the top.
    models = {key: _plain(value) for key, value in data.get("$defs", {}).items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        "description": f"{data['description']} detail-type {name} of source {kind.source}."
        + (" Holds a token: never archived, never logged." if kind.sensitive else ""),
        "type": "object",
        "properties": {key: _untitled(value) for key, value in properties.items()},
        "required": envelope["required"],
        **({"$defs": models} if models else {}),
    }


def _plain(schema: Schema) -> Schema:
    found = {k: v for k, v in schema.items() if k not in {"title", "description", "$defs"}}
    found["properties"] = {k: _untitled(v) for k, v in schema["properties"].items()}
    return found


def _untitled(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "title"}


def promises(schema: Schema) -> Promise:
    """Return every field of an event: whether it is required, and what it must look like.

    A field of a model inside the data is listed under the model's name.
    """
    models = schema.get("$defs", {}).items()
    inside = (field for name, model in models for field in _fields(model, f"{name}."))
    return dict([*_fields(schema, ""), *inside])


def _fields(schema: Schema, inside: str) -> Iterator[tuple[str, dict[str, Any]]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        shape = {
            k: v for k, v in field.items() if k not in _FOR_PEOPLE | {"properties", "required"}
        }
        yield f"{inside}{name}", {"required": name in required, **shape}
        yield from _fields(field, f"{inside}{name}.")


def broken(released: Mapping[str, Promise], now: Mapping[str, Promise]) -> list[str]:
    """Return every promise that `now` does not keep."""
    found = []
    for event, fields in released.items():
        if event not in now:
            found.append(f"{event} is gone")
            continue
        for name, promise in fields.items():
            kept = now[event].get(name)
            if kept is None:
                found.append(f"{event}.{name} is gone")
            elif kept["required"] != promise["required"]:
                change = "newly required" if kept["required"] else "not required any more"
                found.append(f"{event}.{name} is {change}")
            elif kept != promise:
                found.append(f"{event}.{name} has changed from {promise} to {kept}")
        found += [
            f"{event}.{name} is new and required"
            for name, field in now[event].items()
            if name not in fields and field["required"]
        ]
    return found


def read_released() -> dict[str, Promise]:
    """Return what has been promised."""
    found: dict[str, Promise] = json.loads(RELEASED.read_text()) if RELEASED.exists() else {}
    return found


def files() -> dict[Path, str]:
    """Return what has to be in each file."""
    made = documents()
    known = read_released()
    grown = {name: {**promises(schema), **known.get(name, {})} for name, schema in made.items()} | {
        name: fields for name, fields in known.items() if name not in made
    }
    return {
        **{FOLDER / f"{name}.json": _text(schema) for name, schema in made.items()},
        RELEASED: _text({name: grown[name] for name in sorted(grown)}),
    }


def _text(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the files, or compare them; a broken promise is refused either way."""
    parser = argparse.ArgumentParser(prog="python -m local.tools.schemas")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 on a difference")
    check = parser.parse_args().check
    now = {name: promises(schema) for name, schema in documents().items()}
    if faults := broken(read_released(), now):
        complain("an event may only grow: " + "; ".join(faults))
        return 1
    wanted = files()
    stale = [
        path for path, text in wanted.items() if not path.exists() or path.read_text() != text
    ] + [path for path in FOLDER.glob("*.json") if path not in wanted]
    if check:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        if stale:
            complain(f"not what the models say, run `make schemas`: {names}")
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for path in stale:
        if path in wanted:
            path.write_text(wanted[path])
        else:
            path.unlink()
        say(f"  {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
