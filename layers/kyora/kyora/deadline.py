"""One deadline for a call through a library whose time-outs start again at each read.

boto3 and Stripe's SDK wait as long for the last byte as a peer that sends one a second needs. Their
sockets are out of reach, so the call runs in a thread, and its caller stops waiting. Our own HTTP
keeps its deadline on the socket (`kyora.timed_http`).
"""

import contextvars
import threading
from collections.abc import Callable


def within[T](seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises.

    Raises TimeoutError when it takes longer: the call is then left to itself, and ends with its
    peer or the process. What it was to do may still happen, as after any time-out; whoever gives up
    must not use its connection again.
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
