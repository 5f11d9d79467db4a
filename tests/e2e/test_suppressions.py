"""A bounce that Resend reports, and the command that lists and lifts the suppression."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path

from tests.e2e.commands import emit, query, run
from tests.e2e.conftest import Stack, request, wait


def report(stack: Stack, event: dict[str, object]) -> int:
    """Post an event as Resend signs it; return the status."""
    body = json.dumps(event).encode()
    svix_id, stamp = f"msg_{time.time_ns()}", str(int(time.time()))
    secret = stack.env["EMAIL_RESEND_WEBHOOK_SECRET"].removeprefix("whsec_")
    signed = f"{svix_id}.{stamp}.".encode() + body
    digest = hmac.new(base64.b64decode(secret), signed, hashlib.sha256).digest()
    headers = {
        "Content-Type": "application/json",
        "Svix-Id": svix_id,
        "Svix-Timestamp": stamp,
        "Svix-Signature": "v1," + base64.b64encode(digest).decode(),
    }
    return request("POST", f"{stack.env['KYORA_URL']}/webhooks/resend", body, headers).status


def test_a_bounce_stops_mail_until_it_is_lifted(stack: Stack, tmp_path: Path) -> None:
    address = "nobody.there@demo.example"
    file = tmp_path / "event.json"
    file.write_text(json.dumps({"email": address}))
    assert run(stack, "suppressions").stdout.strip() == "Mail goes to every address."

    bounce = {"type": "Permanent", "subType": "General"}
    data = {"email_id": "x", "to": [address], "bounce": bounce}
    assert report(stack, {"type": "email.bounced", "data": data}) == 200
    listed = run(stack, "suppressions")
    assert "n***@d***.example" in listed.stdout
    assert "bounced" in listed.stdout
    assert address not in listed.stdout + listed.stderr
    assert address in run(stack, "suppressions", "--show").stdout

    event_id = emit(stack, "EmailVerificationRequested", file)
    status = "select status, reason from email_message where event_id = :event"
    skipped = [["skipped", "suppressed"]]
    wait(lambda: query(stack, status, event=event_id) == skipped, 120, "mail that is not sent")

    lifted = run(stack, "suppressions", "--lift", address.upper())
    assert lifted.stdout.strip() == "Mail goes there again."
    assert "Nothing held" in run(stack, "suppressions", "--lift", address).stdout
    event_id = emit(stack, "EmailVerificationRequested", file)
    sent = [["sent", None]]
    wait(lambda: query(stack, status, event=event_id) == sent, 120, "mail to the lifted address")
