"""For every class of SQLSTATE: retry the statement or not, keep the connection or not.

Classes: https://www.postgresql.org/docs/current/errcodes-appendix.html. A class that is missing
here, such as one of a later PostgreSQL or of an extension, counts as a bug of ours.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Verdict(NamedTuple):
    """`retry`: 503, a retry may work; otherwise it is a bug, 500. `drop`: close the connection.

    `contention`: the server is healthy, two of our own transactions collided.
    """

    retry: bool = False
    drop: bool = False
    contention: bool = False


_BUG = Verdict()  # the statement or its values are wrong; the connection is fine
_COLLIDED = Verdict(retry=True, contention=True)
_BUSY = Verdict(retry=True)  # out of resources, or cancelled; the session goes on
_GONE = Verdict(retry=True, drop=True)  # the session is over, or its server is of no use to us

# By the state's prefix; the longest match counts.
VERDICTS: Mapping[str, Verdict] = {
    "": _GONE,  # no state: it was not PostgreSQL that answered
    "00": _BUG,  # successful completion
    "01": _BUG,  # warning
    "02": _BUG,  # no data
    "03": _BUG,  # SQL statement not yet complete
    "08": _GONE,  # connection exception; pgbouncer's own refusals are 08P01
    "09": _BUG,  # triggered action exception
    "0A": _BUG,  # feature not supported
    "0B": _BUG,  # invalid transaction initiation
    "0F": _BUG,  # locator exception
    "0L": _BUG,  # invalid grantor
    "0P": _BUG,  # invalid role specification
    "0Z": _BUG,  # diagnostics exception
    "10": _BUG,  # XQuery error
    "20": _BUG,  # case not found
    "21": _BUG,  # cardinality violation
    "22": _BUG,  # data exception
    "23": _BUG,  # integrity constraint violation
    "24": _BUG,  # invalid cursor state
    "25": Verdict(drop=True),  # invalid transaction state: not the one we assume
    "25006": _GONE,  # read-only: a demoted primary, or a standby behind the same name
    "25P02": _BUG,  # in a failed transaction; ROLLBACK ends it
    "25P03": _GONE,  # idle in transaction for too long
    "25P04": _GONE,  # transaction timeout
    "26": _GONE,  # invalid statement name: a pooler has changed the server under a statement
    "27": _BUG,  # triggered data change violation
    "28": _GONE,  # invalid authorization: a password that rotated, a role that was dropped
    "2B": _BUG,  # dependent privilege descriptors still exist
    "2D": Verdict(drop=True),  # invalid transaction termination
    "2F": _BUG,  # SQL routine exception
    "34": _BUG,  # invalid cursor name
    "38": _BUG,  # external routine exception
    "39": _BUG,  # external routine invocation exception
    "3B": _BUG,  # savepoint exception
    "3D": _GONE,  # invalid catalog name: the database was dropped
    "3F": _BUG,  # invalid schema name
    "40": _COLLIDED,  # transaction rollback: serialisation failure, deadlock
    "40002": _BUG,  # integrity constraint violation at commit
    "40003": _GONE,  # statement completion unknown
    "42": _BUG,  # syntax error or access rule violation
    "44": _BUG,  # WITH CHECK OPTION violation
    "53": _BUSY,  # insufficient resources
    "53300": _GONE,  # too many connections
    "54": _BUG,  # program limit exceeded
    "55": _BUG,  # object not in prerequisite state
    "55006": _COLLIDED,  # object in use
    "55P03": _COLLIDED,  # lock not available
    "57": _BUSY,  # operator intervention: 57014, a statement that took too long or was cancelled
    "57P": _GONE,  # shutting down, crashed, starting up, database dropped, idle for too long
    "58": _BUSY,  # system error: of the disk, for instance
    "72": _COLLIDED,  # snapshot too old
    "F0": _BUSY,  # configuration file error
    "HV": _BUG,  # foreign data wrapper error
    "P0": _BUG,  # PL/pgSQL error
    "XX": Verdict(drop=True),  # internal error; a pooler's own, too
}


def judge(state: str) -> Verdict:
    """Return the verdict on a SQLSTATE; an empty one is an error without a state."""
    if not state:
        return VERDICTS[""]
    for length in (5, 3, 2):
        if found := VERDICTS.get(state[:length]):
            return found
    return _BUG
