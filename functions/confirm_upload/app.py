"""POST /v1/assets/{assetId}/confirm: verify the uploaded bytes and make the asset ready.

202 while another worker verifies them, or a scanner reads them. Emits AssetReady, AssetRejected
or AssetQuarantined.
"""

from kyora import config, http
from kyora.assets.confirm import confirm
from kyora.assets.models import Asset


def confirm_upload(call: http.Call) -> http.Answer[Asset]:
    asset = confirm(call.principal.workspace_id, call.path["assetId"])
    if asset.status == "ready":
        return http.Answer(asset)
    seconds = "1" if asset.status == "verifying" else "2"
    return http.Answer(asset, status=202, headers={"Retry-After": seconds})


ROUTES: http.Routes = {"POST /v1/assets/{assetId}/confirm": confirm_upload}
handler = http.entrypoint(
    ROUTES, config.database_url, config.storage, config.uploads, config.bus_name
)
