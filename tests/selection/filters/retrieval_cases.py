"""Pools for filters that search from labelled rows, and their naive reference."""

from __future__ import annotations

import numpy as np

from selection import Pool

POOL, LABELLED, LABELS = [5, 13, 26, 60, 81, 100, 170, 200], [0, 20, 90], [1, 1, 0]


def on_circle(degrees):
    angle = np.deg2rad(np.asarray(degrees, float))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def circle(pool=POOL, labelled=LABELLED, labels=LABELS, **others):
    """Rows of the pool first, then the labelled ones."""
    n = len(pool)
    return Pool(
        vectors=on_circle([*pool, *labelled]),
        labels=np.array([-1] * n + list(labels)),
        already_selected=np.arange(n, n + len(labelled)),
        **others,
    )


def clustered(n=600, d=8, classes=3, labelled=60, seed=0):
    rng = np.random.default_rng(seed)
    of = rng.integers(0, classes, n)
    x = 2 * rng.normal(size=(classes, d))[of] + rng.normal(size=(n, d))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    labels = np.where(np.arange(n) < labelled, of, -1)
    return Pool(
        vectors=x, labels=labels, already_selected=np.arange(labelled), keys=rng.integers(0, 2**63, n, dtype=np.uint64)
    )


def naive(pool, anchors, k, count, aggregation, balanced):
    """The definition, in float64 and by loops."""
    x, labels = pool.get_vectors().take(np.arange(len(pool))).astype(np.float64), pool.get_labels()
    free = [row for row in range(len(pool)) if labels[row] < 0 and pool.candidates[row]]
    anchors_of = {}
    for anchor in anchors:
        for row in sorted(free, key=lambda row: (-(x[row] @ x[anchor]), row))[:k]:
            anchors_of.setdefault(row, []).append(anchor)
    score, label = {}, {}
    for row, by in anchors_of.items():
        over = anchors if aggregation == "mean_all" else by
        each = [x[row] @ x[anchor] for anchor in over]
        score[row] = max(each) if aggregation == "max" else np.mean(each)
        label[row] = labels[max(by, key=lambda anchor: x[row] @ x[anchor])]
    order = sorted(anchors_of, key=lambda row: (-score[row], row))
    if not balanced or len(order) <= count:
        return order[:count]
    kept = {c: [] for c in sorted(set(label.values()))}
    while sum(map(len, kept.values())) < count:
        left = {c: [row for row in order if label[row] == c and row not in kept[c]] for c in kept}
        c = min((c for c in kept if left[c]), key=lambda c: (len(kept[c]), c))
        kept[c].append(left[c][0])
    return [row for rows in kept.values() for row in rows]
