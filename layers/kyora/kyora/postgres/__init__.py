"""Postgres: one connection per execution environment, one transaction per decision."""

from kyora.postgres.connection import (
    Transaction,
    close,
    in_transaction,
    require_writable,
    transaction,
)
from kyora.postgres.migrate import migrate

__all__ = [
    "Transaction",
    "close",
    "in_transaction",
    "migrate",
    "require_writable",
    "transaction",
]
