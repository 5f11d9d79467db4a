"""Variants: three smaller sizes of an image, each as WebP and JPEG, made once it is ready.

    AssetReady ─► waiting ──claim──> making ──commit──> ready ──rebuild──> making …
                     ^                 │ └────fail────> failed ──rebuild──> making …
                     └── release, lapse┘
                         deleted with the asset, from any of these

A claim is a lease. Its token is part of the only keys that its worker writes, so a worker that
stalled and resumes publishes nothing. The lease outlives the function: when it is over, its worker
is gone. A worker that dies at every claim has met a file that kills it; the set then fails.

The bytes are encoded first, reserved in the workspace's ledger, written, and booked by the
transaction that publishes them: the ledger holds at each step what the store may hold.

    make         AssetReady: claim, render, reserve, write, publish
    child        run `render` in a process of its own, with limits
    render       decode and encode; the only module that calls an image library
    rebuild      `make variants`: make them again
    cleanup      withdraw a set with its asset, end dead leases, delete objects that no set needs
    variant_row  the rows of a set: keys of its objects, what GET shows
"""
