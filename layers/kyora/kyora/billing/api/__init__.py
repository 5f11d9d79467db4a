"""What /v1/billing answers and changes, while a person waits."""
