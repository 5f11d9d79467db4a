"""Postgres: one connection per execution environment, one transaction per decision."""

from kyora.postgres.connection import Transaction, close, transaction
from kyora.postgres.migrate import migrate

__all__ = ["Transaction", "close", "migrate", "transaction"]
