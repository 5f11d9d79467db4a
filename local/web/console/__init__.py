"""The console: one page at `/`, and what it shows and does as JSON under `/_console/`.

    views.py   GET /_console/<view>       what a page shows; each view is a module beside it
    stream.py  GET /_console/stream       the same, again whenever it changes (server-sent events)
    acts.py    POST /_console/<verb>      what a button does; the verbs are local.commands.acts
    page.py    /, /_console/static/…      the page and its files

docs/console.md documents the JSON. Who may ask is decided in local.web.guard.
"""
