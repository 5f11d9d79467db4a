"""Sample events of functions under the real runtime."""

import json
import time
from typing import Any

import jwt

from local.tools import samples
from tests.conftest import SECRET


def sample(name: str) -> Any:
    claims = {"userId": "usr_demo_member", "workspaceId": "ws_demo", "authVersion": 1}
    token = jwt.encode(claims | {"exp": int(time.time()) + 60}, SECRET, algorithm="HS256")
    return samples.read(samples.EVENTS / f"{name}.json", {"KYORA_TOKEN": token})


def body(answer: dict[str, Any]) -> Any:
    return json.loads(answer["body"])
