"""Stripe billing: what Stripe says is mirrored, and a workspace's access follows from the mirror.

    webhook ─► inbox (T1: kept) ─► apply (T2: mirror, access, events, done) ─► bus
    manage_billing ─► Stripe ─► the same apply
    reconcile ─► what never arrived ─► the same inbox and apply
    plans ◄─ Stripe's products and prices

Stripe promises no order and no single delivery, and stamps its events in whole seconds: `apply`
says what is done about that.
"""
