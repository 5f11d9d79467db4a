"""S3 "Object Created" on incoming/, through EventBridge and SQS: confirm for a client that left.

A message is done with once its asset is ready or refused, and tried again while another worker
holds it or a dependency is down. Emits AssetReady or AssetRejected.
"""

from typing import Any

from kyora import config
from kyora.assets.confirm import confirm_from_event
from kyora.bus.consume import consume_aws


def confirm(detail: dict[str, Any]) -> bool:
    return confirm_from_event(detail["object"]["key"])


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    config.require(config.database_url, config.storage, config.uploads, config.bus_name)
    return consume_aws(event, confirm)
