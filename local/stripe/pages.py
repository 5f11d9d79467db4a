"""Pages that a person can click through."""

from aiohttp import web


def mount(app: web.Application) -> None:
    """Serve the hosted pages on this application."""
