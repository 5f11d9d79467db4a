"""What /v1/billing answers and changes, for a person who waits."""
