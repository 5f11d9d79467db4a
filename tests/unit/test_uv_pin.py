"""What installs everything else is installed by version and hash."""

import re

from local.settings import ROOT


def test_uv_is_pinned_by_version_and_hash() -> None:
    text = (ROOT / "local" / "uv.txt").read_text()
    assert re.match(r"uv==\d+\.\d+\.\d+ \\\n", text)
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) >= 10  # a wheel for each platform
    source = (ROOT / "local" / "bootstrap.py").read_text()
    assert '"--require-hashes"' in source
    # Nothing else is installed by pip.
    assert source.count("[*pip,") == 1
