"""How changes at Stripe come in: webhooks, stored events, objects that are read."""
