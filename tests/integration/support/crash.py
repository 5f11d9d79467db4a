"""The end of a process in the middle of something: at any statement, at any request to Stripe."""

import itertools
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import stripe

from kyora.postgres import connection
from kyora.postgres.connection import Transaction


class Crash(BaseException):
    """The end of a process, in the middle of something."""


def crash_at(step: int, environment: pytest.MonkeyPatch, *, after: bool = False) -> None:
    """End the process before its statement or request to Stripe number `step`, or right after it.

    COMMIT is a statement; BEGIN is not one here. No one rolls back: the server finds the
    connection gone, as it does when a process is killed.
    """
    left = itertools.count(step, -1)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            here = next(left) == 0
            if here and not after:
                _die()
            found = function(*args, **kwargs)
            if here:
                _die()
            return found

        return call

    environment.setattr(Transaction, "_execute", counted(Transaction._execute))
    request = stripe.RequestsClient.request
    environment.setattr(stripe.RequestsClient, "request", counted(request))


def _die() -> None:
    for kept in connection._kept:
        with suppress(OSError):
            kept._usock.shutdown(socket.SHUT_RDWR)
    raise Crash
