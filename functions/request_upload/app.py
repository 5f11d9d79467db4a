"""POST /v1/assets/upload and /v1/assets/uploads: reserve storage, answer where to PUT the file.

Honours Idempotency-Key. Emits nothing: there is no file yet.
"""

from kyora import http
from kyora.assets import requests
from kyora.assets.tickets import UploadRequest, UploadsRequest, UploadTicket, UploadTickets


def request_upload(call: http.Call, file: UploadRequest) -> UploadTicket:
    return requests.request_one(call.principal, file, call.header("Idempotency-Key"))


def request_uploads(call: http.Call, files: UploadsRequest) -> UploadTickets:
    return requests.request_many(call.principal, files, call.header("Idempotency-Key"))


ROUTES: http.Routes = {
    "POST /v1/assets/upload": request_upload,
    "POST /v1/assets/uploads": request_uploads,
}
handler = http.entrypoint(ROUTES, "database", "storage")
