"""Stripe's objects as our rows. Everything here works in a given transaction and calls no one."""
