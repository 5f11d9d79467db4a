"""Mail about files: to the workspace's owner."""

from datetime import timedelta

from kyora.bus import events
from kyora.email.mails.mail import Context, Data, Mail, Person, Values

# ---- asset_quarantined


class AssetQuarantined(Data):
    """A scanner has found malware in a file of the workspace."""

    name: Person
    filename: Person
    was_ready: bool = False


def _asset_quarantined(event: events.AssetQuarantined, context: Context) -> Values:
    return {
        "name": context.name,
        "filename": event.filename or "",
        "wasReady": bool(event.was_ready),
    }


ASSET_QUARANTINED = Mail(
    id="asset_quarantined",
    event=events.AssetQuarantined,
    data=AssetQuarantined,
    lifetime=timedelta(days=7),
    fill=_asset_quarantined,
)
