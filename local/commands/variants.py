"""`make variants`: make the variants of images again, and report what became of them."""

from local.commands.remote import Ask
from local.progress import Trouble, say


def rebuild(ask: Ask, asset: str | None, *, failed: bool) -> None:
    """Rebuild one image's, those that failed, or all; each call does as many as it has time for.

    Raises Trouble if an image named by its id is not there, or if any has failed.
    """
    done, after = {"ready": 0, "failed": 0, "busy": 0}, ""
    while True:
        found = ask({"rebuild": {"asset": asset, "failed": failed, "after": after}})
        done = {name: count + found[name] for name, count in done.items()}
        if found["next"] is None:
            break
        after = str(found["next"])
    if asset and not any(done.values()):
        raise Trouble(f"there is no image {asset!r} that is ready")
    say(f"Variants made: {done['ready']}, failed: {done['failed']}, being made: {done['busy']}.")
    if done["failed"]:
        raise Trouble("the log of make_variants and AssetVariantsFailed say why")
