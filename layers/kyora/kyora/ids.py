"""Prefixed ids that sort by time: `ast_01kaq…` (48 bits of milliseconds, 80 random bits)."""

import secrets

from kyora import clock

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case


def new_id(prefix: str) -> str:
    """Return a new id, e.g. `ast_01kaq3v6m8r5x9y2c4d7f0h1jk`."""
    number = int(clock.timestamp() * 1000) << 80 | secrets.randbits(80)
    return prefix + "_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
