"""Requests for uploads and their tickets, as clients send and get them."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictInt, StringConstraints

from kyora.api import AnswerBody, RequestBody
from kyora.assets.filename import clean


def _digest(value: str) -> str:
    try:
        raw = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != 32 or base64.b64encode(raw).decode() != value:
        raise ValueError("must be 32 bytes in base64")
    return value


Digest = Annotated[str, AfterValidator(_digest)]


class UploadRequest(RequestBody):
    """A file that a client wants to upload."""

    filename: Annotated[
        str, StringConstraints(min_length=1, max_length=1024), AfterValidator(clean)
    ] = Field(description="Display name with its extension.", examples=["mug.png"])
    content_type: Annotated[str, StringConstraints(max_length=255)] | None = Field(
        default=None,
        description="`File.type` as the browser has it, or nothing: parameters, other names of the "
        "type, an empty string and application/octet-stream are accepted. The extension decides; "
        "the ticket's `headers` name the chosen type.",
        examples=["image/png"],
    )
    size: Annotated[StrictInt, Field(ge=0, le=2**53)] = Field(
        description="In bytes; only a csv or txt may be empty."
    )
    sha256: Digest | None = Field(
        default=None,
        description="SHA-256 of the file in base64. If given, no other bytes can be uploaded.",
    )
    purpose: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")] | None = Field(
        default=None, description="What the file is for.", examples=["product_photo"]
    )
    variants: StrictBool = Field(
        default=False,
        description="Of an image: make smaller copies once it is ready. GET then shows them.",
    )
    public: StrictBool = Field(
        default=False,
        description="With `variants`: give each of them an address that anyone can read and that "
        "never changes. The file itself stays private.",
    )


class UploadsRequest(RequestBody):
    """Up to 50 files at once; each is accepted or refused on its own."""

    files: Annotated[list[dict[str, object]], Field(min_length=1, max_length=50)] = Field(
        description="Each is a body of POST /v1/assets/upload."
    )


class UploadTicket(AnswerBody):
    """Where to PUT the file. Send every header as given; `Content-Type` is the chosen type."""

    asset_id: str
    upload_url: str
    method: Literal["PUT"] = "PUT"
    headers: dict[str, str]
    expires_at: datetime


class RefusedUpload(AnswerBody):
    """Why one of several files was refused: the problem document it would get alone."""

    error: dict[str, object]


class UploadTickets(AnswerBody):
    """A ticket or a refusal for each file, in the order of the request."""

    uploads: list[UploadTicket | RefusedUpload]
