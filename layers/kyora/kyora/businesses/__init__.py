"""The businesses of a workspace: as many as its plan allows.

create    open a business
models    a business as clients send and get it
"""
