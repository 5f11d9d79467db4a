"""The base models of request and answer bodies.

JSON names are camelCase. A request with an unknown field is refused. Models are built when they are
first used (`defer_build`), so a function does not pay for models that it only imports.
"""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class RequestBody(BaseModel):
    """A body that a client sends, or a part of one."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, defer_build=True
    )


class AnswerBody(BaseModel):
    """A body that a client gets, or a part of one."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, frozen=True, defer_build=True
    )
