"""The HTTP API's routes, made from the OpenAPI body that SAM generated.

API Gateway imports that body by itself. MiniStack creates the API and ignores the body, so the
same routes, integrations and authorizers are created here through the API Gateway API: the one
thing in which the local stack needs help.
"""

import re
from typing import Any

from local import emulator
from local.settings import Settings

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


def apply(settings: Settings, template: dict[str, Any], physical: dict[str, str]) -> int:
    """Make the API match its OpenAPI body; return the number of routes."""
    client = emulator.client("apigatewayv2", settings.gateway_port)
    [(logical, resource)] = [
        (name, item)
        for name, item in template["Resources"].items()
        if item["Type"] == "AWS::ApiGatewayV2::Api"
    ]
    api, body = physical[logical], resource["Properties"]["Body"]
    account = emulator.client("sts", settings.gateway_port).get_caller_identity()["Account"]

    def invocation(uri: dict[str, Any]) -> str:
        # {"Fn::Sub": "…/functions/${NameFunctionAliaslive}/invocations"}, or with a list of
        # replacements as an authorizer's is; either way one logical id is what counts.
        logical, attribute = _reference(uri["Fn::Sub"])
        target = physical[logical]
        if attribute:
            target = f"arn:aws:lambda:{emulator.REGION}:{account}:function:{target}"
        return (
            f"arn:aws:apigateway:{emulator.REGION}:lambda:path/2015-03-31/functions/"
            f"{target}/invocations"
        )

    cors = body.get("x-amazon-apigateway-cors", {})
    if "allowOrigins" in cors:
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
            "IdentitySource": _list(declared.get("identitySource", "")),
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
            secured = [
                authorizers[name]
                for entry in operation.get("security", [])
                for name in entry
                if name in authorizers  # NONE is SAM's word for a public route
            ]
            route = {
                "Target": f"integrations/{integrations[uri]}",
                "AuthorizationType": "CUSTOM" if secured else "NONE",
                **({"AuthorizerId": secured[0]} if secured else {}),
            }
            if key not in routes:
                client.create_route(ApiId=api, RouteKey=key, **route)
            elif any(routes[key].get(field) != value for field, value in route.items()):
                client.update_route(ApiId=api, RouteId=routes[key]["RouteId"], **route)
    for key in routes.keys() - wanted_keys:
        client.delete_route(ApiId=api, RouteId=routes[key]["RouteId"])
    return len(wanted_keys)


def _cors(declared: dict[str, Any]) -> dict[str, Any]:
    # allowOrigins → AllowOrigins; a list parameter arrives as the text that was given for it.
    lists = {"allowOrigins", "allowMethods", "allowHeaders", "exposeHeaders"}
    return {
        f"{name[0].upper()}{name[1:]}": _list(value) if name in lists else value
        for name, value in declared.items()
    }


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
            address = client.get_function_url_config(FunctionName=name)["FunctionUrl"]
            found[f"/webhooks/{folder.removesuffix('_webhook')}"] = address
    return found
