"""GET and DELETE /v1/assets/{assetId}: read an asset with its download URL, or delete it.

DELETE emits AssetDeleted for an asset that was ready.
"""

from aws_lambda_powertools.event_handler import Response

from kyora import assets, http
from kyora.assets.models import Asset

app = http.api()


@app.get("/v1/assets/<asset_id>")
def get_asset(asset_id: str) -> Asset:
    return assets.get(http.principal(app).workspace_id, asset_id)


@app.delete("/v1/assets/<asset_id>")
def delete_asset(asset_id: str) -> Response[None]:
    assets.delete(http.principal(app).workspace_id, asset_id)
    return Response(status_code=204)


handler = http.entrypoint(app, "database", "storage", "bus")
