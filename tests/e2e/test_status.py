"""`make status` on the running stack: what works, and what was broken a moment ago."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.commands import bury, client, control, query, run, waiting
from tests.e2e.conftest import Stack, wait


def test_status_shows_that_stripe_is_down_and_that_it_is_back(stack: Stack) -> None:
    # A new stack's plans are events, too, which ask Stripe themselves.
    waiting = "SELECT count(*) FROM stripe_event WHERE status = 'received'"
    wait(lambda: query(stack, waiting) == [[0]], 120, "no pending Stripe event")
    # As many as may be asked: the events of plans may have been still on their way.
    control(stack, "faults", kind="status", status=503, times=1000)
    broken = run(stack, "status")
    control(stack, "faults", times=0)
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "✗ Stripe          does not answer" in broken.stdout
    assert "✓ Stripe's events" in broken.stdout
    assert "need attention." in broken.stdout.splitlines()[-1]
    answers = "✓ Stripe          answers"
    wait(lambda: answers in run(stack, "status").stdout, 120, answers)


def test_status_shows_what_a_consumer_gave_up(stack: Stack) -> None:
    sqs = client(stack, "sqs")
    live = sqs.get_queue_url(QueueName="kyora-local-fees")["QueueUrl"]
    bury(stack)
    sqs.send_message(QueueUrl=live, MessageBody="not json")
    wait(lambda: (waiting(stack, "fees"), waiting(stack, "fees-dead")) == (0, 1), 120)
    said = run(stack, "status").stdout
    bury(stack)
    assert "✗ queue fees      nothing waits; 1 given up" in said, said
    assert "fix it, then `make redrive QUEUE=fees`" in said
    assert "✓ queue fees" in run(stack, "status").stdout


@pytest.fixture
def relay_off(stack: Stack) -> Iterator[None]:
    """The relay's schedule is off."""
    scheduler = client(stack, "scheduler")
    found = scheduler.get_schedule(Name="kyora-local-relay-outbox")
    names = ("Name", "GroupName", "ScheduleExpression", "FlexibleTimeWindow", "Target")
    kept = {name: found[name] for name in names}
    scheduler.update_schedule(**kept, State="DISABLED")
    yield
    scheduler.update_schedule(**kept, State="ENABLED")


@pytest.mark.usefixtures("relay_off")
def test_status_shows_that_the_relay_does_not_run(stack: Stack) -> None:

    def shown() -> "subprocess.CompletedProcess[str]":
        """Show the status when the relay last ran, and the stack started, two minutes ago."""
        query(
            stack,
            "INSERT INTO heartbeat SELECT name, now() - interval '2 minutes'"
            " FROM unnest(ARRAY['relay_outbox', 'migrate_database']) AS name"
            " ON CONFLICT (name) DO UPDATE SET at = excluded.at",
        )
        return run(stack, "status")

    # A run that had begun before the schedule was off ends with a heartbeat of now.
    said = "✗ relay_outbox    ran 2 min ago"
    wait(lambda: said in shown().stdout, 120, said)
    broken = shown()
    assert broken.returncode == 1
    assert "→ read the log of relay_outbox" in broken.stdout
