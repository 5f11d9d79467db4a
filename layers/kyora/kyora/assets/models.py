"""A file of a workspace, as clients get it."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from kyora.api import AnswerBody

Status = Literal["pending", "verifying", "scanning", "ready", "rejected", "expired"]


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
