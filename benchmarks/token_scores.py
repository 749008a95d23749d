"""Token scores of a causal language model, against a literal pass row by row, in one process.

    python benchmarks/token_scores.py [--texts 200] [--rounds 3] [--tokens 256] [--hidden 256] [--layers 6] [--model DIR]

Texts are documentation and sources of the Python standard library, half as a prompt and half as its answer. Without
--model, a Llama of random weights is made, with a byte-level tokenizer; speed does not depend on what weights say.
Both give the NLL of the row and of its answer alone. Rounds alternate, after a warm-up of both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from encode import standard_library, timed

from selection.encoders import ModelSpec, load_token_scorer

Turns = list[tuple[str, str]]


def make_model(folder: Path, hidden: int, layers: int, vocabulary: int = 32_000) -> None:
    """A Llama of random weights, with places for tokens of which the tokenizer uses 2,000."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    raw.train_from_iterator(standard_library(500), trainer)
    PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers}
    config = LlamaConfig(vocab_size=vocabulary, num_attention_heads=4, num_key_value_heads=4, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)


def row_by_row(spec: ModelSpec, rows: list[Turns]) -> np.ndarray:
    """(n, 2) the summed NLL of each row, and of its answer alone as a text: one forward pass each."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(spec.model)
    network: Any = AutoModelForCausalLM.from_pretrained(spec.model)

    def loss(text: str) -> float:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=spec.max_tokens)["input_ids"]
        with torch.inference_mode():
            return float(network(ids, labels=ids).loss) * (ids.shape[1] - 1)

    return np.array([[loss("\n".join(text for _, text in turns)), loss(turns[-1][1])] for turns in rows])


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("texts", 200), ("rounds", 3), ("tokens", 256), ("hidden", 256), ("layers", 6)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--model", default=None)
    options = parser.parse_args()
    texts = [text.strip() for text in standard_library(2 * options.texts)]
    rows: list[Turns] = [[("user", a), ("assistant", b)] for a, b in zip(texts[::2], texts[1::2], strict=True)]
    with tempfile.TemporaryDirectory() as name:
        if options.model is None:
            make_model(Path(name), options.hidden, options.layers)
        spec = ModelSpec(model=options.model or name, template="plain", max_tokens=options.tokens)
        ours = load_token_scorer(spec)
        ours.scores(rows[:10])
        row_by_row(spec, rows[:10])
        times: dict[str, list[np.ndarray]] = {"winnow": [], "row by row": []}
        for _ in range(options.rounds):
            spent, fast = timed(lambda: ours.scores(rows).values)
            times["winnow"].append(spent)
            spent, slow = timed(lambda: row_by_row(spec, rows))
            times["row by row"].append(spent)
        tokens = ours.scores(rows).tokens
    print(f"{len(rows)} rows, {tokens:,} tokens with the answers alone, at most {options.tokens} each, {ours.device}")
    print(f"{'':<12}{'seconds':>9}{'CPU s':>9}{'rows/s':>9}{'tokens/s':>10}")
    for title, each in times.items():
        seconds, cpu = np.median(each, axis=0)
        print(f"{title:<12}{seconds:>9.2f}{cpu:>9.2f}{len(rows) / seconds:>9.0f}{tokens / seconds:>10.0f}")
    print(f"largest difference of a row's sum: {np.abs(fast[:, 0] - slow[:, 0]).max():.1e} of {slow[:, 0].max():.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
