"""Stripe on loopback: a stateful stand-in that the real SDK talks to.

server, control    HTTP: Stripe's API, and `/_control/` for tests and people
pages/             what a person sees: checkout, portal, invoice, dashboard
standin            one running stand-in: its engine, clock, pump and state file
pump, faults       signed webhooks, delivered as badly as asked; failures on request
engine             the API as a pure state machine with a clock of its own
objects/           a module for each kind of object: what the API and time do to it
sdk/               the SDK's types, and requests, answers and our own calls held against them
core/              state, routes, parameters, views, errors: used by all of the above

Each imports only what stands below it. The stand-in refuses what the SDK's types do not allow, and
keeps no card number.
"""
