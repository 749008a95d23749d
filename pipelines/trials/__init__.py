"""Trials: small models are trained on a selection and on controls, and losses say whether the selection helped.

`spec` says what a trial depends on, `arms` draws the controls by the machinery of recipes, `text` turns rows into
tokens and batches, `network` makes, trains and measures a model, `plan` decides everything before the first model is
trained and keeps it, `cells` trains a model for each arm and seed and keeps its losses, `verdict` judges them, `trial`
is the whole. `results` judges a user's own scores. `records` knows where they lie: records/trials/<id>/ and
records/results/<id>/.

The room may import `config`, `classifiers` and `recipes`; torch, transformers, tokenizers and peft only inside
functions.
"""
