"""The Stripe webhook at work: deliveries a second with eight connections, round trips a delivery.

Part of `make bench`. The events are those of random lives at the stand-in, where many are too near
each other to be believed and are read from Stripe, and then a change of plan of each of 1,200
subscriptions. Each is delivered three times, as real signed requests to the function's own
handler, in eight processes that share this machine's cores with the one PostgreSQL: first as fast
as they can and in any order, then at half of the highest rate so found. There no delivery is more
than 50 from its place, so that as many are new at the beginning, where all would be, as at the
end. `make bench PEER=1` measures dj-stripe with the same events in the same run; see bench/peer.py.
"""

import argparse
import io
import json
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.database import at_work, database
from kyora import config, postgres
from kyora.postgres.connection import Transaction
from local.progress import say
from local.settings import ROOT
from tests.integration.support import stripe_lives as lives
from tests.integration.support.stripe_lives import Stripe, Workers

RESULTS = ROOT / "bench" / "stripe.json"
LIVES, STEPS, CHANGES, COPIES, ROUNDS, NEAR, FIRST = 80, 8, 1200, 3, 3, 50, 80
AIMS = {"lives_a_second": 1500, "changes_a_second": 1000, "p99_ms": 25, "p99_ms_at_half": 15}


def main() -> int:
    """Measure, print and write bench/stripe.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.stripe", description=__doc__)
    parser.add_argument("--peer", action="store_true", help="measure dj-stripe as well")
    chosen = parser.parse_args()
    result: dict[str, Any] = {"cores": os.cpu_count(), "aims": AIMS, "changes": [], "lives": []}
    result["at_half"] = {}
    with tempfile.NamedTemporaryFile() as log:
        workers = Workers(8, Path(log.name))
        try:
            for number in range(ROUNDS):
                with _stripe(number) as stripe:
                    dice = random.Random(number)
                    for kind in _EVENTS:
                        result[kind].append(_round(stripe, workers, kind, dice))
                    result["round_trips"] = _round_trips(stripe)
                    if chosen.peer and not number:
                        from bench import peer

                        result["peer"] = peer.measure(_bodies(stripe), stripe)
            with _stripe(ROUNDS) as stripe:
                for kind in _EVENTS:
                    half = max(found["deliveries_a_second"] for found in result[kind]) / 2
                    result["at_half"][kind] = _round(stripe, workers, kind, dice, half)
        finally:
            workers.stop()
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    _print(result)
    return 0


@contextmanager
def _stripe(seed: int) -> Iterator[Stripe]:
    """Run a fresh database and lives whose events are all there to be delivered."""
    with (
        database(lives.ENVIRONMENT) as url,
        lives.stripe(int(time.time()) - 40 * 86_400, seed) as found,
    ):
        at_work(url)
        os.environ["BILLING_STRIPE_BASE_URL"] = found.url
        config.forget()
        names = [f"ws_{number}" for number in range(LIVES)]
        with postgres.transaction() as tx:
            tx.run(
                "INSERT INTO workspace (id, name)"
                " SELECT n, n FROM unnest(CAST(:names AS text[])) AS n",
                names=names,
            )
        lives.live(found, names, STEPS, random.Random(seed))
        yield found
        postgres.close()


def _bodies(stripe: Stripe) -> list[str]:
    return [json.dumps(event) for event in stripe.engine.events[stripe.catalogue :]]


def _begun_and_changed(stripe: Stripe) -> tuple[list[str], list[str]]:
    """Return what each of 1,200 customers subscribed to, and how they moved to another plan."""
    begun = next(json.loads(body) for body in reversed(_bodies(stripe)) if _plain(body, stripe))
    about = begun["data"]["object"]
    [item] = about["items"]["data"]
    names = [begun["id"], about["id"], about["customer"], item["id"]]
    other = next(price for price in stripe.prices.values() if price != item["price"]["id"])
    changed = json.loads(json.dumps(begun))
    changed |= {"id": f"{begun['id']}_changed_", "created": begun["created"] + 3600}
    [item] = changed["data"]["object"]["items"]["data"]
    item["price"] = stripe.ask("GET", f"prices/{other}")
    with postgres.transaction() as tx:
        tx.run(
            "WITH w AS (INSERT INTO workspace (id, name) SELECT 'wx_' || n, 'W'"
            "   FROM generate_series(0, :last) n RETURNING id)"
            " INSERT INTO billing_customer (id, workspace_id)"
            " SELECT replace(id, 'wx_', :customer), id FROM w",
            last=CHANGES - 1,
            customer=about["customer"],
        )
    return _of_each(begun, names), _of_each(changed, names)


def _plain(body: str, stripe: Stripe) -> bool:
    """Return whether a body alone gives access: with a schedule, Stripe would be asked."""
    event = json.loads(body)
    if event["type"] != "customer.subscription.updated":
        return False
    about = event["data"]["object"]
    prices = [item["price"]["id"] for item in about["items"]["data"] if item["quantity"] == 1]
    at_plan = len(about["items"]["data"]) == 1 and {*prices} & {*stripe.prices.values()}
    return bool(at_plan and about["status"] == "active" and about["schedule"] is None)


def _of_each(event: dict[str, Any], names: list[str]) -> list[str]:
    """Return the event for each customer, whose objects have names of their own."""
    found = [json.dumps(event)] * CHANGES
    for name in names:
        found = [body.replace(name, f"{name}{number}") for number, body in enumerate(found)]
    return found


def _lives(stripe: Stripe) -> tuple[list[str], list[str]]:
    """Return the first events of the lives, and the others."""
    found = _bodies(stripe)
    return found[:FIRST], found[FIRST:]


# What is delivered once before the clock runs, which also opens the connections, and what then is.
_EVENTS: Mapping[str, Callable[[Stripe], tuple[list[str], list[str]]]] = {
    "lives": _lives,
    "changes": _begun_and_changed,
}


def _round(
    stripe: Stripe, workers: Workers, kind: str, dice: random.Random, rate: float = 0
) -> dict[str, Any]:
    first, events = _EVENTS[kind](stripe)
    workers.timed(first)
    bodies = [body for body in events for _ in range(COPIES)]
    if rate:
        places = [number + dice.uniform(-NEAR, NEAR) for number in range(len(bodies))]
        bodies = [body for _, body in sorted(zip(places, bodies, strict=True))]
    else:
        dice.shuffle(bodies)
    reads = stripe.reads
    answers, took = workers.timed(bodies, rate)
    times = [seconds for _, seconds in answers]
    return {
        "deliveries": len(bodies),
        "deliveries_a_second": round(len(bodies) / took),
        "p50_ms": round(statistics.median(times) * 1000, 1),
        "p99_ms": round(statistics.quantiles(times, n=100)[98] * 1000, 1),
        "statuses": Counter(status for status, _ in answers),
        "reads_from_stripe": stripe.reads - reads,
    }


def _round_trips(stripe: Stripe) -> dict[str, int]:
    """Count the round trips to PostgreSQL of one delivery of each kind, COMMIT among them."""
    found: dict[str, int] = {}
    real = Transaction._execute  # noqa: SLF001
    counted = 0

    def counting(self: Transaction, sql: str, params: Any) -> Any:
        nonlocal counted
        counted += 1
        return real(self, sql, params)

    fresh = lives.Life(stripe, "ws_0", random.Random(1))
    with patch.object(Transaction, "_execute", counting), redirect_stdout(io.StringIO()):
        before = len(stripe.engine.events)
        stripe.engine.advance(40 * 86_400)
        fresh.step()
        for event in stripe.engine.events[before:]:
            counted = 0
            lives.deliver(json.dumps(event))
            found[event["type"]] = max(counted, found.get(event["type"], 0))
            counted = 0
            lives.deliver(json.dumps(event))
            found["again"] = max(counted, found.get("again", 0))
    return dict(sorted(found.items()))


def _print(result: dict[str, Any]) -> None:
    say(f"\n{result['cores']} cores, shared by eight workers and PostgreSQL\n")
    for kind in _EVENTS:
        for found in (*result[kind], result["at_half"][kind]):
            say(
                f"{kind:<8} {found['deliveries']} deliveries: {found['deliveries_a_second']}/s,"
                f" p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms,"
                f" {found['reads_from_stripe']} reads from Stripe, {dict(found['statuses'])}"
            )
    say(
        f"the last of each at half of the highest rate; aims: lives {AIMS['lives_a_second']}/s,"
        f" changes {AIMS['changes_a_second']}/s, p99 ≤ {AIMS['p99_ms']} ms,"
        f" at half ≤ {AIMS['p99_ms_at_half']} ms\n"
    )
    for kind, count in result["round_trips"].items():
        say(f"{count:>3} round trips   {kind}")
    if peer := result.get("peer"):
        say(f"\ndj-stripe, each event once: {peer}")


if __name__ == "__main__":
    raise SystemExit(main())
