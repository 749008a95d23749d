r"""Labels of random rows, of `auto` and of typical rows, learned by a transformer that is fine-tuned on them.

    python benchmarks/labeling_finetuned.py --folder SETS --embeddings CACHE --out runs.jsonl --cold trec6 sst2

The rows are drawn as in `labeling_default.py`, with frozen vectors and logistic regression, as a project does. With
--labels labels MiniLM (in the extra `demo`) gets a linear head, and all weights but those of the word embeddings are
trained on them. The table has its mean average precision and accuracy on the test file beside those of logistic
regression on the same labels, and the paired differences to random rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from active import AUTO, MODEL, RANDOM, Array, Part, Task, batches, difference, measured, read_part, without_texts_of
from labeling_default import STRATEGIES, auto_version, task_of

from selection.encoders.spec import local_folder
from selection.learning.classifier import Classifier, build_classifier

MEASURES = ("average precision", "accuracy")
MAX_TOKENS, BATCH_ROWS, LEARNING_RATE, HEAD_RATE = 64, 16, 1e-4, 1e-2
# Passes over the labels, and at least so many steps.
EPOCHS, LEAST_STEPS = 6, 40
TEST_ROWS = 300


class Transformer:
    """MiniLM with mean pooling and a linear head, trained on texts; a new one for each fit."""

    def __init__(self, n_classes: int, seed: int) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.manual_seed(seed)
        torch.set_num_threads(1)
        folder = local_folder(MODEL, None)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.body = AutoModel.from_pretrained(folder)
        # Half of all weights, most of tokens that no label has.
        self.body.get_input_embeddings().weight.requires_grad_(False)
        self.head = torch.nn.Linear(self.body.config.hidden_size, n_classes)

    def logits(self, texts: Sequence[str]) -> Any:
        """(len(texts), C), a tensor."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        hidden = self.body(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        return self.head(pooled)

    def fit(self, texts: Sequence[str], y: Array, seed: int) -> None:
        """Train with AdamW; the rate falls linearly to 0."""
        import torch

        rng = np.random.default_rng(seed)
        epochs = max(EPOCHS, -(-LEAST_STEPS * BATCH_ROWS // len(y)))
        order = np.concatenate([rng.permutation(len(y)) for _ in range(epochs)])
        steps = [order[at : at + BATCH_ROWS] for at in range(0, len(order), BATCH_ROWS)]
        groups = [
            {"params": [p for p in self.body.parameters() if p.requires_grad], "lr": LEARNING_RATE},
            {"params": self.head.parameters(), "lr": HEAD_RATE},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(steps))
        self.body.train()
        for rows in steps:
            loss = torch.nn.functional.cross_entropy(self.logits([texts[r] for r in rows]), torch.from_numpy(y[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def predict(self, texts: Sequence[str]) -> Array:
        """(len(texts), C) probabilities."""
        import torch

        self.body.eval()
        order = np.argsort([len(text) for text in texts])  # rows of a batch are padded to the longest
        P = np.empty((len(texts), self.head.out_features), np.float32)
        with torch.inference_mode():
            for at in range(0, len(order), 64):
                rows = order[at : at + 64]
                P[rows] = self.logits([texts[r] for r in rows]).softmax(dim=1).numpy()
        return P


class Tuned:
    """Probabilities of the test rows, in the place of a model of vectors."""

    def __init__(self, P: Array) -> None:
        self.P = P
        self.n_classes = P.shape[1]

    def probabilities(self, _vectors: Array) -> Array:
        return self.P


def play(
    task: Task, pool_texts: Sequence[str], test_texts: Sequence[str], strategy: str, learner: Classifier, seed: int
) -> dict[str, dict[str, float]]:
    """The measures of both classifiers with all labels of the task's last budget."""
    *_, (labelled, model, _) = batches(task, strategy, learner, seed)
    tuned = Transformer(task.n_classes, seed)
    tuned.fit([pool_texts[row] for row in labelled], task.classes[labelled], seed)
    return {
        "frozen": measured(task, labelled, model),
        "fine-tuned": measured(task, labelled, Tuned(tuned.predict(test_texts))),
    }


def report(entries: Sequence[dict[str, Any]]) -> None:
    """The table."""
    for name in dict.fromkeys(entry["set"] for entry in entries):
        runs: dict[str, dict[int, Any]] = {}
        for entry in entries:
            if entry["set"] == name:
                runs.setdefault(entry["strategy"], {})[entry["seed"]] = entry["values"]
        seeds = sorted(set.intersection(*(set(of) for of in runs.values())))
        for classifier in ("frozen", "fine-tuned"):
            for measure in MEASURES:
                values = {s: np.array([of[seed][classifier][measure] for seed in seeds]) for s, of in runs.items()}
                line = f"{name}, {classifier}, {measure}, {len(seeds)} seeds: {RANDOM} {values[RANDOM].mean():.3f}"
                for strategy in [s for s in values if s != RANDOM]:
                    mean, low, high = difference(values[strategy], values[RANDOM])
                    line += f", {strategy} {mean:+.3f} [{low:+.3f}, {high:+.3f}]"
                print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--embeddings", type=Path, required=True, help="folder of the cached vectors")
    parser.add_argument("--cold", nargs="+", required=True, metavar="SET")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategies", nargs="+", default=(RANDOM, AUTO, "facility_location"), choices=STRATEGIES)
    parser.add_argument("--labels", type=int, default=100, help="the largest budget is this one")
    parser.add_argument("--rows", type=int, default=3000, help="of a pool")
    parser.add_argument("--most", type=int, default=8000, help="texts of a training file; of a test file 2,000")
    parser.add_argument("--out", type=Path, required=True, help="results, JSON Lines; a run goes on with what is there")
    options = parser.parse_args()
    learner = build_classifier({"logistic_regression": {"calibrated": False}})
    settings = [options.labels, options.rows, options.most]
    keys = {name: [*settings, auto_version()] if name == AUTO else settings for name in options.strategies}
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    entries = [entry for entry in map(json.loads, lines) if entry["key"] == keys.get(entry["strategy"])]
    done = {(e["set"], e["strategy"], e["seed"]) for e in entries}
    for seed in range(options.seeds):
        for name in options.cold:
            train = read_part(options.folder / f"{name}_train.jsonl.gz", options.embeddings, options.most)
            test = read_part(options.folder / f"{name}_test.jsonl.gz", options.embeddings, 2000)
            test = without_texts_of(test, train)
            test = Part(test.vectors[:TEST_ROWS], test.labels[:TEST_ROWS], test.texts[:TEST_ROWS])
            task = task_of(name, train, test, options.rows, seed)
            budgets = tuple(b for b in task.budgets if b < options.labels)
            task = replace(task, budgets=(*budgets, options.labels))
            known = np.flatnonzero(np.isin(test.labels, np.unique(train.labels)))
            pool_texts, test_texts = [train.texts[r] for r in task.rows], [test.texts[r] for r in known]
            for strategy in options.strategies:
                if (name, strategy, seed) in done:
                    continue
                begin = time.perf_counter()
                values = play(task, pool_texts, test_texts, strategy, learner, seed)
                entries.append(
                    {"key": keys[strategy], "set": name, "strategy": strategy, "seed": seed, "values": values}
                )
                with options.out.open("a") as file:
                    file.write(json.dumps(entries[-1]) + "\n")
                print(f"{name} {strategy} seed {seed}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    report(entries)


if __name__ == "__main__":
    main()
