"""Plans: derived from Stripe's products and prices, kept, offered, pushed."""
