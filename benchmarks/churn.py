"""How much a selection changes from night to night on a pool that grows, and how much of that is chance.

    python benchmarks/churn.py --pool DIR --target FILE ... [--rows 10000] [--budget 500] [--nights 7] [--new 0.02]
        [--gone 0.005] [--max-churn 0.1 ...]

Reads JSON Lines files (prompt, response; `.gz` too) and draws `--rows` of the pool at random. The first night has all
but the rows that come later; each further night `--new` of the pool come and `--gone` leave, at random. Vectors are
tf-idf reduced to 64 dimensions, so no model is needed.

Of each recipe, drawn afresh and sticky, over the nights after the first: the mean overlap (Jaccard) with the night
before, the mean and the greatest number of rows that were replaced (beside those that left the pool), the overlap of
the last night with a fresh draw, and what the last selection is worth beside that of a fresh draw: the mean highest
cosine of targets to a chosen row (`rds_plus`, `power`), of all rows to a chosen row else. `two seeds` is the mean
overlap of two seeds on the same pool: the noise floor.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selection import Pool, Sticky, Targets, select
from selection.metrics import mean_highest_cosine

RECIPES: dict[str, list[Any]] = {
    "rds_plus": ["rds_plus"],
    "rds_max, power": ["rds_max", {"power": {"beta": 2}}],
    "k_center": ["k_center"],
    "facility_location": ["facility_location"],
    "kmeans_pp": ["kmeans_pp"],
    "typiclust": ["typiclust"],
    "random": ["random"],
}
TARGETED = ("rds_plus", "rds_max, power")


def main() -> None:
    """Print a table."""
    options = _parser().parse_args()
    vectors, targets = _vectors(options)
    nights = list(_nights(options, len(vectors)))
    print(f"{len(nights[0]):,} rows on the first night, {len(nights[-1]):,} on the last; budget {options.budget:,}")
    columns = ("recipe", "mode", "overlap", "two seeds", "replaced", "most", "as fresh", "worth")
    print("{:18} {:12} {:>8} {:>10} {:>9} {:>5} {:>9} {:>7}".format(*columns))
    for name, steps in RECIPES.items():
        pools = [_pool(vectors, targets, rows) for rows in nights]
        fresh = [
            _ids(rows, select(steps, pool, budget=options.budget).rows)
            for rows, pool in zip(nights, pools, strict=True)
        ]
        other = [
            _ids(rows, select(steps, pool, budget=options.budget, seed=1).rows)
            for rows, pool in zip(nights[1:], pools[1:], strict=True)
        ]
        floor = float(np.mean([_jaccard(ours, theirs) for ours, theirs in zip(fresh[1:], other, strict=True)]))
        runs = {"fresh": fresh}
        for max_churn in options.max_churn:
            runs[f"sticky {max_churn:g}"] = list(_sticky(steps, nights, pools, options.budget, max_churn))
        whole = vectors[nights[-1]]
        measured = targets if name in TARGETED else whole
        worth = {mode: mean_highest_cosine(measured, vectors[drawn[-1]]) for mode, drawn in runs.items()}
        for mode, drawn in runs.items():
            overlaps, replaced = _changes(nights, drawn)
            print(
                f"{name:18} {mode:12} {np.mean(overlaps):8.3f} {floor:10.3f} {np.mean(replaced):9.1f} {max(replaced):5d} "
                f"{_jaccard(drawn[-1], fresh[-1]):9.3f} {worth[mode] / worth['fresh']:7.1%}",
                flush=True,
            )


def _sticky(
    steps: Sequence[Any], nights: Sequence[Any], pools: Sequence[Pool], budget: int, max_churn: float
) -> Iterator[Any]:
    last: Any = None
    for rows, pool in zip(nights, pools, strict=True):
        sticky = None
        if last is not None:
            alive = last[np.isin(last, rows)]
            sticky = Sticky(np.searchsorted(rows, alive), np.zeros(len(alive), np.float32), max_churn)
        last = _ids(rows, select(list(steps), pool, budget=budget, sticky=sticky).rows)
        yield last


def _changes(nights: Sequence[Any], drawn: Sequence[Any]) -> tuple[list[float], list[int]]:
    """Of each night after the first: the overlap with the one before, and how many of its rows in the pool left."""
    overlaps, replaced = [], []
    for rows, before, now in zip(nights[1:], drawn[:-1], drawn[1:], strict=True):
        overlaps.append(_jaccard(before, now))
        replaced.append(int(np.isin(np.setdiff1d(before, now), rows).sum()))
    return overlaps, replaced


def _nights(options: argparse.Namespace, n: int) -> Iterator[Any]:
    """The rows of the pool on each night, ascending."""
    rng = np.random.default_rng(0)
    order = rng.permutation(n)
    new = int(n * options.new)
    count = n - new * (options.nights - 1)
    rows = order[:count]
    yield np.sort(rows)
    for _ in range(options.nights - 1):
        stays = rng.permutation(rows)[int(n * options.gone) :]
        rows = np.concatenate([stays, order[count : count + new]])
        count += new
        yield np.sort(rows)


def _pool(vectors: Any, targets: Any, rows: Any) -> Pool:
    sets = Targets(targets, np.zeros(len(targets), np.int64), ("targets",))
    # Noise goes by the row, whatever else is in the pool.
    return Pool(vectors=vectors[rows], unit_length=True, targets=sets, keys=rows.astype(np.uint64))


def _ids(rows: Any, chosen: Any) -> Any:
    return rows[chosen]


def _jaccard(ours: Any, theirs: Any) -> float:
    common = len(np.intersect1d(ours, theirs))
    return common / (len(ours) + len(theirs) - common)


def _vectors(options: argparse.Namespace) -> tuple[Any, Any]:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [text for file in sorted(options.pool.iterdir()) if ".jsonl" in file.name for text in _texts(file)]
    chosen = np.sort(np.random.default_rng(0).permutation(len(texts))[: options.rows])
    pool = [texts[place] for place in chosen.tolist()]
    targets = [text for file in options.target for text in _texts(file)]
    counts = TfidfVectorizer(min_df=2, sublinear_tf=True).fit(pool)
    reduced = TruncatedSVD(64, random_state=0).fit(counts.transform(pool))
    ours, theirs = (_unit(reduced.transform(counts.transform(part))) for part in (pool, targets))
    return ours, theirs


def _unit(vectors: Any) -> Any:
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _texts(file: Path) -> Iterator[str]:
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            yield f"{record['prompt']} {record.get('response') or ''}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True, help="a folder of JSON Lines files")
    parser.add_argument("--target", type=Path, nargs="+", required=True)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--nights", type=int, default=7)
    parser.add_argument("--new", type=float, default=0.02)
    parser.add_argument("--gone", type=float, default=0.005)
    parser.add_argument("--max-churn", type=float, nargs="*", default=[0.1, 0.02])
    return parser


if __name__ == "__main__":
    main()
