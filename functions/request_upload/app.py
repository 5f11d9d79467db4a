"""POST /v1/assets/upload and /v1/assets/uploads: reserve storage, answer where to PUT the file.

Honours Idempotency-Key. Emits nothing: there is no file yet.
"""

from kyora import assets, http
from kyora.assets.models import UploadRequest, UploadsRequest, UploadTicket, UploadTickets


def request_upload(call: http.Call, file: UploadRequest) -> UploadTicket:
    return assets.request_one(call.principal, file, call.header("Idempotency-Key"))


def request_uploads(call: http.Call, files: UploadsRequest) -> UploadTickets:
    return assets.request_many(call.principal, files, call.header("Idempotency-Key"))


ROUTES: http.Routes = {
    "POST /v1/assets/upload": request_upload,
    "POST /v1/assets/uploads": request_uploads,
}
handler = http.entrypoint(ROUTES, "database", "storage")
