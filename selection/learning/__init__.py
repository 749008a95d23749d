"""Learning from labels: classifiers on vectors, consensus of annotators, advice when to stop, labelling a stream.

`classifier` fits models and gives their probabilities of a pool, `linear` holds the linear model, `annotators` combines
the votes of several annotators, `stopping` says when labelling may stop, `stream` decides row by row, `effects` judges
trials. Nothing here is a step. Modules import `errors`, `types`, `blocks` and the checks of `step`; scikit-learn and
scipy only inside functions.

To add a classifier: a class like `LogisticRegression` in `classifier` with a `fit`, a branch in `build_classifier`, a
line in `docs/labeling.md`; see CONTRIBUTING.md.
"""
