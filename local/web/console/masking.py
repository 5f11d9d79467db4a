"""What the console never shows: tokens, signatures and the stack's own secrets."""

import re
from collections.abc import Collection
from typing import Any

from local.settings import Settings

HIDDEN = "…"
_PATTERNS = (
    (re.compile(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]+"), HIDDEN),  # a JWT
    (re.compile(r"(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s\"]+"), rf"\1{HIDDEN}"),
    (re.compile(r"\b((?:sk|rk)_(?:test|live)|whsec|re)_[A-Za-z0-9+/=_-]{12,}"), rf"\1_{HIDDEN}"),
    (re.compile(r"(?<=://)([^\s:/@]+):[^\s@/]+@"), rf"\1:{HIDDEN}@"),  # a password in an address
    (re.compile(r"([?&]token=)[^&\s\"'<]+"), rf"\1{HIDDEN}"),
)
# Fields whose value is a secret, in any spelling.
_FIELDS = re.compile(
    r"(?i)^(token|authorization|cookie|set-cookie|x-kyora-token|client_?secret|password"
    r"|.*_?(api_?key|secret|password|signature))$"
)


def secrets_of(stack: Settings) -> list[str]:
    """Return the values of this stack that are shown nowhere, the longest first."""
    values = {*stack.secrets.values(), *_given(stack)}
    return sorted((value for value in values if len(value) >= 8), key=len, reverse=True)


def _given(stack: Settings) -> list[str]:
    return [value for name, value in stack.environ.items() if is_secret_name(name)]


def is_secret_name(name: str) -> bool:
    """Return whether a variable of this name holds a secret; an ARN only names one."""
    return bool(re.search(r"SECRET|PASSWORD|API_KEY|TOKEN", name)) and not name.endswith("_ARN")


def clean(value: Any, secrets: Collection[str] = ()) -> Any:
    """Return a value with every secret in it replaced by `…`."""
    if isinstance(value, dict):
        return {
            key: HIDDEN if _is_hidden(str(key), item) else clean(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [clean(item, secrets) for item in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
        for pattern, shown in _PATTERNS:
            value = pattern.sub(shown, value)
    return value


def _is_hidden(key: str, item: Any) -> bool:
    """Return whether a field's value is hidden; `${KYORA_TOKEN}` and its like only name one."""
    return bool(item and _FIELDS.match(key) and not (isinstance(item, str) and "${" in item))
