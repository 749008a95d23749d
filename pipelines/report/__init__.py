"""The morning page: what a run chose, what changed since the run before, and why; as one JSON document and one HTML page.

- `history`: the records of a run, and of the runs before it.
- `gather`: the document. Its parts: `verdict`, `funnel`, `changes`, `quality`, `mix`, `rows`, `maps`, `labels`.
- `page`: the HTML, made from the document alone; `charts` and `page.js` draw its plots, `page.css` is its look, `kept`
  keeps what is slow to make.
- `write`: the record of a report, and the files beside it. `notify`: tells somebody.

Imports `config`, `recipes` and the modules of the package; stages and commands call it.
"""
