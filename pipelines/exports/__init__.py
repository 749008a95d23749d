"""Rows out of winnow, into the files that trainers read: whole conversations, in rank order, with a card.

From the bottom up:

- `options`: what may be asked of an export, without how it is done.
- `exact_json`: JSON whose numbers print back as they were written.
- `conversation`: a stored row as the messages and fields that a trainer would see.
- `shapes`: the table of shapes, each a function from a conversation to a record.
- `trainers`: the file that a trainer wants beside the data, and the rows that it would skip.
- `rows`: the rows of a selection in any order, in blocks, through a scratch folder.
- `writer`: JSON Lines and Parquet in shards.
- `folder`: a folder that replaces what was exported before, at once.
- `card`: README.md and provenance.json.
- `export`: a selection as an export. `labels`: labelled rows and predictions of a labeling project; `fitted_model`: its
  model as plain arrays, and their loader.

Imports `config`, `classifiers`, `labeling`, `runs` and `context`; never `stages`, `orchestration` or `cli`.
"""
