"""The local stack's clock: how far every process of it is ahead of the machine.

Python imports a module of this name at its start, so this folder on PYTHONPATH moves the emulator
and each function that it starts, with all they import: tokens, signatures and presigned URLs are
checked against the moved time. Nothing of this is deployed: a layer has no such module, and no part
of a function reads `KYORA_CLOCK`.

The shift is eight bytes of a file that every process maps into its memory, so that a change is seen
by all of them at their next look at the clock. The next eight say whether it is being moved.
"""

import mmap
import os
import struct
import sys
from pathlib import Path

VARIABLE = "KYORA_CLOCK"
_FORMAT = "<qq"  # nanoseconds ahead, and 1 while `make time` walks
_SIZE = struct.calcsize(_FORMAT)


class Shift:
    """The file's content, as it is at each look."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(bytes(_SIZE))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), _SIZE)

    @property
    def nanoseconds(self) -> int:
        """How far the stack is ahead."""
        ahead: int = struct.unpack_from(_FORMAT, self._memory)[0]
        return ahead

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self.nanoseconds / 1e9

    @property
    def moving(self) -> bool:
        """Whether `make time` is on its way."""
        return bool(struct.unpack_from(_FORMAT, self._memory)[1])

    def set(self, seconds: int, *, moving: bool) -> None:
        """Move every process that maps the file."""
        struct.pack_into(_FORMAT, self._memory, 0, seconds * 10**9, int(moving))


def install(file: Path) -> Shift:
    """Make this process's clock follow the file; `time.monotonic` stays as it is."""
    shift = Shift(file)
    # What time-machine would load for a test suite has no use here and takes time.
    unwanted = [name for name in ("pytest", "dateutil.parser") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(unwanted))  # type: ignore[arg-type]  # None refuses an import
    try:
        import _time_machine  # type: ignore[import-not-found]
        import time_machine
    finally:
        for name in unwanted:
            del sys.modules[name]

    class Follower(time_machine.Traveller):
        def time_ns(self) -> int:
            real: int = _time_machine.original_time_ns()
            return real + shift.nanoseconds

    time_machine.travel(0).start()
    time_machine.traveller_stack[:] = [Follower(0, None, tick=True)]
    return shift


if VARIABLE in os.environ:
    install(Path(os.environ[VARIABLE]))
