"""Stripe's objects, a module for each kind: what the API and time do to it."""
