"""Kyora's shared code: infrastructure at the top level, one package per domain."""

__version__ = "1.0.0"
