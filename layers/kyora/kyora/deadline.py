"""One deadline for a call through a library whose time-outs start again at each read.

boto3 and Stripe's SDK would wait forever for a peer that sends a byte a second. Their sockets are
not accessible, so the call runs in a thread, and its caller stops waiting. Our own HTTP client
keeps the deadline on the socket (`kyora.timed_http`).
"""

import contextvars
import threading
from collections.abc import Callable


def within[T](seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises.

    Raises TimeoutError when it takes longer: the abandoned call then ends with its peer or the
    process. It may still take effect, as after any time-out; the caller must not use its
    connection again.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def attempt() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(attempt,), daemon=True)
    thread.start()
    thread.join(max(seconds, 0.0))
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return done[0]
