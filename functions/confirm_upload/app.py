"""POST /v1/assets/{assetId}/confirm: verify the uploaded bytes and make the asset ready.

Emits AssetReady or AssetRejected.
"""

from aws_lambda_powertools.event_handler import Response

from kyora import assets, http
from kyora.assets.models import Asset

app = http.api()


@app.post("/v1/assets/<asset_id>/confirm")
def confirm_upload(asset_id: str) -> Response[Asset]:
    asset = assets.confirm(http.principal(app).workspace_id, asset_id)
    if asset.status == "ready":
        return http.answer(asset)
    return http.answer(asset, status=202, headers={"Retry-After": "1"})


handler = http.entrypoint(app, "database", "storage", "bus")
