"""`make time`: show the local stack's clock, or move it."""

import json
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

from local import settings
from local.progress import Trouble, say

_LONGEST = 3600.0  # seconds that a move of a year or more may take


def show(env: dict[str, str], workspace: str) -> None:
    """Print what time it is on the stack, and what it can be moved to."""
    found = _call(env, f"?{urlencode({'workspace': workspace})}")
    _print(found)
    for name, at in found["goals"].items():
        say(f"  {name:<10} {at}")


def move(env: dict[str, str], words: str, workspace: str) -> bool:
    """Move it, showing the way; return whether everything on the way worked."""
    ended = threading.Event()
    watching = threading.Thread(target=_watch, args=(env, ended), daemon=True)
    watching.start()
    asked = {"reset": True} if words == "reset" else {"to": words, "workspace": workspace}
    try:
        found = _call(env, "", asked)
    finally:
        ended.set()
        watching.join()
    _print(found)
    for fault in found["faults"]:
        say(f"  ! {fault}")
    return not found["faults"]


def _print(found: dict[str, Any]) -> None:
    ahead = found["aheadSeconds"]
    days, rest = divmod(ahead, 86400)
    where = f"{days} days {rest // 3600} h ahead of this machine" if ahead else "this machine's"
    say(f"{found['now']}  {where}")


def _watch(env: dict[str, str], ended: threading.Event) -> None:
    while not ended.wait(3):
        try:
            found = _call(env, "")
        except Trouble:
            continue
        if found["movingTo"]:
            say(f"  · {found['now']} on the way to {found['movingTo']}")


def _call(env: dict[str, str], query: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{env['KYORA_URL']}/_local/time{query}",
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Content-Type": "application/json",
            "X-Kyora-Token": env.get("KYORA_CONSOLE_TOKEN", ""),
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=_LONGEST) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as refused:
        with refused:
            try:
                raise Trouble(str(json.load(refused)["error"])) from None
            except (ValueError, KeyError):
                raise Trouble(f"the local stack answered {refused.code}") from None
    except OSError:
        raise settings.unavailable() from None
