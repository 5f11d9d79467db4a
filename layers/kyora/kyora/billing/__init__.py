"""Stripe billing: what Stripe says is mirrored, and a workspace's access follows from the mirror.

    stripe_webhook ─► events/ingest ─► event_store   T1: the event is kept
                           └─► events/process ─► mirror/ ─► access ─► announce ─► bus   T2: done
    manage_billing ─► api/ ─► Stripe ─► events/resync ─► the same mirror
    sweep_billing, reconcile_billing ─► jobs/ ─► what is late, missed or differs, the same way
    sync_plans ─► plans/ ◄─ Stripe's products and prices

A room imports from the rooms below it, never upwards and never in a circle:

    api/     what a person asks for               jobs/   time-driven work, commands by hand
    events/  how a change comes in: webhook, the registry of types, an object that was read
    mirror/  Stripe's objects as our rows         plans/  what can be subscribed to
    access, event_store, ordering, announce, usage, plan_order, models
    stripe_client, stripe_objects, stripe_terms, rate_limit

Stripe promises no order and no single delivery, and stamps its events in whole seconds: `ordering`
says what is done about that.
"""
