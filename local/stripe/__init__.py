"""Stripe on loopback: a stateful stand-in that the real SDK talks to.

`engine` is a pure state machine with a clock of its own; `server` puts it behind HTTP with signed
webhooks and pages that a person can click through. No card number is ever kept.
"""
