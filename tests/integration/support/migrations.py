"""The migration as CloudFormation asks for it."""

from tests.unit.functions import CONTEXT, function


def deploy(kind: str, url: str, **properties: str) -> None:
    event = {
        "RequestType": kind,
        "ResponseURL": f"{url}/answer?X-Amz-Signature=x",
        "StackId": "arn:stack",
        "RequestId": "request",
        "LogicalResourceId": "DatabaseMigration",
        "PhysicalResourceId": "DatabaseMigration-old",
        "ResourceProperties": properties,
    }
    function("migrate_database").handler(event, CONTEXT)
