"""Where uploaded bytes live: S3 (or any store that speaks it), or a folder in development.

A presigned URL can write `incoming/…` only. `assets/…` is written by `copy` alone, so what was
verified there cannot be changed by a client.
"""
