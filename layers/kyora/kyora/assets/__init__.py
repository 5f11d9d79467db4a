"""Uploads: a URL to write once, bytes verified where no client can write, then `ready`.

    pending ──claim──> verifying ──commit──> ready ──delete──> deleted
       │ ^                 │ └──────reject──> rejected
       │ └─release (not uploaded yet, changed, store down)
       └──deadline──> expired

Time passes for an open upload in three steps: its URL ends, its reservation lapses a few minutes
later (`ledger`), and at its deadline it expires. A fresh URL (`renewals`) starts the three again.

A claim takes a lease whose token names the only key its worker may write, so a worker that
stalled and woke up can change nothing. The token is noted before the copy begins, so that the
clean-up knows every object there may be. No transaction is open while the store is spoken to.
"""
