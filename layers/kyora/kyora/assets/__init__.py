"""Uploads: a client PUTs a file to a signed URL; its bytes are verified, and it becomes `ready`.

    pending ──claim──> verifying ──commit──> ready ──delete──> deleted
       │ ^                 │ └──────reject──> rejected
       │ └─release (not uploaded yet, changed, store down)
       └──deadline──> expired

With a malware scanner, a verified upload is `scanning` until there is a verdict (see scan), and a
threat that is found later takes an asset from `ready` to rejected.

An open upload ends in three steps: its URL expires, its reservation lapses a few minutes later,
and at its deadline the upload itself expires. A fresh URL starts all three again.

    requests    POST upload, uploads: check the file, reserve its bytes, return a ticket
    renewals    POST upload-url, and tickets repeated for an Idempotency-Key
    confirm     POST confirm, and the S3 event: verify the bytes, make the asset ready
    scan        verdicts of a malware scanner, and what happens without one
    manage      GET, DELETE
    sweep       every five minutes: end what is late, delete objects that no asset needs
    retention   delete rows that are past their time

    rules, media_types, filename   what may be uploaded, decided before there are any bytes
    content/                       what the bytes really are
    ending                         what the end of an asset books and emits
    ledger                         bytes used and reserved, and the limits on them
    asset_row                      a row of the table: finding it, its state, its object keys
    models                         a file as clients get it
    upload_models, multipart_models   what they send and get to upload one
"""
