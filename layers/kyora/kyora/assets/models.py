"""An asset as clients see it."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Status = Literal["pending", "verifying", "ready", "rejected", "expired"]


class Asset(BaseModel):
    """A file of a workspace. It has a `downloadUrl` once it is `ready`."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)

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
