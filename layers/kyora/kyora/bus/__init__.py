"""The event bus: an event is a row of the transaction that causes it, published after its commit.

    a domain's transaction          after its commit,
    its change ┐                    or by relay_outbox
               ├─ outbox ──────────────────────────────► EventBridge ── rule ── queue
    its events ┘                                                                  │
                        once per consumer: seen ── a domain's function ◄── consume

What each module does:

    names      which events there are, and which domain emits each
    events     the data of each event, and the envelope around it
    outbox     add an event to a transaction; publish what waits
    consume    handle an SQS batch, one message at a time
    outcomes   what a consumer raises: Again, Permanent
    seen       which events a consumer has handled
    retention  how long published events, and records of handled ones, are kept
"""
