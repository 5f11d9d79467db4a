"""What a CDN would serve in production: the public variants of images, without a signature.

They are in the folder of the `local` provider, or below public/ of the emulator's bucket.
"""

import asyncio
from collections.abc import Iterator

from aiohttp import web

from kyora import config
from kyora.errors import KyoraError
from kyora.storage import local as provider
from local.settings import Settings
from local.stack import deploy, emulator
from local.web import storage


def mount(app: web.Application, stack: Settings, folder: config.Storage) -> None:
    """Serve /public/* on this application; `folder` is the local provider's configuration."""
    of_a_bucket = stack.environ.get("STORAGE_PROVIDER", "s3") != "local"

    async def get(request: web.Request) -> web.StreamResponse:
        key = f"public/{request.match_info['key']}"
        try:
            if of_a_bucket:
                headers, body = await asyncio.to_thread(_from_bucket, stack, key)
            else:
                headers, chunks = await asyncio.to_thread(provider.serve_public, folder, key)
                body = await asyncio.to_thread(_joined, chunks)
        except KyoraError as error:
            return storage.problem(request, error)
        return web.Response(body=body, headers={**headers, "Access-Control-Allow-Origin": "*"})

    app.router.add_get("/public/{key:.*}", get)


def _joined(chunks: Iterator[bytes]) -> bytes:
    return b"".join(chunks)


def _from_bucket(stack: Settings, key: str) -> tuple[dict[str, str], bytes]:
    """Read an object with its headers, as a distribution in front of the bucket would."""
    from botocore.exceptions import ClientError

    deployed = deploy.stack(stack) or {}
    client = emulator.client("s3", stack.gateway_port)
    try:
        found = client.get_object(Bucket=deployed["Bucket"], Key=key)
    except (ClientError, KeyError):
        raise provider.missing() from None
    with found["Body"] as body:
        data = bytes(body.read())
    headers = {
        "Content-Type": found["ContentType"],
        "Content-Disposition": found.get("ContentDisposition", "inline"),
        "Cache-Control": found.get("CacheControl", ""),
        "ETag": found["ETag"],
        "X-Content-Type-Options": "nosniff",
    }
    return headers, data
