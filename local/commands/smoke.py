"""`make smoke`: test each integration of a stack end to end, clean up, and report what failed.

Each check takes the way of a client, of Stripe or of an event. Slow checks are started first and
waited for together; a check that fails does not stop the others.
"""

import base64
import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

from local.commands import events
from local.commands.place import Place
from local.commands.remote import Ask
from local.progress import Trouble, say
from local.stack.guide import SAMPLE
from local.tools.event_samples import sample

# Resend delivers mail to this address to no one, and reports it as delivered.
TO = "delivered@resend.dev"
_ANSWER = 35.0  # seconds: the API gives up after 30
_ONE_PART = 8 << 20  # bytes: a file that is larger has several parts

type Json = dict[str, Any]


class Address(NamedTuple):
    """A stack's addresses: its API, and the one that Stripe posts to."""

    api: str
    stripe: str


def address(place: Place) -> Address:
    """Return a stack's addresses; those of a deployed one are outputs of the stack."""
    if place.local:
        api = place.environ["KYORA_URL"]
        return Address(api, f"{api}/webhooks/stripe")
    found = place.client("cloudformation").describe_stacks(StackName=place.bus)["Stacks"][0]
    outputs = {item["OutputKey"]: item["OutputValue"] for item in found["Outputs"]}
    return Address(outputs["ApiUrl"], outputs["StripeWebhookUrl"])


class Failed(Exception):
    """A check found something broken; the text says what."""


class Answer(NamedTuple):
    """An HTTP answer; `json` is empty when the body is not JSON."""

    status: int
    body: bytes

    @property
    def json(self) -> Json:
        """The body, or an empty object when it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def wanted(self, what: str, *statuses: int) -> Json:
        """Return the body. Raises Failed when the status is another one."""
        if self.status not in statuses:
            code = self.json.get("code") or self.json.get("message") or ""
            raise Failed(f"{what} answered {self.status} {code}".rstrip())
        return self.json


@dataclass
class Run:
    """A run in progress: on which stack, as whom, and what it has started."""

    place: Place
    address: Address
    ask: Ask
    plans: Ask
    to: str
    patience: float
    workspace: str = ""
    business: str = ""
    token: str = ""
    left: str = ""
    made: list[str] = field(default_factory=list)  # assets to delete
    events: dict[str, str] = field(default_factory=dict)
    stripe: str = field(default_factory=lambda: f"evt_smoke_{time.time_ns():x}")

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """Ask the API as the run's admin."""
        sent = {"Authorization": f"Bearer {self.token}"}
        if body is not None:
            sent["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        return request(method, self.address.api + path, data, sent)

    def look(self) -> Json:
        """Return what the database knows of the run."""
        return self.ask(
            {
                "smoke": {
                    "step": "look",
                    "business": self.business,
                    "mail": self.events.get("e-mail", ""),
                    "stripe": self.stripe,
                }
            }
        )

    def until[T](self, look: Callable[[], T | None], why: Callable[[], str]) -> T:
        """Look until there is something. Raises Failed with `why` after `patience` seconds."""
        ends = time.monotonic() + self.patience
        while True:
            if (found := look()) is not None:
                return found
            if time.monotonic() > ends:
                raise Failed(f"{why()} after {self.patience:.0f} s")
            time.sleep(1)


class Check(NamedTuple):
    """A check: how it begins, how it ends, and where to look when it fails."""

    name: str
    begin: Callable[[Run], None]
    finish: Callable[[Run], str]
    functions: tuple[str, ...]
    todo: str


def request(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
    """Make one request; a status is an answer. Raises Failed when there is none."""
    outgoing = urllib.request.Request(url, body, dict(headers), method=method)
    try:
        with urllib.request.urlopen(outgoing, timeout=_ANSWER) as found:
            return Answer(found.status, found.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return Answer(refused.code, refused.read())
    except OSError as error:
        host = url.split("/")[2]
        raise Failed(f"{host} does not answer: {getattr(error, 'reason', error)}") from None


# ---- the checks


def _nothing(_: Run) -> None:
    pass


def _health(run: Run) -> str:
    found = run.call("GET", "/v1/health").wanted("the API", 200)
    return f"version {found.get('version', '?')}, database {found.get('database', '?')}"


def _put(run: Run) -> str:
    """Ask for an upload and PUT the file; return the asset's id."""
    asked = {"filename": "smoke.png", "size": len(SAMPLE), "sha256": _digest(SAMPLE)}
    asked["contentType"] = "image/png"
    ticket = run.call("POST", "/v1/assets/upload", asked).wanted("request_upload", 200)
    run.made.append(ticket["assetId"])
    stored = request("PUT", ticket["uploadUrl"], SAMPLE, ticket["headers"])
    stored.wanted("the bucket, to a PUT of the signed address,", 200)
    return str(ticket["assetId"])


def _digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _confirmed(run: Run, asset: str) -> Json:
    def confirmed() -> Answer | None:
        found = run.call("POST", f"/v1/assets/{asset}/confirm")
        return None if found.status == 202 else found  # another request or a scanner has it

    waits = "the upload was still being verified or scanned"
    return run.until(confirmed, lambda: waits).wanted("confirm_upload", 200)


def _delete(run: Run, asset: str) -> None:
    run.call("DELETE", f"/v1/assets/{asset}").wanted("manage_asset", 204)
    run.made.remove(asset)


def _upload(run: Run) -> str:
    asset = _put(run)
    shown = _confirmed(run, asset)
    got = request("GET", shown["downloadUrl"], None, {})
    got.wanted("the bucket, to a GET of the signed address,", 200)
    if got.body != SAMPLE:
        raise Failed("the file that came back is another one")
    _delete(run, asset)
    return "asked, put, confirmed, downloaded, deleted"


def _in_parts(run: Run) -> str:
    """Upload a file of two parts, with a look at what has arrived between them."""
    file = SAMPLE + bytes(_ONE_PART)  # a decoder ignores what follows a PNG's end
    asked = {"filename": "smoke.png", "size": len(file), "contentType": "image/png"}
    plan = run.call("POST", "/v1/assets/multipart", asked).wanted("manage_multipart", 200)
    asset, size = str(plan["assetId"]), int(plan["partSize"])
    run.made.append(asset)
    path = f"/v1/assets/{asset}/multipart"
    for number in range(1, plan["parts"] + 1):
        part = file[(number - 1) * size : number * size]
        wanted = {"number": number, "size": len(part), "sha256": _digest(part)}
        signed = run.call("POST", f"{path}/parts", {"parts": [wanted]})
        [ticket] = signed.wanted("manage_multipart, asked to sign a part,", 200)["parts"]
        stored = request("PUT", ticket["url"], part, ticket["headers"])
        stored.wanted("the bucket, to a PUT of a part,", 200)
    listed = run.call("GET", f"{path}/parts").wanted("manage_multipart, asked what arrived,", 200)
    named = [{"number": part["number"], "etag": part["etag"]} for part in listed["parts"]]
    joined = run.call("POST", f"{path}/complete", {"parts": named})
    joined.wanted("manage_multipart, asked to join the parts,", 200)
    if _confirmed(run, asset)["sha256"] != _digest(file):
        raise Failed("the parts were joined to another file")
    _delete(run, asset)
    return f"{len(named)} parts signed, put, listed, joined, confirmed, deleted"


def _leave(run: Run) -> None:
    run.left = _put(run)


def _verified(run: Run) -> str:
    def ready() -> str | None:
        found = run.call("GET", f"/v1/assets/{run.left}").wanted("manage_asset", 200)
        return found["status"] if found["status"] in ("ready", "rejected") else None

    status = run.until(ready, lambda: "a file without a confirm was not verified")
    if status != "ready":
        raise Failed(f"the file was {status}")
    return "a file without a confirm was verified by the bucket's event"


def _emit(run: Run, check: str, name: str, more: Json) -> None:
    data = sample(name)[0] | more
    run.events[check] = events.put(run.place, name, data, run.workspace)


def _order(run: Run) -> None:
    _emit(run, "analytics", "OrderCreated", {"businessId": run.business})


def _counted(run: Run) -> str:
    today = datetime.now(UTC).date()
    query = {"businessId": run.business, "from": today - timedelta(1), "to": today + timedelta(1)}

    def orders() -> int | None:
        found = run.call("GET", f"/v1/analytics/summary?{urlencode(query)}")
        days = found.wanted("summarise_analytics", 200)["days"]
        return sum(day["orders"] for day in days) or None

    count = run.until(orders, lambda: "the order was not counted")
    if count != 1:
        raise Failed(f"one order was counted {count} times")
    return "an order went over the bus and was counted"


def _payment(run: Run) -> None:
    _emit(run, "fees", "OrderPaymentSucceeded", {"businessId": run.business})


def _charged(run: Run) -> str:
    run.until(lambda: run.look()["fees"] or None, lambda: "the fee of a payment was not written")
    return "a payment went over the bus and has its fee"


def _mail(run: Run) -> None:
    _emit(run, "e-mail", "UserWelcomed", {"email": run.to, "name": "Smoke test"})


def _sent(run: Run) -> str:
    def ended() -> Json | None:
        found: Json | None = run.look()["mail"]
        if not found or found["status"] in ("queued", "sending"):
            return None
        return found

    def why() -> str:
        found = run.look()["mail"]
        if not found:
            return "the event reached no mail"
        return f"the mail is still {found['status']} ({found['reason'] or 'no reason yet'})"

    found = run.until(ended, why)
    if found["status"] not in ("sent", "delivered", "delayed", "accepted_unknown"):
        raise Failed(f"the mail is {found['status']}: {found['reason']}")
    return f"a welcome to {run.to} was {found['status']}"


def _webhook(run: Run) -> None:
    event = {
        "id": run.stripe,
        "object": "event",
        "type": "smoke.test",  # not one of Stripe's: stored and ignored
        "created": int(time.time()),
        "livemode": run.place.stage == "prod",
        "api_version": None,
        "data": {"object": {"id": "smoke", "object": "smoke"}},
    }
    body = json.dumps(event)
    signature = run.ask({"smoke": {"step": "sign", "body": body}})["signature"]
    if not signature:
        raise Failed("there is no signing secret: give BillingStripeWebhookSecretArn")
    unsigned = request("POST", run.address.stripe, body.encode(), {"Stripe-Signature": "t=1,v1=0"})
    unsigned.wanted("stripe_webhook, to a forged event,", 400)
    sent = {"Stripe-Signature": signature, "Content-Type": "application/json"}
    request("POST", run.address.stripe, body.encode(), sent).wanted("stripe_webhook", 200)


def _kept(run: Run) -> str:
    found = run.look()
    if not found["stripe"]:
        raise Failed("the event was taken and is not in the database")
    if found["stripe"]["status"] != "ignored":
        raise Failed(f"the event is {found['stripe']['status']}: {found['stripe']['last_error']}")
    own = found["fromStripe"]["count"]
    return "a signed event was kept, a forged one refused; " + (
        f"{own} came from Stripe" if own else "none has come from Stripe itself yet"
    )


def _plans(run: Run) -> str:
    try:
        found = run.plans({"sync": True})
    except Trouble as trouble:
        raise Failed(str(trouble)) from None
    if found["faults"]:
        raise Failed(f"not applied: {found['faults'][0]}")
    shown = run.call("GET", "/v1/billing/plans").wanted("manage_billing", 200)
    return f"Stripe answers; {len(shown['items'])} plans are offered"


CHECKS = (
    Check("health", _nothing, _health, ("check_health",), "is the database's address right?"),
    Check(
        "upload",
        _nothing,
        _upload,
        ("request_upload", "confirm_upload", "manage_asset"),
        "what the bucket refuses it says in its answer; a deploy looks how it is set up",
    ),
    Check(
        "upload in parts",
        _nothing,
        _in_parts,
        ("manage_multipart", "confirm_upload"),
        "may manage_multipart list, join and drop parts in this bucket?",
    ),
    Check(
        "upload event",
        _leave,
        _verified,
        ("verify_upload",),
        "does the bucket send its events to EventBridge? What waits: `make status`",
    ),
    Check(
        "analytics",
        _order,
        _counted,
        ("update_analytics", "summarise_analytics"),
        "what waits and what was given up: `make status`",
    ),
    Check(
        "fees",
        _payment,
        _charged,
        ("record_transaction_fee",),
        "what waits and what was given up: `make status`",
    ),
    Check(
        "e-mail",
        _mail,
        _sent,
        ("send_email",),
        "does Resend take our key, and is the sender's domain verified there?",
    ),
    Check(
        "Stripe webhook",
        _webhook,
        _kept,
        ("stripe_webhook",),
        "does the secret belong to the endpoint of StripeWebhookUrl?",
    ),
    Check(
        "plans",
        _nothing,
        _plans,
        ("sync_plans", "manage_billing"),
        "is the key right, is Stripe up? `make sync-plans CHECK=1` says what differs",
    ),
)


def smoke(run: Run, only: str = "") -> bool:
    """Run the checks (those named in `only`, with commas between, else all) and print each."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := set(names) - {check.name for check in CHECKS}:
        raise Trouble(f"no check is called {', '.join(sorted(unknown))}")
    chosen = [check for check in CHECKS if not names or check.name in names]
    say(f"{run.place.bus}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    begun = run.ask({"smoke": {"step": "begin"}})
    run.workspace, run.business = begun["workspaceId"], begun["businessId"]
    run.token = run.token or begun["token"]
    if not run.token:
        raise Trouble("tokens come from your issuer: give TOKEN= one of an admin of ws_smoke")
    try:
        results = _prove(run, chosen)
    finally:
        _clean(run)
    bad = [check.name for check, fault in results if fault]
    say(f"{', '.join(bad)}: broken." if bad else f"All {len(chosen)} work end to end.")
    return not bad


def _prove(run: Run, chosen: list[Check]) -> list[tuple[Check, str]]:
    begun: dict[str, str] = {check.name: _said(check.begin, run)[1] for check in chosen}
    results = []
    for check in chosen:
        text, fault = ("", begun[check.name]) if begun[check.name] else _said(check.finish, run)
        say(f"  {'✗' if fault else '✓'} {check.name:<15} {fault or text}")
        if fault:
            logs = ", ".join(_log(run.place, name) for name in check.functions)
            say(f"    {'':<15} → {check.todo} Logs: {logs}")
        results.append((check, fault))
    return results


def _said(step: Callable[[Run], str | None], run: Run) -> tuple[str, str]:
    """Do a step; return its text and, when it failed, the reason."""
    try:
        return step(run) or "", ""
    except (Failed, Trouble) as failure:
        return "", str(failure)
    except (KeyError, TypeError, ValueError) as error:  # an answer of another shape
        return "", f"an answer has an unexpected shape ({type(error).__name__}: {error})"


def _log(place: Place, function: str) -> str:
    if place.local:
        return f"`make logs` ({function})"
    return f"/aws/lambda/{place.bus}-{function.replace('_', '-')}"


def _clean(run: Run) -> None:
    """Delete what was uploaded and written; what cannot be deleted is said, and does not fail."""
    for asset in run.made:
        _, fault = _said(
            lambda run, asset=asset: (  # type: ignore[misc]
                run.call("DELETE", f"/v1/assets/{asset}").wanted("manage_asset", 204, 404) and None
            ),
            run,
        )
        if fault:
            say(f"  · {asset} is still there: {fault}")
    _, fault = _said(lambda run: str(run.ask({"smoke": {"step": "end"}}) and ""), run)
    if fault:
        say(f"  · the workspace ws_smoke was not emptied: {fault}")
