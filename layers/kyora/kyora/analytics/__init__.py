"""Orders, revenue and customers of a business, counted by day as their events arrive.

    event ─► inbox ─► analytics_event, the first event of its order or customer ─► analytics_count

    count      count one event
    rebuild    recompute the counts from the stored events
    summary    read the counts
    models     the answer

An order counts once, on the UTC day of its earliest event (by `occurredAt`, then by id); so does a
customer. If an earlier event arrives later, its order moves to the earlier day. So neither the
order of events nor repeated ones make a difference. Each event is one transaction.

The source of a customer is free text, and each source takes rows and a member of the answer. A
business has at most about a hundred sources a day; customers of any other count as `other`.
"""
