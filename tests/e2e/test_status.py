"""`make status` on the running stack: what works, and what somebody broke a moment ago."""

from tests.e2e.conftest import Stack, wait
from tests.e2e.test_billing import control
from tests.e2e.test_bus import run


def test_status_shows_that_stripe_is_down_and_that_it_is_back(stack: Stack) -> None:
    control(stack, "faults", kind="status", status=503, times=6)  # a call is tried three times
    broken = run(stack, "status")
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "✗ Stripe          does not answer" in broken.stdout
    assert "✓ event relay" in broken.stdout
    assert "need somebody." in broken.stdout.splitlines()[-1]
    wait(lambda: "✓ Stripe          answers" in run(stack, "status").stdout, 60)
    assert "✓ Stripe          answers" in run(stack, "status").stdout
