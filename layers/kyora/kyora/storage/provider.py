"""The configured store. Only its own module is imported."""

from kyora import config
from kyora.storage.types import Storage


def provider() -> Storage:
    """Return the configured store."""
    found = config.storage()
    if found.provider == "local":
        from kyora.storage import local

        return local.Local(found)
    from kyora.storage import s3

    return s3.S3(found)
