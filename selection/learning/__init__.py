"""What the labels teach: a classifier on the vectors, a consensus of annotators, advice on when to stop."""
