"""Scheduled work, and commands by hand."""
