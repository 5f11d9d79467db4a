"""POST /_console/<verb>: what a button of the console does, and what a script may ask for.

The verbs are those of `local.commands.acts`, which the front is given. A body is a JSON object
with a verb's parameters by name.
"""

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web
from pydantic import ConfigDict, ValidationError, validate_call

from local.progress import Trouble, hearing
from local.web.console import masking, sources
from local.web.running import FRONT, Front

_LARGEST = 1024 * 1024  # bytes of a body
_SECONDS = 90.0
_WHOLE = {"call"}  # the API's own answer: an upload URL in it is there to be used
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


def mount(app: web.Application) -> None:
    """Serve every verb, and the list of them."""
    app.router.add_get("/_console/verbs", _verbs)
    app.router.add_post("/_console/{verb}", _act)


async def _verbs(request: web.Request) -> web.StreamResponse:
    return web.json_response({"verbs": [describe(*one) for one in request.app[FRONT].acts.items()]})


def describe(name: str, act: Callable[..., Any]) -> dict[str, Any]:
    """Return what a verb does and takes; its first parameter is the front."""
    _, *parameters = inspect.signature(act).parameters.values()
    return {
        "verb": name,
        "does": " ".join((act.__doc__ or "").split()),
        "takes": {
            one.name: "required" if one.default is one.empty else f"default: {one.default!r}"
            for one in parameters
        },
    }


async def _act(request: web.Request) -> web.StreamResponse:
    front, name = request.app[FRONT], request.match_info["verb"]
    act = front.acts.get(name)
    if act is None:
        return _refuse(404, f"There is no verb {name!r}; GET /_console/verbs lists them.")
    if not front.api:
        return _refuse(503, "The stack is still starting.")
    text = await request.content.read(_LARGEST + 1)
    try:
        given = json.loads(text or b"{}") if len(text) <= _LARGEST else None
    except ValueError:
        given = None
    if not isinstance(given, dict):
        return _refuse(422, "The body must be a JSON object of at most 1 MiB.")
    try:
        work = asyncio.to_thread(_do, act, front, given)
        found, said = await asyncio.wait_for(work, _SECONDS)
    except _Refused as refused:
        return _refuse(refused.status, str(refused), refused.said)
    except TimeoutError:
        return _refuse(504, f"It has not finished in {_SECONDS:.0f} seconds; it may still do so.")
    body = {"ok": True, "said": said, **found}
    if name not in _WHOLE:
        body = masking.clean(body, masking.secrets_of(front.stack))
    return web.json_response(body, headers={"Cache-Control": "no-store"})


class _Refused(Exception):
    def __init__(self, status: int, text: str, said: list[str]) -> None:
        super().__init__(text)
        self.status, self.said = status, said


def _do(
    act: Callable[..., Any], front: Front, given: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    import botocore.exceptions

    checked = validate_call(config=_STRICT)(act)
    with hearing() as said:
        try:
            return checked(front, **given) or {}, said
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
            )
            raise _Refused(422, faults, said) from None
        except Trouble as trouble:
            raise _Refused(409, str(trouble), said) from None
        except sources.Fault as fault:
            raise _Refused(503, str(fault), said) from None
        except botocore.exceptions.ClientError as error:
            raise _Refused(409, f"the AWS emulator refuses: {error}", said) from None
        except (botocore.exceptions.BotoCoreError, OSError) as error:
            text = f"a part of the stack does not answer: {type(error).__name__}"
            raise _Refused(503, text, said) from None


def _refuse(status: int, text: str, said: list[str] | None = None) -> web.Response:
    return web.json_response({"ok": False, "error": text, "said": said or []}, status=status)
