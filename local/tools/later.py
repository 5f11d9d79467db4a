"""`make test-later`: run the tests with the clock some days ahead, with Debian's faketime.

A sample or a test that contains a date fails one day; this shows it today. faketime moves the clock
of dynamically linked programs: Python, PostgreSQL and the AWS emulator. Tests of SeaweedFS and of
signatures that Lambda's emulator checks are skipped; browser tests are left out.
"""

import shutil
import subprocess
import sys

from local.progress import complain, say
from local.settings import ROOT

_SUITES = ["tests/unit", "tests/contract", "tests/infra", "tests/runtime", "tests/integration"]

# In these tests a thread waits for another with a time limit, and would wait for ever: faketime
# moves the monotonic clock that Python reads, but not the C library's that wakes the thread.
_FOOLED = [
    "tests/integration/test_cache.py::test_a_name_that_does_not_resolve_in_time_is_a_miss",
    "tests/integration/test_email_webhook.py::test_bounces_that_arrive_together_see_each_other",
    "tests/integration/test_migrate.py::test_a_second_runner_waits_and_then_finds_nothing_to_do",
    (
        "tests/integration/test_plans.py"
        "::test_new_limits_reach_a_workspace_that_is_settled_at_the_same_moment"
    ),
    (
        "tests/integration/test_postgres.py"
        "::test_a_deadlock_is_unavailable_for_one_and_nothing_for_the_other"
    ),
    (
        "tests/integration/test_stripe_rules.py"
        "::test_of_two_customers_given_to_one_workspace_at_once_one_gets_it"
    ),
]


def main(days: list[str]) -> int:
    """Run the suites once for each number of days; 1 when one of them failed."""
    faketime = shutil.which("faketime")
    if faketime is None:
        complain("skipped: faketime is not installed (Debian: apt-get install faketime)")
        return 0
    failed = [ahead for ahead in days if run(faketime, ahead, _SUITES)]
    if failed:
        complain(f"red {', '.join(failed)} days from now")
    return 1 if failed else 0


def run(faketime: str, days: str, suites: list[str], *more: str) -> int:
    """Run some suites `days` days from now and return pytest's exit code."""
    say(f"\n{days} days from now")
    pytest = [sys.executable, "-m", "pytest", "-q", "--dist", "loadfile", *(more or ("-n", "2"))]
    pytest += [f"--deselect={name}" for name in _FOOLED]
    command = [faketime, "-f", f"+{int(days)}d", *pytest, *suites]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
