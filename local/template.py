"""What template.yaml says about a function, with the parameters' defaults filled in."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from local.settings import ROOT

FILE = ROOT / "template.yaml"


class _Loader(yaml.CSafeLoader):
    """Reads !Ref X as {"Ref": "X"}, as CloudFormation does."""


def _tag(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any = None
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _tag)


def read(file: Path = FILE) -> dict[str, Any]:
    """Return the template with the long form of every intrinsic function, for the caller alone."""
    found: dict[str, Any] = json.loads(_parsed(file, file.stat().st_mtime_ns))
    return found


@lru_cache(maxsize=4)
def _parsed(file: Path, changed: int) -> str:
    """Parse a file once for each of its versions: that takes twenty times as long as its JSON."""
    parsed = yaml.load(file.read_text(), Loader=_Loader)  # noqa: S506  # it is safe
    return json.dumps(parsed, default=str)  # a date is YAML's alone


def translated(parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the template as CloudFormation gets it, after SAM's transform, without AWS.

    `parameters` are given at a deploy; SAM writes some of their values into what it makes.
    """
    import boto3  # with samtranslator a second
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    given = read()
    for name, resource in given["Resources"].items():
        for key in ("CodeUri", "ContentUri"):
            if key in resource.get("Properties", {}):  # what `sam package` writes there
                resource["Properties"][key] = f"s3://bucket/{name}"
    managed = "AWSLambdaBasicExecutionRole"
    policies = {managed: f"arn:aws:iam::aws:policy/{managed}"}
    session = boto3.Session(region_name="eu-west-1")
    found: dict[str, Any] = Translator(policies, Parser(), boto_session=session).translate(
        given, dict(parameters or {})
    )
    return found


def logical_id(folder: str) -> str:
    """Turn confirm_upload into ConfirmUploadFunction."""
    return "".join(word.capitalize() for word in folder.split("_")) + "Function"


def folder(logical: str) -> str:
    """Turn ConfirmUploadFunction into confirm_upload."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", logical.removesuffix("Function")).lower()


def functions(template: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the properties of each function by logical id, globals included."""
    shared: dict[str, Any] = template["Globals"]["Function"]
    variables = shared["Environment"]["Variables"]
    return {
        name: {
            **shared,
            **resource["Properties"],
            # SAM adds a function's own lists to the shared ones.
            "Layers": shared["Layers"] + resource["Properties"].get("Layers", []),
            "Environment": variables
            | resource["Properties"].get("Environment", {}).get("Variables", {}),
        }
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
    }


def resolve(value: Any, template: Mapping[str, Any]) -> Any:  # noqa: C901, PLR0911, PLR0912  # one per intrinsic
    """Evaluate intrinsics with every parameter at its default; a resource stands for its name."""
    if isinstance(value, list):
        return [resolve(item, template) for item in value]
    if not isinstance(value, dict):
        return value
    [(function, argument)] = value.items() if len(value) == 1 else [("", value)]
    if function == "Ref":
        parameter = template["Parameters"].get(argument)
        return parameter.get("Default", "") if parameter else argument
    if function == "Condition" and isinstance(argument, str):
        return resolve(template["Conditions"][argument], template)
    if function == "Fn::If":
        chosen = resolve({"Condition": argument[0]}, template)
        return resolve(argument[1 if chosen else 2], template)
    if function == "Fn::Equals":
        left, right = resolve(argument, template)
        return str(left) == str(right)
    if function == "Fn::Not":
        return not resolve(argument[0], template)
    if function in {"Fn::And", "Fn::Or"}:
        return (all if function == "Fn::And" else any)(resolve(argument, template))
    if function == "Fn::Join":
        items = resolve(argument[1], template)
        return argument[0].join(map(str, items)) if isinstance(items, list) else items
    if function == "Fn::Split":
        return resolve(argument[1], template).split(argument[0])
    if function == "Fn::FindInMap":
        name, row, column = resolve(argument, template)
        return template["Mappings"][name][str(row)][column]
    if function == "Fn::GetAtt":
        return ".".join(argument)
    if function == "Fn::Sub":
        text, names = argument if isinstance(argument, list) else (argument, {})
        known = {name: resolve(item, template) for name, item in names.items()}
        return re.sub(
            r"\$\{([\w:.]+)\}",
            lambda m: str(known.get(m[1], resolve({"Ref": m[1]}, template))),
            text,
        )
    return {name: resolve(item, template) for name, item in value.items()}
