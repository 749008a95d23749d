"""The stages of a run, one module each: a function of a context that returns an outcome with metrics and checks.

- `stage`: what every stage shares: the lock, the record of the run, the declared checks.
- `ingest`, `embed`, `index`, `select`, `publish`: the stages of a run. `encode`: the segments of vectors that `embed` writes.
- `pull`, `fit`, `push`: the stages of a labeling project. `report`: what a run ends with.

Imports `config`, `context`, `recipes`, `labeling` and `report`; never `run`, `orchestration` or `cli`, which call the stages.
"""
