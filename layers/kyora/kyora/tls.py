"""The certificate authorities that we trust: the system's, and Amazon's for its databases.

Reading the system's file takes 20 ms and more on a small function, so a process reads each file
once.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

# RDS and Aurora use Amazon's own authorities, which no system store has: three for each region,
# valid until 2061 and later. Source: RDS User Guide, "Using SSL/TLS to encrypt a connection to a
# DB instance or cluster"; docs/deploy.md says how to fetch the file again.
RDS_BUNDLE = Path(__file__).parent / "rds-global-bundle.pem"


@lru_cache(maxsize=4)
def context(authorities: str | None = None) -> "ssl.SSLContext":
    """Return the context that verifies a peer, host name included.

    Against the system's authorities, or only those of the file `authorities`.
    """
    import ssl

    return ssl.create_default_context(cafile=authorities)


@lru_cache(maxsize=1)
def _rds_context() -> "ssl.SSLContext":
    """Return a context that also trusts Amazon's authorities; RDS Proxy uses a public one."""
    import ssl

    found = ssl.create_default_context()
    found.load_verify_locations(RDS_BUNDLE)
    return found


def database_context(host: str, authorities: str | None = None) -> "ssl.SSLContext":
    """Return the context for a database's host; `authorities` is the address's sslrootcert."""
    if not authorities and host.lower().rstrip(".").endswith(".rds.amazonaws.com"):
        return _rds_context()
    return context(authorities) if authorities else context()
