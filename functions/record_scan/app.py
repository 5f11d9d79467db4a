"""GuardDuty's scan results on the bucket's copies, through EventBridge and SQS: act on the verdict.

An upload that waits for it becomes ready or is rejected; one that was ready is taken away. A result
that says nothing of the file leaves it to `uploads.unscanned`, at the deadline or, when the scanner
does not support it, at once. Emits AssetReady, AssetRejected or AssetQuarantined.
"""

from typing import Any

from kyora import config
from kyora.assets import scan
from kyora.bus.consume import consume_aws
from kyora.bus.outcomes import Permanent
from kyora.observability import invoked

# GuardDuty user guide, "Monitoring S3 object scans with Amazon EventBridge": scanResultStatus.
RESULTS = {
    "NO_THREATS_FOUND": "clean",
    "THREATS_FOUND": "threats",
    "UNSUPPORTED": "unsupported",  # with a password, or beyond its quotas
    "ACCESS_DENIED": "failed",
    "FAILED": "failed",
}


def record(detail: dict[str, Any]) -> bool:
    try:
        key = detail["s3ObjectDetails"]["objectKey"]
        result = RESULTS[detail["scanResultDetails"]["scanResultStatus"]]
    except (KeyError, TypeError):
        raise Permanent("scan.unknown_result") from None
    if not isinstance(key, str):
        raise Permanent("scan.unknown_result")
    scan.record(key, result)
    return True


@invoked
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    config.require(config.database_url, config.storage, config.uploads, config.bus_name)
    return consume_aws(event, record)
