"""Everything that a machine without any network needs, in one signed file: `allod bundle`.

A bundle is an uncompressed POSIX tar. First come `manifest.json`, `manifest.json.sha256` and
`manifest.json.sig`, then what the manifest lists, sorted by path, each content once. Every other byte
(headers, paddings, the end) follows from the manifest: a reader has one right byte to expect at every place.

    manifest    what a bundle says of itself, and what may be in one
    container   the bytes: headers, members, and naming the one that is wrong
    signature   who signed, and whether that counts
    contents    what goes in: models, rules, instructions, trust, services
    wheels      the software itself, as the lock pins it
    create      writes one, and goes on with one that was begun
    receive     takes the contents out, into the blob store and a staging folder
    judge       whether all of it may be put in place
    apply       puts it in place, and goes on with what was begun
    places      where in a home all this lies
"""
