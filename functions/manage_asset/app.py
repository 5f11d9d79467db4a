"""GET and DELETE /v1/assets/{assetId}: read an asset with its download URL, or delete it.

DELETE emits AssetDeleted for an asset that was ready.
"""

from kyora import config, http
from kyora.assets import manage
from kyora.assets.models import Asset


def get_asset(call: http.Call) -> Asset:
    return manage.get(call.principal.workspace_id, call.path["assetId"])


def delete_asset(call: http.Call) -> None:
    manage.delete(call.principal.workspace_id, call.path["assetId"])


ROUTES: http.Routes = {
    "GET /v1/assets/{assetId}": get_asset,
    "DELETE /v1/assets/{assetId}": delete_asset,
}
handler = http.entrypoint(
    ROUTES, config.database_url, config.storage, config.public_base_url, config.bus_name
)
