"""The issuer's signing keys: its JSON Web Key Set (RFC 7517), fetched on demand.

A set is fetched again after five minutes, or when a token names a key that it lacks. While the
issuer does not answer, the last set stays valid for an hour and no longer: a withdrawn key would
otherwise be accepted for as long as the issuer is unreachable.

`kyora.timed_http` fetches it: no redirect is followed, and one deadline covers the whole answer.
PyJWT's own client applies its time-out to each read, follows redirects to other hosts, sends the
user agent Python-urllib, which firewalls refuse, and rejects a set for one bad entry.
"""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jwt

from kyora import __version__
from kyora.errors import Unavailable
from kyora.observability import count, logger

# Seconds. The authorizer has ten, and Postgres may need eight of them.
DEADLINE = 2.0
# Seconds until a set is fetched again: always, for a key that it lacks, after a failure.
_MAX_AGE, _MIN_AGE, _RETRY = 300.0, 30.0, 5.0
_VALID = 3600.0  # seconds a set stays valid after it was last fetched
_LONGEST = 1 << 20  # bytes of a set
_ALGORITHMS = {("RSA", ""): "RS256", ("EC", "P-256"): "ES256"}  # by kty and crv
_SHORTEST_RSA = 2048  # bits (RFC 7518, 3.3)

_sets: dict[str, "_Set"] = {}


class Key(NamedTuple):
    """A public key and its one algorithm. `id` is None when the set gives none."""

    id: str | None
    algorithm: str
    public: Any


class _Set(NamedTuple):
    asked: float  # readings of time.monotonic
    fetched: float
    keys: tuple[Key, ...]


class _NotFetched(Exception):
    """No set was received; the text says why."""


def find(url: str, key_id: str | None, algorithm: str) -> list[Key]:
    """Return the keys that may have signed a token with this header.

    Those with its `kid`; a token without one needs the only key of its algorithm. Raises
    Unavailable while there is no valid set.
    """
    kept = _sets.get(url, _Set(float("-inf"), float("-inf"), ()))
    fitting = _fitting(kept.keys, key_id, algorithm)
    now = time.monotonic()
    wait = _MAX_AGE
    if now - kept.fetched > _MAX_AGE or not fitting:
        wait = _MIN_AGE if kept.keys else _RETRY
    if now - kept.asked > wait:
        kept = _sets[url] = _fetch_again(url, kept)
    if not kept.keys or time.monotonic() - kept.fetched > _VALID:
        raise Unavailable("The signing keys cannot be fetched.", code="auth.keys_unavailable")
    return _fitting(kept.keys, key_id, algorithm)


def _fitting(keys: tuple[Key, ...], key_id: str | None, algorithm: str) -> list[Key]:
    found = [key for key in keys if key.algorithm == algorithm]
    if key_id is None:
        return found if len(found) == 1 else []
    return [key for key in found if key.id == key_id]


def _fetch_again(url: str, kept: _Set) -> _Set:
    try:
        keys = tuple(_keys(_fetch(url)))
    except _NotFetched as error:
        logger().warning("signing keys not fetched", reason=str(error), kept=len(kept.keys))
        count("SigningKeysNotFetched")  # its alarm is in template.yaml
        return _Set(time.monotonic(), kept.fetched, kept.keys)
    now = time.monotonic()
    return _Set(now, now, keys)


def _fetch(url: str) -> list[Any]:
    """Return the entries of the set. Raises _NotFetched."""
    from kyora import timed_http

    try:
        reply = timed_http.exchange(
            None,
            "GET",
            url,
            deadline=time.monotonic() + DEADLINE,
            longest=_LONGEST,
            headers={
                "User-Agent": f"kyora/{__version__}",
                "Accept": "application/jwk-set+json, application/json",
                "Connection": "close",
            },
        )
    except timed_http.NoReply:
        raise _NotFetched("no whole answer") from None
    if reply.status != 200:
        raise _NotFetched(f"status {reply.status}")
    try:
        entries = json.loads(reply.body)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _NotFetched("no key set") from None
    if not isinstance(entries, list) or (entries and not any(isinstance(e, dict) for e in entries)):
        raise _NotFetched("no key set")
    return entries


def _keys(entries: list[Any]) -> Iterator[Key]:
    """Yield the keys that we can use; an unreadable one is skipped."""
    for entry in entries:
        if not isinstance(entry, dict) or not (algorithm := _algorithm(entry)):
            continue
        try:
            public = jwt.PyJWK(entry, algorithm).key
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError):
            continue
        name = entry.get("kid")
        if algorithm != "RS256" or public.key_size >= _SHORTEST_RSA:
            yield Key(name if isinstance(name, str) else None, algorithm, public)


def _algorithm(entry: Mapping[str, Any]) -> str:
    """Return the algorithm that a key verifies; empty when it is not one that we accept."""
    kind, curve = str(entry.get("kty")), str(entry.get("crv", ""))
    algorithm = _ALGORITHMS.get((kind, curve), "")
    operations = entry.get("key_ops")
    good = entry.get("alg", algorithm) == algorithm and entry.get("use", "sig") == "sig"
    return algorithm if good and (operations is None or "verify" in operations) else ""
