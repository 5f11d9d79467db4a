"""POST /v1/assets/upload, /v1/assets/uploads, /v1/assets/{assetId}/upload-url: return upload URLs.

The first two reserve storage and honour Idempotency-Key; the third renews the URL of a pending
asset. Emits nothing: there is no file yet.
"""

from kyora import config, http
from kyora.assets import renewals, requests
from kyora.assets.upload_models import UploadRequest, UploadsRequest, UploadTicket, UploadTickets


def request_upload(call: http.Call, file: UploadRequest) -> UploadTicket:
    return requests.request_one(call.principal, file, call.header("Idempotency-Key"))


def request_uploads(call: http.Call, files: UploadsRequest) -> UploadTickets:
    return requests.request_many(call.principal, files, call.header("Idempotency-Key"))


def renew_upload_url(call: http.Call) -> UploadTicket:
    return renewals.upload_url(call.principal, call.path["assetId"])


ROUTES: http.Routes = {
    "POST /v1/assets/upload": request_upload,
    "POST /v1/assets/uploads": request_uploads,
    "POST /v1/assets/{assetId}/upload-url": renew_upload_url,
}
handler = http.entrypoint(
    ROUTES, config.database_url, config.storage, config.public_base_url, config.uploads
)
