"""Photographs as phones write them, and the event that has their variants made."""

import io
import json
from functools import cache
from typing import Any

from PIL import Image, ImageCms, ImageDraw

from tests import events
from tests.integration.support import api, invariants
from tests.integration.support.samples import Sample

QUEUE = "arn:aws:sqs:eu-west-1:000000000000:kyora-test-variants"
SECRETS = (b"Kyora Phone 1", b"a comment", b"adobe:xmp", b"GPSLatitude", b"\xff\xd8\xff\xe0thumb")


@cache
def jpeg(width: int = 2400, height: int = 1600, orientation: int = 1) -> Sample:
    """A JPEG with a profile, EXIF with a place and a thumbnail, XMP and a comment.

    As it is shown, its corners are red (top left), green, blue and white (bottom right).
    """
    shown = Image.new("RGB", (width, height), "grey")
    draw, side = ImageDraw.Draw(shown), min(width, height) // 4
    for x, y, colour in (
        (0, 0, "red"),
        (width - side, 0, "lime"),
        (0, height - side, "blue"),
        (width - side, height - side, "white"),
    ):
        draw.rectangle((x, y, x + side, y + side), fill=colour)
    turns = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
    turn = turns[orientation]
    stored = shown if turn is None else shown.transpose(turn)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Kyora Phone 1"
    exif.get_ifd(0x8825)[2] = (24.0, 27.0, 0.0)  # latitude
    to = io.BytesIO()
    stored.save(
        to,
        "JPEG",
        quality=90,
        exif=exif.tobytes() + b"GPSLatitude \xff\xd8\xff\xe0thumb",
        icc_profile=profile(),
        comment=b"a comment",
        xmp=b"<x:xmpmeta xmlns:x='adobe:xmp'/>",
    )
    data = to.getvalue()
    assert [secret for secret in SECRETS if secret not in data] == []
    return Sample("mug.jpg", "image/jpeg", data, width, height)


@cache
def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@cache
def small() -> Sample:
    return jpeg(400, 300)


def ready(sample: Sample, **asked: Any) -> str:
    """Upload and confirm an image that wants variants; return the asset's id."""
    asset_id = api.upload(sample, **({"variants": True} | asked))
    assert api.confirm(asset_id).status == 200
    return asset_id


def record(asset_id: str, *, receives: int = 1) -> dict[str, Any]:
    """Return the queue's message with the AssetReady that is in the outbox."""
    [row] = invariants.rows(
        "SELECT detail::text AS detail FROM outbox WHERE detail_type = 'AssetReady'"
        " AND detail->'data'->>'assetId' = :id",
        id=asset_id,
    )
    body = {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "AssetReady",
        "source": "kyora.assets",
        "account": "000000000000",
        "time": "2026-11-23T07:36:09Z",
        "region": "eu-west-1",
        "resources": [],
        "detail": json.loads(row["detail"]),
    }
    return events.sqs_message(json.dumps(body), receives=receives, queue=QUEUE)


def deliver(*asset_ids: str) -> int:
    """Deliver the AssetReady of these; return how many have to come again."""
    batch = events.sqs_batch(*(record(asset_id) for asset_id in asset_ids))
    found = api.function("make_variants")(batch, api.Context(*[170_000] * 50))
    return len(found["batchItemFailures"])


def rebuild(**asked: Any) -> dict[str, Any]:
    """Do what `make variants` asks of the function."""
    found: dict[str, Any] = api.function("make_variants")(
        {"rebuild": asked}, api.Context(*[170_000] * 50)
    )
    return found


def state(asset_id: str) -> dict[str, Any]:
    [found] = invariants.rows("SELECT * FROM variant_set WHERE asset_id = :id", id=asset_id)
    return found


def break_lease(asset_id: str) -> None:
    """Let the lease of a worker that is gone be over."""
    invariants.run(
        "UPDATE variant_set SET lease_until = now() - interval '1 second'"
        " WHERE asset_id = :id AND status = 'making'",
        id=asset_id,
    )


def sizes(asset_id: str) -> int:
    """The bytes of the published variants."""
    [found] = invariants.rows(
        "SELECT coalesce(sum(size), 0)::bigint AS size FROM asset_variant WHERE asset_id = :id",
        id=asset_id,
    )
    return int(found["size"])


def images(asset_id: str) -> dict[tuple[str, str], tuple[dict[str, Any], bytes]]:
    """Fetch every variant that GET shows, by name and format."""
    found = {}
    for item in api.get(asset_id).body["variants"]:
        reply = api.http_call("GET", item["url"])
        assert reply.status == 200, reply
        found[item["name"], item["format"]] = (item, reply.body)
    return found
