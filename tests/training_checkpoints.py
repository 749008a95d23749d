"""A short training of a tiny Llama with AdamW, and the checkpoints that transformers' Trainer would leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tiny_models import tiny_llama

BETAS, EPS = (0.8, 0.99), 1e-6


@contextmanager
def single_thread() -> Iterator[None]:
    """Tiny matrices in a thread: two would wait for each other, and with other tests beside them for seconds."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def checkpoints_of_a_training(root: Path) -> list[Path]:
    """Two folders, each with model, tokenizer and optimizer.pt: norms come last in it, since nothing decays them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    start = tiny_llama(root / "start", seed=1)
    network, tokenizer = AutoModelForCausalLM.from_pretrained(start), AutoTokenizer.from_pretrained(start)
    named = dict(network.named_parameters())
    groups = [[p for name, p in named.items() if ("norm" in name) == of_norms] for of_norms in (False, True)]
    optimizer = torch.optim.AdamW([{"params": group} for group in groups], lr=1e-3, betas=BETAS, eps=EPS)
    folders = []
    for step in range(4):
        ids = tokenizer(f"def add({step}): the quick fox {step}", return_tensors="pt")["input_ids"]
        optimizer.zero_grad()
        with single_thread():
            network(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
        if step % 2:
            folders.append(root / f"checkpoint-{step}")
            network.save_pretrained(folders[-1])
            tokenizer.save_pretrained(folders[-1])
            torch.save(optimizer.state_dict(), folders[-1] / "optimizer.pt")
    return folders
