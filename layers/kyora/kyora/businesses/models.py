"""A business as clients send and get it."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from kyora.api import AnswerBody, RequestBody
from kyora.money import DECIMALS
from kyora.text import has_control


def _name(value: str) -> str:
    if has_control(value):
        raise ValueError("must not contain control characters")
    if not (name := " ".join(value.split())):
        raise ValueError("must not be blank")
    return name


def _currency(value: str) -> str:
    if value not in DECIMALS:  # the amounts of its orders could not be counted
        raise ValueError("must be a currency of ISO 4217")
    return value


class NewBusiness(RequestBody):
    """A business to open."""

    name: Annotated[str, StringConstraints(max_length=200), AfterValidator(_name)] = Field(
        description="As customers see it. Names need not be unique.", examples=["Corner shop"]
    )
    currency: Annotated[
        str, StringConstraints(pattern=r"^[A-Z]{3}$"), AfterValidator(_currency)
    ] = Field(description="ISO 4217, in capitals.", examples=["AED"])


class Business(AnswerBody):
    """A business of a workspace."""

    business_id: str
    name: str
    currency: str
    created_at: datetime
