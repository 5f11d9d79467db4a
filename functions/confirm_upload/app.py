"""POST /v1/assets/{assetId}/confirm: verify the uploaded bytes and make the asset ready.

202 while another worker verifies them. Emits AssetReady or AssetRejected.
"""

from kyora import config, http
from kyora.assets.confirm import confirm
from kyora.assets.models import Asset


def confirm_upload(call: http.Call) -> http.Answer[Asset]:
    asset = confirm(call.principal.workspace_id, call.path["assetId"])
    if asset.status == "ready":
        return http.Answer(asset)
    return http.Answer(asset, status=202, headers={"Retry-After": "1"})


ROUTES: http.Routes = {"POST /v1/assets/{assetId}/confirm": confirm_upload}
handler = http.entrypoint(
    ROUTES, config.database_url, config.storage, config.uploads, config.bus_name
)
