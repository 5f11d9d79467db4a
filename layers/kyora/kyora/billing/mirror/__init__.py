"""Stripe's objects as our rows. Everything here is given a transaction and asks nobody."""
