"""A business as clients ask for it and see it."""

import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from kyora.money import DECIMALS

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")


def _name(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not contain control characters")
    if not (name := " ".join(value.split())):
        raise ValueError("must not be blank")
    return name


def _currency(value: str) -> str:
    if value not in DECIMALS:  # its orders' amounts could not be counted
        raise ValueError("must be a currency of ISO 4217")
    return value


class NewBusiness(BaseModel):
    """A business that a workspace wants to open."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    name: Annotated[str, StringConstraints(max_length=200), AfterValidator(_name)] = Field(
        description="As customers see it; several may have the same.", examples=["Corner shop"]
    )
    currency: Annotated[
        str, StringConstraints(pattern=r"^[A-Z]{3}$"), AfterValidator(_currency)
    ] = Field(description="ISO 4217, in capitals.", examples=["AED"])


class Business(BaseModel):
    """A business of a workspace."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)

    business_id: str
    name: str
    currency: str
    created_at: datetime
