"""Run `render` in a process of its own, so that a hostile file ends that process and no other.

The child gets no environment of ours: none of its variables holds a key. It limits its own memory
and processor time before it imports a decoder (`render.limit`), and its parent stops it after
`SECONDS`. However it ends, the parent has an answer: the variants, or why there are none.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from kyora.observability import logger

SECONDS = 60.0  # the largest image that is decoded takes a quarter of it on one processor
_MODULE = "kyora.assets.variants.render"
_PYTHON = (sys.executable, "-P", "-m", _MODULE)  # -P: import nothing from the working directory


class Refused(Exception):
    """There will be no variants; `reason` says why, in a word of docs/uploads.md."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def render(
    original: Path, content_type: str, folder: Path, *, seconds: float = SECONDS
) -> list[dict[str, Any]]:
    """Write the variants of a file to `folder`; return name, format, size and file of each.

    Raises Refused: `bad_content`, `too_many_pixels`, `too_heavy` (memory, or the decoder crashed)
    or `too_slow`.
    """
    with subprocess.Popen(  # noqa: S603  # our own module; the arguments are ours
        [*_PYTHON, str(original), content_type, str(folder)],
        env=_environment(),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Refused("too_slow") from None
    if process.returncode:
        logger().warning("decoder ended", code=process.returncode)
        raise Refused("too_slow" if process.returncode == -signal.SIGXCPU else "too_heavy")
    answer = json.loads(output)
    if "refused" in answer:
        logger().info("image refused", reason=answer["refused"], error=answer.get("error"))
        raise Refused(answer["refused"])
    variants: list[dict[str, Any]] = answer["variants"]
    return variants


def _environment() -> dict[str, str]:
    """Return what Python needs to find its library and ours; no setting and no key."""
    return {
        "PYTHONPATH": ":".join(path for path in sys.path if path),
        # Lambda's python finds its own shared library this way.
        "LD_LIBRARY_PATH": f"{sys.base_prefix}/lib",
        "PYTHONDONTWRITEBYTECODE": "1",
        # An arena for each thread would count against the limit on address space.
        "MALLOC_ARENA_MAX": "2",
    }
