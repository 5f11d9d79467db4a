"""POST /v1/assets/upload and /v1/assets/uploads: reserve storage, answer where to PUT the file.

Honours Idempotency-Key. Emits nothing: there is no file yet.
"""

from kyora import assets, http
from kyora.assets.models import UploadRequest, UploadsRequest, UploadTicket, UploadTickets

app = http.api()


@app.post("/v1/assets/upload")
def request_upload(upload: UploadRequest) -> UploadTicket:
    return assets.request_one(http.principal(app), upload, http.header(app, "Idempotency-Key"))


@app.post("/v1/assets/uploads")
def request_uploads(uploads: UploadsRequest) -> UploadTickets:
    return assets.request_many(http.principal(app), uploads, http.header(app, "Idempotency-Key"))


handler = http.entrypoint(app, "database", "storage")
