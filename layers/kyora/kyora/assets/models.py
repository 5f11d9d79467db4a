"""Assets and uploads as clients send and get them."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
)

from kyora.api import AnswerBody, RequestBody
from kyora.assets.filename import clean

Status = Literal["pending", "verifying", "scanning", "ready", "rejected", "expired"]


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
        description="`File.type` as the browser has it, or nothing: parameters, other names of the "
        "type, an empty string and application/octet-stream are accepted. The extension decides; "
        "the ticket's `headers` name the chosen type.",
        examples=["image/png"],
    )
    size: Annotated[StrictInt, Field(ge=0, le=2**53)] = Field(
        description="In bytes; only a csv or txt may be empty."
    )
    sha256: Annotated[str, AfterValidator(_digest)] | None = Field(
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


class MultipartUpload(AnswerBody):
    """The plan of an upload in parts: each has `partSize` bytes, the last what is left."""

    asset_id: str
    upload_id: str
    part_size: int
    parts: int = Field(description="How many parts there are; they are numbered from 1.")


class PartRequest(RequestBody):
    """A part of the plan that the client is about to send."""

    number: Annotated[StrictInt, Field(ge=1, le=10_000)]
    size: Annotated[StrictInt, Field(ge=1, le=2**53)] = Field(
        description="In bytes: `partSize`, and what is left for the last part."
    )
    sha256: Annotated[str, AfterValidator(_digest)] | None = Field(
        default=None,
        description="SHA-256 of the part in base64. If given, no other bytes can be uploaded. "
        "Give one for every part of a file, or for none.",
    )


class PartsRequest(RequestBody):
    """Up to a hundred parts of one upload."""

    parts: Annotated[list[PartRequest], Field(min_length=1, max_length=100)]


class SignedPart(AnswerBody):
    """Where to PUT a part. Send every header as given."""

    number: int
    url: str
    headers: dict[str, str]
    expires_at: datetime


class SignedParts(AnswerBody):
    """A URL for each part, in the order of the request."""

    parts: list[SignedPart]


class UploadedPart(AnswerBody):
    """A part that has arrived."""

    number: int
    size: int
    etag: str


class UploadedParts(AnswerBody):
    """What has arrived of an upload."""

    asset_id: str
    upload_id: str
    part_size: int
    parts: list[UploadedPart]


class CompletedPart(RequestBody):
    """A part and the ETag that its PUT was answered with."""

    number: Annotated[StrictInt, Field(ge=1, le=10_000)]
    etag: Annotated[str, StringConstraints(min_length=1, max_length=128)]


class CompleteRequest(RequestBody):
    """Every part of the plan, in any order."""

    parts: Annotated[list[CompletedPart], Field(min_length=1, max_length=10_000)]


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


class Variant(AnswerBody):
    """A smaller copy of an image, without its metadata; `url` is public or signed."""

    name: Literal["small", "medium", "large"]
    format: Literal["webp", "jpeg"]
    width: int
    height: int
    size: int = Field(description="In bytes.")
    url: str


class Asset(AnswerBody):
    """A file of a workspace. It has a `downloadUrl` once it is `ready`."""

    asset_id: str
    status: Status
    filename: str
    content_type: str
    size: int
    sha256: str | None = None
    width: int | None = Field(
        default=None, description="Of an image or a video, in pixels as shown."
    )
    height: int | None = None
    duration_ms: int | None = Field(default=None, description="Of a video or audio file.")
    created_at: datetime
    download_url: str | None = None
    variants: list[Variant] | None = Field(
        default=None, description="Those that were asked for, once they are made; smallest first."
    )
