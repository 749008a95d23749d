"""winnow's pipeline: from a configuration and files to stored selections and labeling rounds.

The rooms, from the bottom up; each imports only those above it in this list, and `storage` and `selection`:

- `errors`, `messages`, `progress`: the errors that users can mend, their wording, progress reports.
- `config`: a winnow.yaml, from text to checked objects.
- `runs`, `pool_view`, `context`: the recorded runs of stages; the pool, opened once; what an invocation works on.
- `recipes`: from a recipe to a drawn selection.
- `labeling`: rounds of a labeling project; it gives a recipe its inputs.
- `exports`: rows out, as files that trainers read.
- `stages`: ingest, embed, index, select, pull, fit, push, publish; each runs alone and is recorded.
- `run`, `plan`, `diff`, `reproduce`: what the commands of the same names do.
- `orchestration`, `cli`, `demo`: Dagster, the `winnow` command, the demo.

`definitions` is the module that a Dagster workspace names.
"""
