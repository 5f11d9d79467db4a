"""How changes at Stripe come in: webhooks, kept events, objects that are read."""
