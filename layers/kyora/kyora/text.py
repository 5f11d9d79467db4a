"""Text from clients."""

import re

# C0 and C1 controls, lone surrogates, line and paragraph separators: no keyboard types them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")


def has_control(value: str) -> bool:
    """Return True if a line of text has a control character or a lone surrogate."""
    return _CONTROL.search(value) is not None
