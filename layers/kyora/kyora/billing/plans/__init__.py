"""Plans: derived from Stripe's products and prices, kept, offered, pushed."""

LISTED = "plans"  # the cache's key of the offered plans
