"""Base models of the HTTP API: what clients send, and what they are answered.

JSON names are camelCase, Python's are not. A request with an unknown field is refused. Models are
built when they are first used (`defer_build`): a function does not pay for those it only imports.
"""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class RequestBody(BaseModel):
    """A body that a client sends."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, defer_build=True
    )


class AnswerBody(BaseModel):
    """A body that a client gets, or a part of one."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, frozen=True, defer_build=True
    )
