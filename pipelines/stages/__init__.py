"""The stages of a run, one module each: a function of a context that returns an outcome with metrics and checks.

- `stage`: what every stage shares: the lock, the record of the run, the declared checks.
- `ingest`, `embed`, `index`, `select`, `publish`: the stages of a run. `encode`: the segments of vectors that `embed`
  writes.
- `export`: an entry of `exports`. `report`: what a run ends with.
- `pull`, `fit`, `push`: the stages of a labeling project.

Imports `config`, `context`, `recipes`, `labeling`, `exports` and `report`; never `run`, `orchestration` or `cli`, which
call the stages.
"""
