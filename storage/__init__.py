"""The store: records of pools, vectors, labels, selections and runs, and the SQL catalog over them.

The modules of this folder are the base: `store` (the folder, commits, locks), `scratch` and `checksums` (what `store`
writes with), `damage` (damaged records), `records` (selections, runs, metrics), `ids`, `errors`, `duck`,
`disk`. The rooms lie above it, each may import those below it and the base, none a room above:

    files < pool < vectors < labels < catalog

Of `selection`, the store knows the array types alone. tests/test_architecture.py checks all of this.
"""
