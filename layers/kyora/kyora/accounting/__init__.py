"""Transaction fees: what a payment costs the business, one fee per paid order.

    record    write the fee of a paid order
    fees      the fees of payment methods, and the sum

The newest payment event of an order decides (by `occurredAt`, then by id), so neither the order of
events nor repeated ones make a difference.
"""
