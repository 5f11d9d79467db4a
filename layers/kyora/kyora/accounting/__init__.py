"""What it costs a business to be paid: one transaction fee for each order.

An order's fee is that of its newest payment event, by `occurredAt` and then by id. In which order
events arrive, and how often, makes no difference.
"""
