"""What each operation and an idle stage cost at list prices: the tables of docs/deploy.md.

Times are those of `make bench`, on the machine it ran on, with the waits for other services that
`WAITS` names; memory and what runs without being asked are read from template.yaml.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from local import template
from local.settings import ROOT

DATA = ROOT / "bench" / "prices.json"
DOCUMENT = ROOT / "docs" / "deploy.md"
_MONTH = 730 * 3600  # seconds
_LINE = 700  # bytes of log that an invocation writes
_MINUTES = ("1", "15", "60")  # of ScheduleMinutes, that are compared
_ACCESS = 400  # bytes of a line of the access log
# Milliseconds that a function waits for others at AWS, where the benchmark has them on one machine
# or not at all: the database over a network (1 ms a statement), S3, EventBridge, Resend, Stripe.
WAITS = {
    "request_upload": 5,
    "confirm_upload": 120,
    "manage_asset": 5,
    "manage_multipart": 60,
    "verify_upload": 10,
    "make_variants": 350,
    "create_business": 10,
    "summarise_analytics": 5,
    "manage_billing": 5,
    "stripe_webhook": 35,
    "send_email": 150,
    "update_analytics": 8,
    "record_transaction_fee": 8,
    "relay_outbox": 6,
    "purge_data": 20,
    "report_status": 12,
    "sweep_billing": 15,
}
# The benchmark has no store: where nothing is left to verify, it is the same work.
_LIKE = {"verify_upload": "confirm_upload"}


class Operation(NamedTuple):
    """What one of an operation uses of each service."""

    functions: tuple[str, ...]
    api: int = 0
    queue: int = 0  # messages: sent, received, deleted, each one request
    events: int = 0
    puts: int = 0
    gets: int = 0


OPERATIONS = {
    "upload a file (ask, PUT, confirm, the bucket's event)": Operation(
        ("request_upload", "confirm_upload", "verify_upload"), 2, 1, 2, puts=2, gets=2
    ),
    "upload a film of 100 MiB in 13 parts": Operation(
        ("manage_multipart",) * 3 + ("confirm_upload", "verify_upload"), 4, 1, 2, puts=16, gets=3
    ),
    "six variants of a photograph": Operation(
        ("make_variants",), queue=1, events=2, puts=6, gets=1
    ),
    "download a file": Operation(("manage_asset",), 1, gets=1),
    "open a business": Operation(("create_business",), 1),
    "show a subscription": Operation(("manage_billing",), 1),
    "show a summary": Operation(("summarise_analytics",), 1),
    "an order, counted": Operation(("update_analytics",), queue=1, events=1),
    "a payment, with its fee": Operation(("record_transaction_fee",), queue=1, events=1),
    "an e-mail (Resend's price apart)": Operation(("send_email",), queue=1, events=1),
    "an event of Stripe's": Operation(("stripe_webhook",), events=1),
}


def data() -> dict[str, Any]:
    """Return the prices in US dollars by name, and what was measured."""
    found: dict[str, Any] = json.loads(DATA.read_text())
    return found | {"prices": {name: price["usd"] for name, price in found["prices"].items()}}


def seconds(function: str, measured: Mapping[str, float]) -> float:
    """Return how long an invocation takes at AWS; Lambda bills whole milliseconds."""
    own = measured[_LIKE.get(function, function)]
    return float(round(own + WAITS.get(function, 0) + 0.5)) / 1000


@cache
def memory(function: str) -> float:
    """Return the memory of a function in GB: its own, or what the parameter says."""
    source = template.read()
    own = template.functions(source)[template.logical_id(function)].get("MemorySize")
    default = source["Parameters"]["MemorySize"]["Default"]
    return float(own if isinstance(own, int) else default) / 1024


def invocation(function: str, found: Mapping[str, Any]) -> float:
    """Return what an invocation costs, its log included."""
    prices = found["prices"]
    return float(
        seconds(function, found["measured"]) * memory(function) * prices["lambda_gb_second"]
        + prices["lambda_million_requests"] / 1e6
        + _LINE * prices["logs_gb"] / 1e9
    )


def million(operation: Operation, found: Mapping[str, Any]) -> float:
    """Return what a million of an operation costs."""
    prices = found["prices"]
    api = prices["api_million_requests"] / 1e6 + _ACCESS * prices["logs_gb"] / 1e9
    return 1e6 * float(
        sum(invocation(function, found) for function in operation.functions)
        + operation.api * api
        + operation.queue * 3 * prices["sqs_million_requests"] / 1e6
        + operation.events * prices["events_million"] / 1e6
        + operation.puts * prices["s3_thousand_puts"] / 1e3
        + operation.gets * prices["s3_thousand_gets"] / 1e3
    )


def idle(found: Mapping[str, Any], stack: dict[str, Any], minutes: str) -> dict[str, float]:
    """Return what a translated stack costs in a month without a user, by its ScheduleMinutes."""
    prices = found["prices"]
    stack["Parameters"]["ScheduleMinutes"]["Default"] = minutes
    alarms = [
        resource["Properties"]
        for resource in stack["Resources"].values()
        # One with a condition belongs to an option that is off.
        if resource["Type"] == "AWS::CloudWatch::Alarm" and "Condition" not in resource
    ]
    runs = dict(_runs(stack))
    polled = sum(
        resource["Type"] == "AWS::Lambda::EventSourceMapping" and "Condition" not in resource
        for resource in stack["Resources"].values()
    )
    secrets = sum(name.endswith("Arn") for name in stack["Parameters"]) - 3
    watched = sum(
        # Billed by what it watches: an alarm on an expression by each metric in it.
        sum("MetricStat" in metric for metric in alarm.get("Metrics", [])) or 1
        for alarm in alarms
    )
    return {
        f"{len(alarms)} alarms on {watched} metrics": watched * prices["alarm_month"],
        "the dashboard": prices["dashboard_month"],
        f"{secrets} secrets": secrets * prices["secret_month"],
        "scheduled runs": sum(
            count * (invocation(name, found) + prices["scheduler_million"] / 1e6)
            for name, count in runs.items()
        ),
        # Lambda keeps five long polls of 20 s open for each queue.
        f"polling {polled} queues": polled * 5 * _MONTH / 20 * prices["sqs_million_requests"] / 1e6,
    }


def _runs(stack: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield each scheduled function that was measured, and how often it runs in a month."""
    units = {"minute": 60, "hour": 3600, "day": 86_400}
    known = data()["measured"]
    for name, resource in stack["Resources"].items():
        if resource["Type"] == "AWS::Scheduler::Schedule":
            rate = template.resolve(resource["Properties"]["ScheduleExpression"], stack)
            said = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", rate)
            function = template.folder(re.sub(r"Function.*", "Function", name))
            if said and function in known:
                yield function, _MONTH / (int(said[1]) * units[said[2]])


def _row(name: str, amounts: Iterable[float]) -> str:
    return f"| {name} | {' | '.join(f'{amount:.2f}' for amount in amounts)} |"


def tables() -> str:
    """Return both tables as Markdown."""
    found = data()
    lines = ["| a million of | USD |", "|---|---|"]
    lines += [f"| {name} | {million(each, found):.2f} |" for name, each in OPERATIONS.items()]
    stack = template.translated({"Stage": "dev"})
    parts = {minutes: idle(found, stack, minutes) for minutes in _MINUTES}
    lines += ["", f"| an idle stage, a month, `ScheduleMinutes` | {' | '.join(_MINUTES)} |"]
    lines += ["|---|" + "---|" * len(_MINUTES)]
    lines += [_row(name, [part[name] for part in parts.values()]) for name in parts[_MINUTES[0]]]
    lines += [_row("together", [sum(part.values()) for part in parts.values()])]
    return "\n".join(lines)


def written(text: str) -> str:
    """Return the document with the tables of now."""
    start, end = "<!-- costs -->", "<!-- /costs -->"
    before, _, rest = text.partition(start)
    return f"{before}{start}\n{tables()}\n{end}{rest.partition(end)[2]}"


def main() -> None:
    """Print the tables, or write them into the document; `--measured` takes the last benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.costs", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/deploy.md")
    parser.add_argument("--measured", action="store_true", help="take times from the last bench")
    chosen = parser.parse_args()
    if chosen.measured:
        results = json.loads((ROOT / "bench" / "results.json").read_text())
        found = json.loads(DATA.read_text())
        photos = json.loads((ROOT / "bench" / "photos.json").read_text())
        found["measured"] = {
            name: results["functions"][name]["warm_p50_ms"] for name in found["measured"]
        } | {"make_variants": round(photos["12 MP JPEG"]["seconds"] * 1000)}
        found["measuredOn"] = (
            f"{datetime.now(UTC).date()}, warm median in milliseconds under the Lambda runtime on"
            " two quiet cores, make_variants by PHOTOS=1 with a JPEG of 12 megapixels"
        )
        DATA.write_text(json.dumps(found, indent=2) + "\n")
    if chosen.write:
        DOCUMENT.write_text(written(DOCUMENT.read_text()))
    print(tables())


if __name__ == "__main__":
    main()
