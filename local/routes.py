"""The HTTP API's routes, made from the OpenAPI body that SAM generated.

API Gateway imports that body by itself. MiniStack creates the API and ignores the body, so the
same routes, integrations and authorizers are created here through the API Gateway API: the one
thing in which the local stack needs help.
"""

import json
import re
from typing import Any

from local import emulator
from local.settings import Settings

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


def apply(
    settings: Settings, template: dict[str, Any], physical: dict[str, str]
) -> tuple[str, int]:
    """Make the API match its OpenAPI body; return its id and the number of routes."""
    client = emulator.client("apigatewayv2", settings.gateway_port)
    [(logical, resource)] = [
        (name, item)
        for name, item in template["Resources"].items()
        if item["Type"] == "AWS::ApiGatewayV2::Api"
    ]
    api, body = physical[logical], resource["Properties"]["Body"]

    account = emulator.client("sts", settings.gateway_port).get_caller_identity()["Account"]

    def invocation(uri: dict[str, str]) -> str:
        # {"Fn::Sub": "arn:…/functions/${NameFunction.Arn}/invocations"}, or an alias's ${Name}
        [(logical, attribute)] = re.findall(r"\$\{(?!AWS::)(\w+)(\.Arn)?\}", uri["Fn::Sub"])
        target = physical[logical]
        if attribute:
            target = f"arn:aws:lambda:{emulator.REGION}:{account}:function:{target}"
        return (
            f"arn:aws:apigateway:{emulator.REGION}:lambda:path/2015-03-31/functions/"
            f"{target}/invocations"
        )

    if cors := body.get("x-amazon-apigateway-cors"):
        client.update_api(ApiId=api, CorsConfiguration=_cors(cors))
    authorizers: dict[str, str] = {}
    kept = {item["Name"]: item for item in client.get_authorizers(ApiId=api)["Items"]}
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
            "IdentitySource": _sources(declared.get("identitySource", "")),
            "AuthorizerResultTtlInSeconds": int(declared.get("authorizerResultTtlInSeconds", 0)),
        }
        if name in kept:
            authorizer = kept[name]
            client.update_authorizer(ApiId=api, AuthorizerId=authorizer["AuthorizerId"], **wanted)
        else:
            authorizer = client.create_authorizer(ApiId=api, **wanted)
        authorizers[name] = authorizer["AuthorizerId"]

    integrations = {
        item["IntegrationUri"]: item["IntegrationId"]
        for item in client.get_integrations(ApiId=api)["Items"]
    }
    routes = {item["RouteKey"]: item for item in client.get_routes(ApiId=api)["Items"]}
    wanted_keys = set()
    for path, operations in body.get("paths", {}).items():
        for method, operation in operations.items():
            key = _route_key(path, method)
            declared = operation.get("x-amazon-apigateway-integration")
            if key is None or not declared:
                continue
            wanted_keys.add(key)
            uri = invocation(declared["uri"])
            if uri not in integrations:
                integrations[uri] = client.create_integration(
                    ApiId=api,
                    IntegrationType="AWS_PROXY",
                    IntegrationUri=uri,
                    PayloadFormatVersion=str(declared.get("payloadFormatVersion", "2.0")),
                )["IntegrationId"]
            secured = [name for entry in operation.get("security", []) for name in entry]
            route = {
                "Target": f"integrations/{integrations[uri]}",
                "AuthorizationType": "CUSTOM" if secured else "NONE",
                **({"AuthorizerId": authorizers[secured[0]]} if secured else {}),
            }
            if key not in routes:
                client.create_route(ApiId=api, RouteKey=key, **route)
            elif any(routes[key].get(field) != value for field, value in route.items()):
                client.update_route(ApiId=api, RouteId=routes[key]["RouteId"], **route)
    for key in routes.keys() - wanted_keys:
        client.delete_route(ApiId=api, RouteId=routes[key]["RouteId"])
    return api, len(wanted_keys)


def _cors(declared: dict[str, Any]) -> dict[str, Any]:
    return {f"{name[0].upper()}{name[1:]}": value for name, value in declared.items()}


def _route_key(path: str, method: str) -> str | None:
    if path == "/$default":
        return "$default"
    if method == "x-amazon-apigateway-any-method":
        return f"ANY {path}"
    return f"{method.upper()} {path}" if method in _METHODS else None


def _sources(text: object) -> list[str]:
    listed = text if isinstance(text, list) else str(text).split(",")
    return [part.strip() for part in listed if part.strip()]


def webhooks(
    settings: Settings, template: dict[str, Any], physical: dict[str, str]
) -> dict[str, str]:
    """Return the function URLs by their public path: StripeWebhookFunction → /webhooks/stripe."""
    client = emulator.client("lambda", settings.gateway_port)
    found = {}
    for resource in template["Resources"].values():
        if resource["Type"] != "AWS::Lambda::Url":
            continue
        target = re.search(r"(\w+)WebhookFunction", json.dumps(resource["Properties"]))
        if target:
            function = physical[f"{target.group(1)}WebhookFunction"]
            address = client.get_function_url_config(FunctionName=function)["FunctionUrl"]
            found[f"/webhooks/{target.group(1).lower()}"] = address
    return found
