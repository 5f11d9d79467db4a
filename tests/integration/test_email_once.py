"""Three hundred messages, many of them asked for twice, eight workers that die, and a bad network.

Each message is sent once, under one key. `KYORA_SEEDS=4` (as `make test` sets it) plays four
different days, without it two.
"""

import json
import os
import random
from collections import Counter

import pytest

from tests.fake_resend import Fault, Faults, fake_resend
from tests.integration.support import invariants, mail_queue

SEEDS = int(os.environ.get("KYORA_SEEDS", "2"))
MESSAGES, TWICE = 300, 120


def bad_day(seed: int) -> Faults:
    """Four requests of ten go wrong; which ones follows from the seed, the key and how often."""
    lost = [
        (10, Fault(429, "rate_limit_exceeded", retry_after="1")),
        (8, Fault(500, "application_error")),
        (8, Fault(taken=True)),  # the answer is lost
        (5, Fault(500, "application_error", taken=True)),
        (4, Fault(502, html=True)),
        (3, Fault()),  # the connection drops before anything is taken
        (2, Fault(200, taken=True, delay=0.15)),  # slow: the next worker comes meanwhile
        (1, Fault(200, taken=True, body=b"{}")),
    ]

    def faults(key: str, nth: int) -> Fault | None:
        roll = random.Random(f"{seed} {key} {nth}").uniform(0, 100)
        for percent, fault in lost:
            roll -= percent
            # Crashed attempts count too: a refusal that may be the eighth is another test.
            if roll < 0:
                return fault if nth < (2 if fault.status >= 500 else 6) else None
        return None

    return faults


@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_message_is_sent_once_on_a_bad_day(
    seed: int,
    database: str,
    environment: pytest.MonkeyPatch,
    post_queue: mail_queue.Queue,
    post_workers: mail_queue.Workers,
) -> None:
    chance = random.Random(seed)
    people = [f"person{n}@example.com" for n in range(MESSAGES)]
    events = [
        mail_queue.verification(email, event_id=f"evt_{seed}_{n}") for n, email in enumerate(people)
    ]
    bodies = [mail_queue.record(*event)["body"] for event in events]
    bodies += chance.sample(bodies, TWICE)
    chance.shuffle(bodies)

    def crash() -> str:
        roll = chance.random()
        return "before" if roll < 0.1 else "after" if roll < 0.2 else ""

    with fake_resend(bad_day(seed)) as resend:
        for name, value in mail_queue.ENVIRONMENT.items():
            environment.setenv(name, value)
        environment.setenv("EMAIL_RESEND_BASE_URL", resend.url)
        office = mail_queue.Office(post_workers, post_queue, crash)
        office.run(bodies)

    assert office.crashes > 10
    sent_to = Counter(delivery.payload["to"][0] for delivery in resend.deliveries)
    assert sent_to == dict.fromkeys(people, 1), "each once, none missing"
    keys = {delivery.key for delivery in resend.deliveries}
    assert len(keys) == MESSAGES
    rows = invariants.rows("SELECT id, recipient, status, provider_id, data FROM email_message")
    assert {row["id"] for row in rows} == keys
    ids = {delivery.key: delivery.id for delivery in resend.deliveries}
    assert [row for row in rows if row["status"] != "sent"] == []
    assert {row["id"]: row["provider_id"] for row in rows} == ids
    assert not any(row["data"] for row in rows), "no token is kept once nothing is left to send"
    assert post_queue.dead == []
    assert json.dumps(bodies).count("tok_") == len(bodies)  # and yet the log below holds none
