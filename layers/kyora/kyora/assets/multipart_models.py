"""Uploads in parts, as clients send and get them."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, StrictInt, StringConstraints

from kyora.api import AnswerBody, RequestBody
from kyora.assets.upload_models import Digest


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
    sha256: Digest | None = Field(
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
