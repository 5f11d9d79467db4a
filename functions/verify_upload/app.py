"""S3 "Object Created" on incoming/, through EventBridge and SQS: confirm if the client does not.

A message is done once its asset is verified or rejected, and is retried while another worker
holds the asset or a dependency is down. Emits AssetReady, AssetRejected or AssetQuarantined.
"""

from typing import Any

from kyora import config
from kyora.assets.confirm import confirm_from_event
from kyora.bus.consume import consume_aws
from kyora.observability import invoked


def confirm(detail: dict[str, Any]) -> bool:
    return confirm_from_event(detail["object"]["key"])


@invoked
def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    config.require(config.database_url, config.storage, config.uploads, config.bus_name)
    return consume_aws(event, confirm)
