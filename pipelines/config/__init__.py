"""A winnow.yaml: found, parsed, checked, guessed from data, documented.

- `locate`: find the file. `yaml_lines`: parse it and keep the lines. `reader`: the values of one section at a time.
- `schema`: the sections as classes. `load`: all checks, with a line for each mistake. `cron`: a check of cron strings.
- `init`: write a first one for the user's files. `reference`: the tables of docs/configuration.md.

Imports `errors` and `messages` of pipelines, the readers of `storage`, and the steps' options in `selection`.
"""
