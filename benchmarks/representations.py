"""Kinds of representation, each beside its own library's call, each in a process of its own.

    python benchmarks/representations.py gradients [--rows 300] [--tokens 256] [--hidden 256] [--layers 5] [--only NAME]
    python benchmarks/representations.py ngrams [--rows 20000]

Texts of `gradients` are documentation and sources of the Python standard library, half as a prompt and half as its answer. Models have
random weights and a byte-level tokenizer; speed does not depend on what weights say.

`gradients`: rows a second and peak memory beside one `backward()` a row and beside `vmap(grad)` over eight padded rows,
with the same projection behind them. Stated beforehand for 10,000 rows of 200 tokens and 5 million parameters on two
cores: 6 * 5e6 * 200 operations a row at 40e9 a second are 0.15 s, CountSketch 0.02 s: half an hour; 0.4 GB for torch,
0.5 GB for gradients that wait in two threads and 0.1 GB for weights and a row's gradient: 1 GB.

`ngrams`: rows of 500 characters, cut out of the same sources, beside `HashingVectorizer` of scikit-learn, which hashes
n-grams right into as many columns; and how much cosines of the vectors differ from those of the counts themselves.
Stated beforehand: about 100 tokens a row at 0.3 microseconds and as much again for hashes and counts: 15,000 rows a
second, of 20,000 rows 80 MB of vectors and 250 MB for Python with scipy.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from encode import standard_library, timed
from token_scores import make_model

from selection.encoders import GradientSpec, NgramSpec, load_vectorizer
from selection.encoders.projection import Projector
from selection.kernels.ngrams import CLASSIFIER_BUCKETS, Ngrams, sparse_counts

Turns = list[tuple[str, str]]
BATCH = 8


def rows_of(count: int) -> list[Turns]:
    """Prompts and answers, each of at most 300 characters, so that few rows are cut."""
    texts = [text.strip()[:300] for text in standard_library(2 * count)]
    return [[("user", a), ("assistant", b)] for a, b in zip(texts[::2], texts[1::2], strict=True)]


def ours(spec: GradientSpec) -> Callable[[list[Turns]], np.ndarray]:
    """What winnow does."""
    model = load_vectorizer(spec)
    return lambda rows: model.vectors_of(rows).vectors


def autograd(spec: GradientSpec) -> Callable[[list[Turns]], np.ndarray]:
    """One `backward()` a row with all threads."""
    import torch

    model: Any = load_vectorizer(spec)
    network, chosen = model.parts[0].network, list(model.parts[0].chosen.values())
    projector = Projector(kind="count_sketch", size=model.size, dims=spec.dims, seed=spec.seed)

    def vector(turns: Turns) -> np.ndarray:
        reading = model.reader.read(turns)
        if reading.answer is None:
            return np.zeros(spec.dims, np.float32)
        start, stop = reading.answer
        ids = torch.from_numpy(reading.ids.astype(np.int64))
        labels = torch.full_like(ids, -100)
        labels[start:stop] = ids[start:stop]
        network.zero_grad()
        network(input_ids=ids[None], labels=labels[None]).loss.backward()
        gradient = torch.cat([parameter.grad.reshape(-1) for parameter in chosen])
        return torch.nn.functional.normalize(projector.project(gradient[None])).numpy()[0]

    return lambda rows: np.array([vector(turns) for turns in rows])


def vmapped(spec: GradientSpec) -> Callable[[list[Turns]], np.ndarray]:
    """`vmap(grad)` over rows of alike length, padded on the right, with all threads."""
    import torch
    from torch.func import functional_call, grad, vmap

    model: Any = load_vectorizer(spec)
    network, chosen = model.parts[0].network, model.parts[0].chosen
    projector = Projector(kind="count_sketch", size=model.size, dims=spec.dims, seed=spec.seed)

    def loss(parameters: dict[str, torch.Tensor], ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits = functional_call(network, parameters, (ids[None],), {"use_cache": False}).logits[0]
        nll = -torch.log_softmax(logits[:-1], -1).gather(1, ids[1:, None])[:, 0]
        return (nll * weight).sum() / weight.sum()

    def vectors(rows: list[Turns]) -> np.ndarray:
        readings = [model.reader.read(turns) for turns in rows]
        given = np.zeros((len(rows), spec.dims), np.float32)
        order = [row for row in np.argsort([-len(r.ids) for r in readings]) if readings[row].answer is not None]
        for at in range(0, len(order), BATCH):
            group = order[at : at + BATCH]
            ids = torch.zeros((len(group), len(readings[group[0]].ids)), dtype=torch.long)
            weight = torch.zeros((len(group), ids.shape[1] - 1))
            for place, row in enumerate(group):
                ids[place, : len(readings[row].ids)] = torch.from_numpy(readings[row].ids.astype(np.int64))
                start, stop = readings[row].answer
                weight[place, start - 1 : stop - 1] = 1
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                gradients = vmap(grad(loss), in_dims=(None, 0, 0))(chosen, ids, weight)
            raw = torch.cat([each.detach().reshape(len(group), -1) for each in gradients.values()], dim=1)
            given[group] = torch.nn.functional.normalize(projector.project(raw)).numpy()
        return given

    return vectors


# Name -> (what makes the call, options, by how much fewer rows).
GRADIENTS: Mapping[str, tuple[Callable[[GradientSpec], Callable[[list[Turns]], np.ndarray]], dict[str, Any], int]] = {
    "winnow": (ours, {}, 1),
    "backward() a row": (autograd, {}, 1),
    "vmap(grad)": (vmapped, {}, 1),
    "winnow, last layer": (ours, {"parameters": ["model.layers.{last}.*"]}, 1),
    "winnow, rademacher": (ours, {"projection": "rademacher"}, 6),
}


def run_gradients(name: str, folder: str, options: argparse.Namespace, out: Any) -> None:
    """One case, in its process: seconds, processor seconds, rows, peak MB, vectors."""
    make, changes, fewer = GRADIENTS[name]
    changes = {
        k: [each.format(last=options.layers - 1) for each in v] if k == "parameters" else v for k, v in changes.items()
    }
    spec = GradientSpec(model=folder, template="plain", max_tokens=options.tokens, **changes)
    rows = rows_of(options.rows)[::fewer]
    call = make(spec)
    call(rows[: 2 * BATCH])
    spent, vectors = timed(lambda: call(rows))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    model: Any = load_vectorizer(spec)
    tokens = np.mean([len(model.reader.read(turns).ids) for turns in rows])
    out.put((*spent.tolist(), len(rows), int((~vectors.any(axis=1)).sum()), peak, model.size, tokens, vectors))


def gradients(options: argparse.Namespace) -> None:
    """Print the table of gradients."""
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), options.hidden, options.layers, vocabulary=2048)
        results: dict[str, tuple[Any, ...]] = {}
        for name in [options.only] if options.only else GRADIENTS:
            context = multiprocessing.get_context("spawn")
            queue = context.Queue()
            process = context.Process(target=run_gradients, args=(name, folder, options, queue))
            process.start()
            results[name] = queue.get()
            process.join()
            seconds, cpu, rows, without, peak, size, tokens, _ = results[name]
            if len(results) == 1:
                print(f"rows of {tokens:.0f} tokens on average, {without} of {rows} without a vector")
                print(f"{'':<20}{'rows':>6}{'parameters':>12}{'s a row':>9}{'CPU s':>8}{'MB':>7}{'10,000 rows':>14}")
            hours = f"{seconds / rows * 10_000 / 60:.0f} min"
            print(
                f"{name:<20}{rows:>6}{size:>12,}{seconds / rows:>9.3f}{cpu / rows:>8.3f}{peak:>7.0f}{hours:>14}",
                flush=True,
            )
    for name in {"backward() a row", "vmap(grad)"} & set(results) if "winnow" in results else ():
        difference = np.abs(results[name][-1] - results["winnow"][-1]).max()
        print(f"largest difference of a component between winnow and {name}: {difference:.1e}")


def rows_of_500(count: int) -> list[str]:
    """Made-up rows: pieces of 500 characters."""
    whole = "\n".join(standard_library(3000))
    starts = np.random.default_rng(0).integers(0, len(whole) - 500, count)
    return [whole[start : start + 500] for start in starts.tolist()]


def our_ngrams(texts: list[str], **options: Any) -> np.ndarray:
    """What winnow does."""
    return load_vectorizer(NgramSpec(**options)).vectors_of([[("text", text)] for text in texts]).vectors


def hashing_vectorizer(texts: list[str]) -> np.ndarray:
    """The same of scikit-learn: its counts are not made sublinear."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(n_features=1024, ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]+", dtype=np.float32)
    dense: np.ndarray = vectorizer.transform(texts).toarray()
    return dense


NGRAMS: Mapping[str, tuple[Callable[..., np.ndarray], dict[str, Any]]] = {
    "winnow": (our_ngrams, {}),
    "winnow, ngram: 1": (our_ngrams, {"ngram": 1}),
    "winnow, dims: 4096": (our_ngrams, {"dims": 4096}),
    "HashingVectorizer": (hashing_vectorizer, {}),
}


def run_ngrams(name: str, rows: int, out: Any) -> None:
    """One case, in its process: seconds, processor seconds, peak MB."""
    make, options = NGRAMS[name]
    texts = rows_of_500(rows)
    make(texts[:100], **options)
    spent, _ = timed(lambda: make(texts, **options))
    out.put((*spent.tolist(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def ngrams(options: argparse.Namespace) -> None:
    """Print the tables of n-grams."""
    print(f"{'':<20}{'rows':>8}{'rows/s':>9}{'CPU s':>8}{'MB':>7}")
    for name in NGRAMS:
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=run_ngrams, args=(name, options.rows, queue))
        process.start()
        seconds, cpu, peak = queue.get()
        process.join()
        print(f"{name:<20}{options.rows:>8,}{options.rows / seconds:>9,.0f}{cpu:>8.2f}{peak:>7.0f}", flush=True)
    texts, pairs = rows_of_500(500), np.triu_indices(500, 1)

    def cosines(vectors: Any) -> np.ndarray:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        every: np.ndarray = (unit @ unit.T)[pairs]
        return every

    (block,) = Ngrams(CLASSIFIER_BUCKETS).blocks(texts)
    exact = cosines(np.log1p(sparse_counts(block, CLASSIFIER_BUCKETS).toarray()))
    for dims in (256, 1024, 4096):
        errors = cosines(our_ngrams(texts, dims=dims).astype(np.float64)) - exact
        print(f"dims {dims}: cosines differ by {np.sqrt((errors**2).mean()):.4f} (root of the mean square)")


def main() -> int:
    """Print the table of a section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=["gradients", "ngrams"])
    parser.add_argument("--rows", type=int, default=None)
    for name, value in (("tokens", 256), ("hidden", 256), ("layers", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", choices=list(GRADIENTS), default=None)
    options = parser.parse_args()
    options.rows = options.rows or {"gradients": 300, "ngrams": 20_000}[options.section]
    {"gradients": gradients, "ngrams": ngrams}[options.section](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
