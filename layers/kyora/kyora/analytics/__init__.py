"""Orders, revenue and customers of a business by day, counted as their events arrive.

    event ─► inbox ─► analytics_event, the first event of its order or customer ─► analytics_count

An order counts once, on the UTC day of its earliest event by `occurredAt`, then by id; a customer
likewise. An earlier event that arrives late moves what the later one had counted, so neither
order nor repetition makes a difference. All of it is one transaction.

A source is free text, and each new one is rows and a member of the answer: a business has a hundred
of them a day, give or take those counted at the same moment. Customers of any further one count as
`other`.
"""
