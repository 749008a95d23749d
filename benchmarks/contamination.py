"""The search of a pool for evaluation texts: rows a second, memory, and the ratio to plain Python on a sample.

    python benchmarks/contamination.py [POOL.jsonl.gz ... --targets TARGETS.jsonl.gz ...] [--rows 200000] [--sample 2000]

Files have `prompt` and `response` in each record. Without files, rows and targets are of made-up words: a target of 10
to 80 words, a row of 10 to 150, every hundredth row with a target inside. Texts are in memory and the loops are
compiled before the clock starts; memory is the peak that Python and numpy allocate during the search. "Plain Python"
does the same literally: words of a row, the set of its n-grams, and for each target how many of its n-grams are in it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
import tracemalloc
from collections import Counter
from pathlib import Path

from selection.contamination import ContaminationRules
from selection.kernels.contamination import COMMON, Contamination
from selection.kernels.threads import Threads
from selection.kernels.words import words


def made_up(rows: int) -> tuple[list[str], list[str]]:
    """Texts of words of a vocabulary of 20,000, the frequent ones more often; and 500 targets."""
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(20_000)]

    def text(low: int, high: int) -> str:
        return " ".join(vocabulary[int(20_000 * rng.random() ** 3)] for _ in range(rng.randint(low, high)))

    targets = [text(10, 80) for _ in range(500)]
    return [f"{text(10, 150)}{f' {rng.choice(targets)}' if i % 100 == 0 else ''}" for i in range(rows)], targets


def read(files: list[Path], *, whole: bool, rows: int | None = None) -> list[str]:
    """The texts of files, prompts alone unless `whole`."""
    texts = []
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            records = map(json.loads, lines)
            texts += [f"{each['prompt']}\n{each['response']}" if whole else each["prompt"] for each in records]
    return texts[:rows]


def plain_python(targets: list[str], texts: list[str], rules: ContaminationRules) -> set[tuple[int, int]]:
    """The pairs of a text and a target of at least `short_n` words, literally."""
    own = [words(target) for target in targets]
    sizes = [rules.size(len(each)) for each in own]
    grams = [{tuple(w[i : i + n]) for i in range(len(w) - n + 1)} for w, n in zip(own, sizes, strict=True)]
    shared = Counter(gram for each in grams for gram in each)
    grams = [{gram for gram in each if shared[gram] <= COMMON} or each for each in grams]
    pairs = set()
    for row, text in enumerate(texts):
        w = words(text)
        held = {n: {tuple(w[i : i + n]) for i in range(len(w) - n + 1)} for n in set(sizes)}
        for target, n in enumerate(sizes):
            if n >= rules.short_n and len(grams[target] & held[n]) >= rules.threshold * len(grams[target]):
                pairs.add((row, target))
    return pairs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", nargs="*", type=Path)
    parser.add_argument("--targets", nargs="*", type=Path, default=[])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--sample", type=int, default=2_000)
    arguments = parser.parse_args()
    if arguments.pool:
        texts = read(arguments.pool, whole=True, rows=arguments.rows)
        targets = read(arguments.targets, whole=False)
    else:
        texts, targets = made_up(arguments.rows)
    rules = ContaminationRules()
    list(Contamination(targets, rules).matches(texts[:1000]))  # compiles
    characters = sum(map(len, texts))
    print(f"{len(texts):,} rows, {characters / len(texts):.0f} characters on average, {len(targets)} targets", end=", ")
    print(f"{Threads().count} threads")

    began, cpu = time.perf_counter(), time.process_time()
    search = Contamination(targets, rules)
    indexed = time.perf_counter() - began
    matches = list(search.matches(texts))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    tracemalloc.start()
    list(Contamination(targets, rules).matches(iter(texts)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(
        f"search:       {seconds:7.2f} s, {cpu:.2f} s of CPU, {len(texts) / seconds:9,.0f} rows/s, {len(matches)} matches,",
        end=" ",
    )
    print(f"index of the targets {indexed:.2f} s, peak {peak / 2**20:.0f} MiB")

    # Every some rows, so that all files of a pool are in the sample.
    sample = texts[:: max(len(texts) // arguments.sample, 1)][: arguments.sample]
    began = time.perf_counter()
    expected = plain_python(targets, sample, rules)
    plain = time.perf_counter() - began
    got = {(match.row, match.target) for match in search.matches(sample)}
    got = {(row, target) for row, target in got if search.sizes[target] >= rules.short_n}
    print(f"plain Python: {plain:7.2f} s, {len(sample) / plain:9,.0f} rows/s on {len(sample):,} of them", end="; ")
    print(f"ratio {plain / len(sample) * len(texts) / seconds:.0f}; {'the same' if got == expected else 'OTHER'} pairs")


if __name__ == "__main__":
    main()
