"""The end of a process in the middle of something: before any statement, before any request."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import stripe

from kyora.postgres.connection import Transaction


class Crash(BaseException):
    """The end of a process, in the middle of something."""


def crash_at(step: int, environment: pytest.MonkeyPatch) -> None:
    """End the process before its statement or request to Stripe number `step`.

    COMMIT is a statement; BEGIN is not one here.
    """
    left = itertools.count(step, -1)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(left) == 0:
                raise Crash
            return function(*args, **kwargs)

        return call

    environment.setattr(Transaction, "_execute", counted(Transaction._execute))
    request = stripe.RequestsClient.request
    environment.setattr(stripe.RequestsClient, "request", counted(request))
