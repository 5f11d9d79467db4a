"""What clients send to upload files, the tickets they get, and assets as they see them."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    StrictInt,
    StringConstraints,
)

from kyora.api import AnswerBody, RequestBody
from kyora.assets.filename import clean

Status = Literal["pending", "verifying", "ready", "rejected", "expired"]


def _digest(value: str) -> str:
    try:
        raw = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != 32 or base64.b64encode(raw).decode() != value:
        raise ValueError("must be 32 bytes in base64")
    return value


class UploadRequest(RequestBody):
    """A file that a client wants to upload."""

    filename: Annotated[
        str, StringConstraints(min_length=1, max_length=1024), AfterValidator(clean)
    ] = Field(description="Display name with its extension.", examples=["mug.png"])
    content_type: Annotated[str, StringConstraints(max_length=255)] | None = Field(
        default=None,
        description="As the browser says it (`File.type`): parameters, other names of the type, "
        "an empty text and application/octet-stream are accepted, the extension decides. The "
        "ticket's `headers` say which type was chosen.",
        examples=["image/png"],
    )
    size: Annotated[StrictInt, Field(ge=0, le=2**53)] = Field(
        description="In bytes; only a csv or txt may have none."
    )
    sha256: Annotated[str, AfterValidator(_digest)] | None = Field(
        default=None, description="SHA-256 of the file in base64; bound to the upload when given."
    )
    purpose: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")] | None = Field(
        default=None, description="What the file is for.", examples=["product_photo"]
    )


class UploadsRequest(RequestBody):
    """Up to 50 files at once; each is judged by itself."""

    files: Annotated[list[dict[str, object]], Field(min_length=1, max_length=50)] = Field(
        description="Each as the body of POST /v1/assets/upload."
    )


class UploadTicket(AnswerBody):
    """Where to PUT the file. Every header must be sent exactly as given.

    `Content-Type` among them is the type that was chosen.
    """

    asset_id: str
    upload_url: str
    method: Literal["PUT"] = "PUT"
    headers: dict[str, str]
    expires_at: datetime


class RefusedUpload(AnswerBody):
    """Why one file of several was refused: the problem it would have got alone."""

    error: dict[str, object]


class UploadTickets(AnswerBody):
    """An answer for each file, in the order they were asked for."""

    uploads: list[UploadTicket | RefusedUpload]


class Asset(AnswerBody):
    """A file of a workspace. It has a `downloadUrl` once it is `ready`."""

    asset_id: str
    status: Status
    filename: str
    content_type: str
    size: int
    sha256: str | None = None
    width: int | None = Field(
        default=None, description="Of an image or a video, in pixels, as it is shown."
    )
    height: int | None = None
    duration_ms: int | None = Field(default=None, description="Of a video or a sound.")
    created_at: datetime
    download_url: str | None = None
