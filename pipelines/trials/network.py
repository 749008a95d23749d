"""A language model of a trial: made from scratch or of a folder, trained on sequences, measured on examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.config.schema import SCRATCH
from pipelines.trials.text import Ids, Mask, Reader, Tokens, batches
from selection.encoders import ModelSpec
from selection.encoders.encoder import quiet
from selection.errors import InvalidOption

# Padded tokens of a batch of measured examples.
MEASURED_TOKENS = 4096
# Below so many weights one thread is as fast as several, and faster on a busy machine.
FEW_PARAMETERS = 1_000_000
WARM_UP = 0.1
WEIGHT_DECAY, CLIP, BETAS = 0.1, 1.0, (0.9, 0.95)


@dataclass(frozen=True)
class Size:
    """A model from scratch, and how any model is trained.

    Attributes:
        width, layers, heads: of a Llama-shaped model with tied embeddings; 0 for a folder's.
        vocabulary: the most tokens of its tokenizer.
        context: tokens of a sequence.
        batch: sequences of a step.
        rates: learning rates to choose from.
    """

    width: int
    layers: int
    heads: int
    vocabulary: int
    context: int
    batch: int
    rates: tuple[float, ...]

    @property
    def step_tokens(self) -> int:
        """Tokens of a step."""
        return self.batch * self.context


SIZES = {
    "tiny": Size(64, 2, 4, 1024, 128, 8, (1e-3, 3e-3, 1e-2)),
    "small": Size(256, 4, 4, 8192, 256, 16, (5e-4, 1.5e-3, 5e-3)),
    "large": Size(512, 12, 8, 16384, 1024, 32, (3e-4, 1e-3, 3e-3)),
}
"""Models from scratch: about 0.2, 5 and 50 million parameters."""
FULL = Size(0, 0, 0, 0, 512, 8, (1e-5, 3e-5, 1e-4))
LORA = Size(0, 0, 0, 0, 512, 8, (1e-4, 3e-4, 1e-3))
"""A model of a folder, all of its weights or LoRA's."""


def size_of(model: str, size: str, *, lora: bool) -> Size:
    """What a model is trained with."""
    return SIZES[size] if model == SCRATCH else LORA if lora else FULL


def open_model_reader(model: str) -> Reader:
    """The tokenizer of a folder's model.

    Raises:
        InvalidOption: it cannot be loaded, or is none of the `tokenizers` library, or has no token that ends a text.
    """
    from transformers import AutoTokenizer

    folder = ModelSpec(model=model).folder()
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder or model))
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InvalidOption(f"model {model!r}: its tokenizer cannot be loaded: {error}", step="trials") from error
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        lacks = "no token that ends a text" if tokenizer.is_fast else "no fast tokenizer"
        raise InvalidOption(f"model {model!r} has {lacks}, which a trial needs", step="trials")
    return Reader(tokenizer.backend_tokenizer, int(tokenizer.eos_token_id), tokenizer.bos_token_id)


class Network:
    """A model on its device.

    Args:
        model: `scratch`, or a folder or hub name.
        size: see `size_of`.
        vocabulary: how many tokens the reader knows.
        seed: of the initial weights; models of the same seed begin alike.
        lora: train low-rank additions alone.

    Raises:
        InvalidOption: the model cannot be loaded, or peft is not installed.
    """

    def __init__(self, model: str, size: Size, vocabulary: int, seed: int, *, lora: bool = False) -> None:
        import torch

        self.device = "cuda:0" if torch.cuda.is_available() else "cpu"
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made: Any = _scratch(size, vocabulary) if model == SCRATCH else _of_folder(model, lora=lora)
        self.module = made.to(self.device)
        self.size = size
        limit = getattr(made.config, "max_position_embeddings", None) or size.context
        self.context = min(size.context, int(limit))

    @property
    def parameters(self) -> int:
        """How many weights there are, those that are not trained included."""
        return sum(weights.numel() for weights in self.module.parameters())

    @property
    def trained_parameters(self) -> int:
        """How many weights are trained."""
        return sum(weights.numel() for weights in self.module.parameters() if weights.requires_grad)

    def train(self, ids: Ids, answer: Mask, rate: float, on_step: Callable[[], None] | None = None) -> float:
        """Train on sequences in their order; gives the loss of the last tenth of the steps, in nats.

        Args:
            ids, answer: (steps * batch, context).
            rate: the highest learning rate; it rises over the first tenth of the steps and falls to a tenth as a
                cosine.

        Source: AdamW as in Touvron et al. 2023 (Llama).
        """
        import torch

        trained = [weights for weights in self.module.parameters() if weights.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=rate, betas=BETAS, weight_decay=WEIGHT_DECAY)
        steps = max(1, len(ids) // self.size.batch)
        losses = []
        self.module.train()
        with self._threads(), torch.random.fork_rng():  # dropout, where a folder's model has some
            torch.manual_seed(0)
            for step in range(steps):
                part = slice(step * self.size.batch, (step + 1) * self.size.batch)
                for group in optimizer.param_groups:
                    group["lr"] = rate * schedule(step, steps)
                losses.append(self._step(optimizer, trained, ids[part], answer[part]))
                if on_step is not None:
                    on_step()
        return float(np.mean(losses[-max(1, steps // 10) :]))

    def _step(self, optimizer: Any, trained: Sequence[Any], ids: Ids, answer: Mask) -> float:
        import torch

        losses, counts = self._losses(ids, answer)
        loss = losses.sum() / counts.sum().clamp(min=1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        return float(loss.detach())

    def losses(self, examples: Sequence[Tokens]) -> npt.NDArray[np.float64]:
        """(n,) the mean loss per answer token of each example, in nats.

        Args:
            examples: of at most `context` tokens, each with an answer token behind its first.
        """
        import torch

        values = np.empty(len(examples))
        self.module.eval()
        with self._threads(), torch.inference_mode():
            for places in batches(examples, MEASURED_TOKENS):
                longest = max(len(examples[place].ids) for place in places)
                ids, answer = np.zeros((len(places), longest), np.int32), np.zeros((len(places), longest), np.bool_)
                for line, place in enumerate(places):
                    ids[line, : len(examples[place].ids)] = examples[place].ids
                    answer[line, : len(examples[place].ids)] = examples[place].answer
                losses, counts = self._losses(ids, answer)
                values[places] = (losses.double() / counts).cpu().numpy()
        return values

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """One thread for a model so small that threads would wait for each other; others keep as many as torch has."""
        import torch

        threads = torch.get_num_threads()
        if self.parameters < FEW_PARAMETERS:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def _losses(self, ids: Ids, answer: Mask) -> tuple[Any, Any]:
        """(b,) the summed loss of each sequence's answer tokens but its first token, and how many there are.

        Padding stands on the right and attention is causal, so it changes nothing.
        """
        import torch

        inputs = torch.from_numpy(ids.astype(np.int64)).to(self.device)
        counted = torch.from_numpy(answer).to(self.device)[:, 1:]
        half = torch.autocast("cuda", torch.bfloat16, enabled=self.device.startswith("cuda"))
        with half:
            logits = self.module(input_ids=inputs, use_cache=False).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), inputs[:, 1:].flatten(), reduction="none"
        ).view(counted.shape)
        return (losses * counted).sum(1), counted.sum(1)


def schedule(step: int, steps: int) -> float:
    """The part of the highest learning rate at a step.

    >>> [round(schedule(step, 20), 2) for step in (0, 1, 2, 11, 19)]
    [0.5, 1.0, 1.0, 0.55, 0.11]
    """
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _scratch(size: Size, vocabulary: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=size.width,
        intermediate_size=int(size.width * 8 / 3),
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=size.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def _of_folder(model: str, *, lora: bool) -> Any:
    from transformers import AutoModelForCausalLM

    folder = ModelSpec(model=model).folder()
    try:
        with quiet() as missing:
            module = AutoModelForCausalLM.from_pretrained(str(folder or model), dtype="float32")
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = f"model {model!r} cannot be loaded as a causal language model: {error}"
        raise InvalidOption(reason, step="trials") from error
    if missing:
        reason = f"the files of model {model!r} miss {len(missing)} weights, so it is no causal language model"
        raise InvalidOption(reason, step="trials")
    return _with_lora(module) if lora else module


def _with_lora(module: Any) -> Any:
    """Low-rank additions to all linear layers; Hu et al. 2022."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        reason = "lora: true needs peft: pip install peft; or lora: false trains all weights"
        raise InvalidOption(reason, step="trials") from error
    return get_peft_model(module, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
