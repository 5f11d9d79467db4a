"""How a value is stored: under a name every store accepts, in an envelope that detects damage.

    format (7) │ expires, Unix seconds (8) │ digest of name, expiry and value (16) │ value

Garbage, another program's value, a value of another key, stage or format, and an expired one,
whatever the store's clock says: each reads as a miss. Bytes in, bytes out: nothing is unpickled.
The digest has no key: it detects accidents, and anyone who may write to the store is trusted.
"""

import hashlib
import struct

_FORMAT = b"kyora1\n"
_EXPIRES = struct.Struct(">Q")
_DIGEST = 16
_HEADER = len(_FORMAT) + _EXPIRES.size + _DIGEST


def name(stage: str, key: str) -> str:
    """Return the name under which the store keeps a key: 55 characters, whatever the key is.

    Stages may share a store. The name is a digest, because a key may hold ids that the store's
    operators need not read.
    """
    text = f"{stage}\n{key}".encode("utf-8", "surrogatepass")
    return f"kyora1-{hashlib.blake2b(text, digest_size=24).hexdigest()}"


def seal(name: str, value: bytes, expires: int) -> bytes:
    """Put a value that is valid until `expires` (Unix seconds) into its envelope."""
    head = _EXPIRES.pack(expires)
    return b"".join((_FORMAT, head, _digest(name, head, value), value))


def unseal(name: str, kept: bytes, now: float) -> bytes | None:
    """Return the value in an envelope of `name` if it is still valid, else None."""
    if len(kept) < _HEADER or not kept.startswith(_FORMAT):
        return None
    head = kept[len(_FORMAT) : len(_FORMAT) + _EXPIRES.size]
    digest, value = kept[_HEADER - _DIGEST : _HEADER], kept[_HEADER:]
    if digest != _digest(name, head, value) or _EXPIRES.unpack(head)[0] <= now:
        return None
    return value


def _digest(name: str, head: bytes, value: bytes) -> bytes:
    found = hashlib.blake2b(head, digest_size=_DIGEST)
    found.update(name.encode())
    found.update(value)
    return found.digest()
