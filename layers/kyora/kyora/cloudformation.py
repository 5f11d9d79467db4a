"""The answer a Lambda-backed custom resource owes its stack.

The resource's physical id is a digest of its properties: it changes with them, and so tells
whatever refers to it in the template that something is new.

Source: AWS CloudFormation User Guide, "Custom resource request and response reference".
"""

import hashlib
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
        "PhysicalResourceId": _physical_id(event),
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


def _physical_id(event: dict[str, Any]) -> str:
    """Return the id the resource has from now on; on Delete, the one being deleted."""
    if event["RequestType"] == "Delete":
        return str(event["PhysicalResourceId"])
    properties = json.dumps(event.get("ResourceProperties", {}), sort_keys=True)
    digest = hashlib.sha256(properties.encode()).hexdigest()
    return f"{event['LogicalResourceId']}-{digest[:16]}"
