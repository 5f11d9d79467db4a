"""AssetReady of an image that wants variants, through SQS: make them, each set once.

`make variants` invokes it to make them again. Emits AssetVariantsReady or AssetVariantsFailed.
"""

from typing import Any

from kyora import config
from kyora.assets.variants import make, rebuild
from kyora.bus.consume import consume
from kyora.observability import begin


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    config.require(config.database_url, config.storage, config.public_base_url, config.bus_name)
    if "rebuild" in event:
        begin(context.aws_request_id)
        return rebuild.by_hand(event["rebuild"], context.get_remaining_time_in_millis)
    return consume(event, make.make_once)
