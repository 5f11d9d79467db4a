"""The answer of a Lambda-backed custom resource to its stack.

The physical id is a digest of the resource's properties: it changes with them, so every reference
to it in the template changes too.

Source: AWS CloudFormation User Guide, "Custom resource request and response reference".
"""

import hashlib
import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from kyora import tls
from kyora.observability import logger

_LONGEST = 4096  # bytes: the largest answer that CloudFormation accepts
_PERMISSIONS, _PAUSE = 30.0, 3.0  # seconds
_ATTEMPTS = 4  # without an answer the stack waits for an hour


def resource(event: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do `work` on Create and Update, and answer the stack; nothing is undone on Delete.

    Invoked by hand, without a stack, just do the work and return its result.
    """
    if "ResponseURL" not in event:
        return work()
    status, reason, data = "SUCCESS", "", dict[str, Any]()
    try:
        if event["RequestType"] != "Delete":
            data = work()
    except Exception as error:
        logger().exception("custom resource failed")
        status, reason = "FAILED", _reason(error)
    _answer(
        event["ResponseURL"],
        {
            "Status": status,
            "Reason": reason,
            "PhysicalResourceId": _physical_id(event),
            "StackId": event["StackId"],
            "RequestId": event["RequestId"],
            "LogicalResourceId": event["LogicalResourceId"],
            "Data": {name: _figure(value) for name, value in data.items()},
        },
    )
    return data


def when_permitted[T](work: Callable[[], T]) -> T:
    """Do `work`; while it is denied, try again for 30 s: new permissions take effect late.

    Source: IAM User Guide, "Changes that I make are not always immediately visible".
    """
    ends = time.monotonic() + _PERMISSIONS
    while True:
        try:
            return work()
        except Exception as error:
            if "AccessDenied" not in str(error) or time.monotonic() >= ends:
                raise
            logger().warning("not permitted yet")
        time.sleep(_PAUSE)


def _figure(value: object) -> str:
    """Return the length of a collection: the names of all migrations would be too long."""
    return str(len(value) if isinstance(value, list | tuple | dict) else value)[:100]


def _reason(error: Exception) -> str:
    """Return what failed and, in a word, why; people read it in the stack's events."""
    cause = error.__cause__
    detail = cause.args[0] if cause and cause.args else None
    state = detail.get("C", "") if isinstance(detail, dict) else ""
    why = f" ({type(cause).__name__}{state and f' {state}'})" if cause else ""
    return f"{type(error).__name__}: {error}{why}"


def _answer(url: str, answer: dict[str, Any]) -> None:
    """PUT the answer to CloudFormation, within its size limit."""
    answer["Reason"] = answer["Reason"][:500]
    if len(json.dumps(answer)) > _LONGEST:  # a non-ASCII letter is six bytes
        answer |= {"Reason": answer["Reason"][:200], "Data": {}}
    request = urllib.request.Request(  # noqa: S310  # CloudFormation's own presigned URL
        url, json.dumps(answer).encode(), {"Content-Type": ""}, method="PUT"
    )
    for attempt in range(_ATTEMPTS):
        try:
            urllib.request.urlopen(request, timeout=10, context=tls.context()).close()  # noqa: S310
            return
        except OSError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(2**attempt)


def _physical_id(event: dict[str, Any]) -> str:
    """Return the resource's new id; on Delete, the id being deleted."""
    if event["RequestType"] == "Delete":
        return str(event["PhysicalResourceId"])
    properties = json.dumps(event.get("ResourceProperties", {}), sort_keys=True)
    digest = hashlib.sha256(properties.encode()).hexdigest()
    return f"{event['LogicalResourceId']}-{digest[:16]}"
