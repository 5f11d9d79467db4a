"""E-mail addresses: which can be a recipient, how two are compared, how one is masked."""

import re

_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class InvalidAddress(ValueError):
    """No mail can be sent to this address."""


def normalise(address: str) -> str:
    """Return the address to send to: trimmed, its domain in lower case and in ASCII.

    A domain beyond ASCII is encoded by IDNA 2008 (RFC 5891), as registries do: the standard
    library's codec turns `faß.example` into `fass.example`, another owner's domain.
    Raises InvalidAddress for what Resend would refuse: a local part beyond ASCII, quoted or too
    long, a domain of one label, anything that could end a header.
    """
    local, at, domain = address.strip(" ").rpartition("@")
    domain = domain.rstrip(".").lower()
    if not domain.isascii():
        import idna  # here, because its tables are large and few domains need them

        try:
            domain = idna.encode(domain, uts46=True, std3_rules=True).decode()
        except idna.IDNAError:
            raise InvalidAddress from None
    labels = domain.split(".")
    good = (
        at
        and len(local) <= 64
        and _LOCAL.fullmatch(local)
        and len(labels) > 1
        and all(_LABEL.fullmatch(label) for label in labels)
        and len(local) + 1 + len(domain) <= 254
    )
    if not good:
        raise InvalidAddress
    return f"{local}@{domain}"


def key(address: str) -> str:
    """Return the key of suppressions: no real server distinguishes mailboxes by case."""
    return address.strip().lower()


def key_of(given: str) -> str:
    """Return the key of an address as a person types it; its domain may be beyond ASCII."""
    try:
        return key(normalise(given))
    except InvalidAddress:
        return key(given)


def mask(address: str) -> str:
    """Return just enough of an address for its owner to recognise it."""
    local, _, domain = address.rpartition("@")
    host, _, top = domain.rpartition(".")
    return f"{local[:1]}***@{host[:1]}***.{top}"


def sender(name: str, address: str) -> str:
    """Return the From header of a configured name (config refuses control characters)."""
    if not name:
        return address
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" <{address}>'
