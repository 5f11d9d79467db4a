"""The event bus: an event is a row of the transaction that causes it, published after its commit.

outbox ──after commit, or relay_outbox──► EventBridge ── rule ── queue ── consume ── a domain
▲                                                                          │
└── a domain's transaction: its change and its events            seen: once per consumer

names      which events there are, and which domain emits each
events     the data of each event, and the envelope around it
outbox     add an event to a transaction; publish what waits
consume    handle an SQS batch, one message at a time
outcomes   what a consumer raises: Again, Permanent
seen       which events a consumer has handled
retention  how long rows of the outbox and of `seen` are kept
"""
