"""The answer a Lambda-backed custom resource owes its stack.

Source: AWS CloudFormation User Guide, "Custom resource request and response reference".
"""

import json
import urllib.request
from collections.abc import Callable
from typing import Any

from kyora.observability import logger


def resource(event: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do `work` on Create and Update, and tell the stack; nothing is undone on Delete.

    Without a stack behind it (invoked by hand), just do the work and return its result.
    """
    if "ResponseURL" not in event:
        return work()
    status, reason, data = "SUCCESS", "", dict[str, Any]()
    try:
        if event["RequestType"] != "Delete":
            data = work()
    except Exception as error:
        logger().exception("custom resource failed")
        status, reason = "FAILED", f"{type(error).__name__}: {error}"[:500]
    body = {
        "Status": status,
        "Reason": reason,
        "PhysicalResourceId": event.get("PhysicalResourceId", event["LogicalResourceId"]),
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
        "Data": {name: json.dumps(value) for name, value in data.items()},
    }
    request = urllib.request.Request(  # noqa: S310  # CloudFormation's own presigned URL
        event["ResponseURL"], json.dumps(body).encode(), {"Content-Type": ""}, method="PUT"
    )
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
    return data
