"""The samples are as good next year: they run with the clock ahead. `make test-later` runs more."""

import shutil
import sys

import pytest

from local.tools import later


@pytest.mark.skipif(sys.platform != "linux", reason="faketime's preloading is Linux' own")
def test_the_samples_run_next_year(built: object) -> None:
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("faketime is not installed (Debian: apt-get install faketime)")
    suites = ["tests/runtime/test_samples.py", "tests/unit/test_samples.py"]
    assert later.run(faketime, "400", suites, "-n", "0") == 0
