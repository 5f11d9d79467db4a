"""Businesses of a workspace: as many as its plan allows."""
