"""Postgres: one connection per execution environment, one transaction per decision."""

from kyora.postgres.connection import (
    Transaction,
    Unstorable,
    alone,
    close,
    in_transaction,
    require_writable,
    storable,
    transaction,
)
from kyora.postgres.migrate import migrate

__all__ = [
    "Transaction",
    "Unstorable",
    "alone",
    "close",
    "in_transaction",
    "migrate",
    "require_writable",
    "storable",
    "transaction",
]
