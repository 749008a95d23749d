"""Labels: label files, the log of labels, rounds and their batch files, fitted models, imported probabilities.

May import `vectors`, `pool`, `files` and the base of `storage`.
"""
