"""What time brings about, and what is done by hand."""
