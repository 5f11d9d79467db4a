"""The HTTP API's routes, made from the OpenAPI body that SAM generated.

API Gateway imports that body. MiniStack creates the API and ignores the body, so the same routes,
integrations and authorizers are created here through the API Gateway API.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from local.settings import STACK, Settings
from local.stack import emulator

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


def apply(settings: Settings, template: dict[str, Any], physical: dict[str, str]) -> int:
    """Make the API match its OpenAPI body; return the number of routes."""
    client = emulator.client("apigatewayv2", settings.gateway_port)
    account = emulator.client("sts", settings.gateway_port).get_caller_identity()["Account"]
    [(logical, resource)] = [
        (name, item)
        for name, item in template["Resources"].items()
        if item["Type"] == "AWS::ApiGatewayV2::Api"
    ]
    api, body = physical[logical], resource["Properties"]["Body"]

    def invocation(uri: dict[str, Any]) -> str:
        # {"Fn::Sub": "…/functions/${NameFunctionAliaslive}/invocations"}, or with a list of
        # replacements as an authorizer's is; either way one logical id is what counts.
        name, attribute = _reference(uri["Fn::Sub"])
        target = physical[name]
        if attribute:
            target = f"arn:aws:lambda:{emulator.REGION}:{account}:function:{target}"
        return (
            f"arn:aws:apigateway:{emulator.REGION}:lambda:path/2015-03-31/functions/"
            f"{target}/invocations"
        )

    # {"Fn::If": ["HasCorsOrigins", {…}, …]}; the origins in it are the parameter's default.
    cors = body.get("x-amazon-apigateway-cors", {}).get("Fn::If", [None, {}])[1]
    if origins := _parameter(settings, "CorsOrigins"):
        client.update_api(ApiId=api, CorsConfiguration=_cors(cors, origins.split(",")))
    authorizers = _authorizers(client, api, body, invocation)
    integrations = {
        item["IntegrationUri"]: item["IntegrationId"]
        for item in client.get_integrations(ApiId=api)["Items"]
    }
    wanted = {}
    for key, operation in _operations(body):
        declared = operation["x-amazon-apigateway-integration"]
        uri = invocation(declared["uri"])
        if uri not in integrations:
            integrations[uri] = client.create_integration(
                ApiId=api,
                IntegrationType="AWS_PROXY",
                IntegrationUri=uri,
                PayloadFormatVersion=str(declared.get("payloadFormatVersion", "2.0")),
            )["IntegrationId"]
        # NONE is SAM's word for a public route.
        names = [name for entry in operation.get("security", []) for name in entry]
        secured = [authorizers[name] for name in names if name in authorizers]
        wanted[key] = {
            "Target": f"integrations/{integrations[uri]}",
            "AuthorizationType": "CUSTOM" if secured else "NONE",
            **({"AuthorizerId": secured[0]} if secured else {}),
        }
    _sync_routes(client, api, wanted)
    return len(wanted)


def _authorizers(
    client: Any, api: str, body: dict[str, Any], invocation: Callable[[dict[str, Any]], str]
) -> dict[str, str]:
    """Create or update the authorizers; return their ids by name."""
    found = client.get_authorizers(ApiId=api)["Items"]
    kept = {item["Name"]: str(item["AuthorizerId"]) for item in found}
    for name, scheme in body.get("components", {}).get("securitySchemes", {}).items():
        declared = scheme.get("x-amazon-apigateway-authorizer")
        if not declared:
            continue
        wanted = {
            "Name": name,
            "AuthorizerType": "REQUEST",
            "AuthorizerUri": invocation(declared["authorizerUri"]),
            "AuthorizerPayloadFormatVersion": str(declared["authorizerPayloadFormatVersion"]),
            "EnableSimpleResponses": bool(declared.get("enableSimpleResponses")),
            "IdentitySource": _list(declared.get("identitySource", "")),
            "AuthorizerResultTtlInSeconds": int(declared.get("authorizerResultTtlInSeconds", 0)),
        }
        if name in kept:
            client.update_authorizer(ApiId=api, AuthorizerId=kept[name], **wanted)
        else:
            kept[name] = client.create_authorizer(ApiId=api, **wanted)["AuthorizerId"]
    return kept


def _operations(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in body.get("paths", {}).items():
        for method, operation in operations.items():
            key = _route_key(path, method)
            if key is not None and "x-amazon-apigateway-integration" in operation:
                yield key, operation


def _sync_routes(client: Any, api: str, wanted: dict[str, dict[str, str]]) -> None:
    kept = {item["RouteKey"]: item for item in client.get_routes(ApiId=api)["Items"]}
    for key, route in wanted.items():
        if key not in kept:
            client.create_route(ApiId=api, RouteKey=key, **route)
        elif any(kept[key].get(field) != value for field, value in route.items()):
            client.update_route(ApiId=api, RouteId=kept[key]["RouteId"], **route)
    for key in kept.keys() - wanted.keys():
        client.delete_route(ApiId=api, RouteId=kept[key]["RouteId"])


def _cors(declared: dict[str, Any], origins: list[str]) -> dict[str, Any]:
    # allowOrigins → AllowOrigins
    declared = declared | {"allowOrigins": origins}
    return {f"{name[0].upper()}{name[1:]}": value for name, value in declared.items()}


def _parameter(settings: Settings, name: str) -> str:
    client = emulator.client("cloudformation", settings.gateway_port)
    [stack] = client.describe_stacks(StackName=STACK)["Stacks"]
    given = {item["ParameterKey"]: item.get("ParameterValue", "") for item in stack["Parameters"]}
    return str(given.get(name, ""))


def _reference(sub: Any) -> tuple[str, str]:
    if isinstance(sub, list):
        [value] = sub[1].values()
        return (value["Ref"], "") if "Ref" in value else (value["Fn::GetAtt"][0], ".Arn")
    [found] = re.findall(r"\$\{(?!AWS::)(\w+)(\.Arn)?\}", sub)
    return found[0], found[1]


def _route_key(path: str, method: str) -> str | None:
    if path.removeprefix("/") == "$default":
        return "$default"
    if method == "x-amazon-apigateway-any-method":
        return f"ANY {path}"
    return f"{method.upper()} {path}" if method in _METHODS else None


def _list(text: object) -> list[str]:
    listed = text if isinstance(text, list) else str(text).split(",")
    return [part.strip() for part in listed if part.strip()]


def webhooks(settings: Settings, functions: dict[str, str]) -> dict[str, str]:
    """Return the function URLs by their public path: stripe_webhook → /webhooks/stripe."""
    client = emulator.client("lambda", settings.gateway_port)
    found = {}
    for folder, name in functions.items():
        if folder.endswith("_webhook"):
            address = client.get_function_url_config(FunctionName=name, Qualifier="live")
            found[f"/webhooks/{folder.removesuffix('_webhook')}"] = address["FunctionUrl"]
    return found
