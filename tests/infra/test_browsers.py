"""What the code hands to a browser is what the bucket and the API let a browser do."""

from typing import Any

from kyora.assets import renewals
from kyora.config import Storage
from kyora.storage.s3 import S3
from tests.infra import rules


def bucket(stack: dict[str, Any]) -> dict[str, Any]:
    [only] = rules.of(stack, "AWS::S3::Bucket").values()
    return only


def test_the_bucket_takes_every_header_that_an_upload_must_send(
    stack: dict[str, Any], environment: None
) -> None:
    settings = Storage("s3", s3_bucket="files", s3_region="eu-west-1")
    upload = S3(settings).presign_put("incoming/ws/ast", "image/png", 68, "A" * 43 + "=", 900)
    [rule] = bucket(stack)["CorsConfiguration"]["Fn::If"][1]["CorsRules"]
    assert {name.lower() for name in upload.headers} <= set(rule["AllowedHeaders"])


def test_the_bucket_takes_an_upload_for_as_long_as_its_address_says(stack: dict[str, Any]) -> None:
    [policy] = rules.of(stack, "AWS::S3::BucketPolicy").values()
    [age] = [
        int(limit["s3:signatureAge"])
        for statement in policy["PolicyDocument"]["Statement"]
        if (limit := statement.get("Condition", {}).get("NumericGreaterThan"))
    ]
    assert renewals.URL_SECONDS * 1000 <= age <= 900_000  # milliseconds


def test_the_bucket_forgets_an_upload_only_after_it_can_no_longer_be_confirmed(
    stack: dict[str, Any],
) -> None:
    days = [
        rule["ExpirationInDays"]
        for rule in bucket(stack)["LifecycleConfiguration"]["Rules"]
        if rule.get("Prefix") == "incoming/"
    ]
    assert days == [1]
    assert renewals.CONFIRM_SECONDS < 24 * 3600


def test_the_api_lets_a_browser_use_every_method_and_header(stack: dict[str, Any]) -> None:
    [api] = rules.of(stack, "AWS::ApiGatewayV2::Api").values()
    cors = api["Body"]["x-amazon-apigateway-cors"]["Fn::If"][1]
    methods = {route.split()[0] for route, _ in rules.operations(stack) if route != "$default"}
    assert methods <= set(cors["allowMethods"])
    assert {"authorization", "content-type", "idempotency-key"} <= set(cors["allowHeaders"])
    assert {"x-request-id", "retry-after"} <= set(cors["exposeHeaders"])
    assert cors["allowOrigins"].keys() == {"Fn::Split"}
