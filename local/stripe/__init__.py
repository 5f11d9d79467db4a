"""Stripe on loopback: a stateful stand-in that the real SDK talks to.

`engine` is a pure state machine with a clock of its own; `server` puts it behind HTTP with signed
webhooks (`pump`) and pages that a person can click through. Each kind of object has a module with
what the API does to it. No card number is ever kept.

`sdk` reads the types of the Stripe SDK, `contract` holds requests and answers against them: the
stand-in refuses what they do not allow. `ours` is the recording of what we send and read, and
`upgrade` holds it against another release of the SDK.
"""
