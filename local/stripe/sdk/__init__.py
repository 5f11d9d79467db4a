"""The Stripe SDK's types, and our calls, reads and answers held against them."""
