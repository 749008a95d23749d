"""What gives class probabilities to a draw: the user's own file, a classifier of `classifiers:`, a labeling project's model.

A room of its own, since training recipes and labeling projects both import it.
"""
