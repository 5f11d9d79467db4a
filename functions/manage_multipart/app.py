"""POST /v1/assets/multipart, and what is below /v1/assets/{assetId}/multipart: files in parts.

Reserves storage, signs the PUT of each part, lists what has arrived, joins the parts or gives them
up. Emits nothing: confirm follows as for every upload.
"""

from kyora import config, http
from kyora.assets import multipart
from kyora.assets.models import Asset
from kyora.assets.multipart_models import (
    CompleteRequest,
    MultipartUpload,
    PartsRequest,
    SignedParts,
    UploadedParts,
)
from kyora.assets.upload_models import UploadRequest


def start_multipart(call: http.Call, file: UploadRequest) -> MultipartUpload:
    return multipart.start(call.principal, file, call.header("Idempotency-Key"))


def sign_parts(call: http.Call, parts: PartsRequest) -> SignedParts:
    return multipart.sign_parts(call.principal, call.path["assetId"], parts)


def list_parts(call: http.Call) -> UploadedParts:
    return multipart.list_parts(call.principal, call.path["assetId"])


def complete_multipart(call: http.Call, parts: CompleteRequest) -> Asset:
    return multipart.complete(call.principal, call.path["assetId"], parts)


def abort_multipart(call: http.Call) -> None:
    multipart.abort(call.principal, call.path["assetId"])


ROUTES: http.Routes = {
    "POST /v1/assets/multipart": start_multipart,
    "POST /v1/assets/{assetId}/multipart/parts": sign_parts,
    "GET /v1/assets/{assetId}/multipart/parts": list_parts,
    "POST /v1/assets/{assetId}/multipart/complete": complete_multipart,
    "DELETE /v1/assets/{assetId}/multipart": abort_multipart,
}
handler = http.entrypoint(
    ROUTES, config.database_url, config.storage, config.public_base_url, config.uploads
)
