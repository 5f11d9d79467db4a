"""What a person sees: the hosted pages and the dashboard."""
