"""Where files are stored: S3 or any store with its API, or a folder during development.

    provider    the configured store
    types       Storage, the interface of a store, and what its methods return
    headers     the headers that every store signs
    s3          S3
    local       a folder, with the same contract
    bucket      what the bucket has to be set to, checked at deploy

A client can only write `incoming/…`, with a presigned URL. `assets/…` is only written by `copy`, so
no client can change a file after its verification.

A new store is a module with a class that has the methods of `Storage`, a case in `provider`, and
its name among the values of `storage.provider` in `kyora.config`.
"""
