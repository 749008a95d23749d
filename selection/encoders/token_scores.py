"""How likely a causal language model finds the tokens of a row, with its prompt and without.

One forward pass over a row, and one over its answer alone, give what `perplexity`, `ifd` and `token_uncertainty` read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np

from selection.encoders.answers import CUT, AnswerReader, Reading
from selection.encoders.encoder import BATCH_TOKENS, batches, padded, quiet, side_by_side, weights_met
from selection.encoders.format import Template
from selection.encoders.spec import EncoderSpec, folder_digest, invalid_encoder
from selection.errors import TemplateRefusal
from selection.types import SCORES as COLUMNS
from selection.types import Doubles, Rows

# Part of the fingerprint. Increase it whenever the same spec would give other numbers.
SCORES_VERSION = 1
QUANTILES = {"nll_q10": 0.1, "nll_q50": 0.5, "nll_q90": 0.9}
# The most numbers of a batch's logits, by device: 128 MiB of float32 for each thread, 4 GiB on a card.
LOGITS = {"cpu": 2**25, "cuda": 2**30}


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A causal language model, and how it reads a row. JSON-plain: `asdict` is the record and rebuilds it.

    Attributes:
        model: a hub name ("org/model"), a local folder, or "package:<name>", as an encoder's.
        revision: branch, tag or commit of a hub model.
        template: how turns become text: "tulu" (as RDS+), "plain", "chat_template" (the tokenizer's own).
        max_tokens: rows are cut on the right at this length, or at the model's own limit if it is lower.
        dtype: the type of the model's weights; log-likelihoods are computed in float32 and added up in float64.
    """

    model: str
    revision: str | None = None
    template: Template = "tulu"
    max_tokens: int = 2048
    dtype: str = "float32"

    def __post_init__(self) -> None:
        self._as_encoder()
        if self.template == "rds_query":
            allowed = [name for name in get_args(Template) if name != "rds_query"]
            raise invalid_encoder(f"template must be one of {', '.join(allowed)}, got 'rds_query'", "template")

    def _as_encoder(self) -> EncoderSpec:
        return EncoderSpec(
            model=self.model,
            revision=self.revision,
            template=self.template,
            max_tokens=self.max_tokens,
            dtype=self.dtype,
        )

    def check(self) -> None:
        """Whether the model's files are there; see `EncoderSpec.folder`."""
        self.folder()

    def folder(self) -> Any:
        """The folder with the model's files; see `EncoderSpec.folder`."""
        return self._as_encoder().folder()

    def fingerprint(self) -> str:
        """32 hex digits of everything that the numbers depend on; see `EncoderSpec.fingerprint`."""
        folder = self.folder()
        inputs = asdict(self) | {
            "model": folder_digest(folder) if folder else f"{self.model}@{self._as_encoder().commit()}",
            "revision": None,
            "token_scores": SCORES_VERSION,
        }
        return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class TokenScores:
    """What a model says of some rows.

    Attributes:
        values: (n, len(COLUMNS)) float64, NaN where there is no value.
        causes: why a row lacks some of them, or all; empty for a row that has all.
        failed: the rows that lack all.
        tokens: tokens read, padding not counted.
        truncated: rows that were cut.
    """

    values: Doubles
    causes: list[str]
    failed: list[int]
    tokens: int
    truncated: int


class TokenScorer:
    """A model in memory; made by `load_token_scorer`.

    Attributes:
        spec: the options that it was loaded from.
        device: "cpu", "cuda:0", ...
        max_tokens: the effective limit.
        batch_tokens: the default token budget of a batch on this device.
        parameters: the number of weights without embedding tables.
        notes: messages for the user.
    """

    def __init__(self, spec: ModelSpec, tokenizer: Any, network: Any, device: str) -> None:
        self.spec, self.device = spec, device
        self._network = network
        self._reader = AnswerReader(
            tokenizer, network.config, model=spec.model, template=spec.template, max_tokens=spec.max_tokens
        )
        self.max_tokens, self.notes = self._reader.max_tokens, self._reader.notes
        kind = "cuda" if device.startswith("cuda") else "cpu"
        self.batch_tokens = min(BATCH_TOKENS[kind], max(1, LOGITS[kind] // network.config.vocab_size))
        self.parameters = weights_met(network)

    def scores(
        self,
        rows: Sequence[Sequence[tuple[str, str]]],
        *,
        batch_tokens: int | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> TokenScores:
        """What the model says of some conversations.

        Args:
            batch_tokens: tokens in a batch, padding included; by default a number that suits the device.
            on_batch: called after each batch with its number of rows.

        The answer is the last turn if it is an assistant's, with the end-of-sequence token that the template writes
        behind it. Its tokens are those of the whole row that stand in it, also in part. Alone, it stands as the only
        turn of its template (behind the header of an answer, with "tulu"). A row cut before the end of its answer has
        no numbers of the answer; those of the whole row are of the tokens that are left.

        Cost: two forward passes over the tokens, on a CPU several batches at a time in one thread each.
        """
        read = [self._read(turns) for turns in rows]
        sequences = [sequence for pair in read for sequence in pair]
        losses: list[tuple[Doubles, Doubles]] = [(np.empty(0), np.empty(0))] * len(sequences)
        parts = list(batches(np.array([len(s.ids) for s in sequences], np.int64), batch_tokens or self.batch_tokens))
        with side_by_side(self.device) as run:
            for part, given in zip(parts, run(lambda part: self._forward(sequences, part), parts), strict=True):
                for place, loss in zip(part.tolist(), given, strict=True):
                    losses[place] = loss
                if on_batch is not None:
                    on_batch(int((part % 2 == 0).sum()))
        values = np.array([_values(*read[i], losses[2 * i], losses[2 * i + 1][0]) for i in range(len(rows))])
        values = values.reshape(len(rows), len(COLUMNS))
        causes = [whole.cause or alone.cause for whole, alone in read]
        failed = np.flatnonzero(np.isnan(values[:, 0])).tolist()
        for row in failed:
            refusal = causes[row] if not len(read[row][0].ids) else ""
            causes[row] = refusal or _why(read[row][0])
        return TokenScores(
            values,
            causes,
            failed,
            tokens=sum(len(sequence.ids) for sequence in sequences),
            truncated=sum(whole.cause == CUT for whole, _ in read),
        )

    def _read(self, turns: Sequence[tuple[str, str]]) -> tuple[Reading, Reading]:
        """A row, and its answer alone, as tokens."""
        nothing = Reading(np.empty(0, np.int32), None)
        whole = self._reader.read(turns)
        if whole.cause:
            return whole, nothing
        alone = self._reader.read([("assistant", turns[-1][1].strip())])
        return (alone, nothing) if alone.cause.startswith(TemplateRefusal.WORDS) else (whole, alone)

    def _forward(self, sequences: Sequence[Reading], rows: Rows) -> list[tuple[Doubles, Doubles]]:
        """The NLL and the rank of each token but the first, for each sequence of a batch, padded on the right."""
        import torch

        ids, mask = padded([sequences[row].ids for row in rows], self._reader.pad)
        given = []
        with torch.inference_mode():
            inputs = torch.from_numpy(ids).to(self.device)
            real = torch.from_numpy(mask).to(self.device).long()
            logits = self._network(input_ids=inputs, attention_mask=real, use_cache=False).logits
            for row, length in enumerate(mask.sum(axis=1).tolist()):
                scores = logits[row, : max(0, length - 1)].float()
                true = inputs[row, 1 : max(1, length)]
                chosen = scores.gather(1, true[:, None])
                nll = torch.logsumexp(scores, 1) - chosen[:, 0]
                rank = (scores > chosen).sum(1) + 1
                given.append((nll.double().cpu().numpy(), rank.double().cpu().numpy()))
        return given


def _why(whole: Reading) -> str:
    return "fewer than two tokens" if len(whole.ids) < 2 else "log-likelihoods not finite"


def _values(whole: Reading, alone: Reading, losses: tuple[Doubles, Doubles], loss_alone: Doubles) -> list[float]:
    """The `COLUMNS` of a row; the loss at place i is that of token i + 1."""
    nll, rank = losses
    nothing = float("nan")
    if not len(nll) or not np.isfinite(nll).all():
        return [nothing] * len(COLUMNS)
    known = {"nll_sum": nll.sum(), "n_tok": len(nll), "nll_mean": nll.mean(), "mean_rank": rank.mean()}
    known |= {name: np.quantile(nll, q) for name, q in QUANTILES.items()}
    if whole.answer is not None:
        start, stop = (max(0, place - 1) for place in whole.answer)
        known |= {"nll_prompt_sum": nll[:start].sum(), "n_prompt": start}
        known |= _of_answer("answer", nll[start:stop])
        if alone.answer is not None:
            start, stop = (max(0, place - 1) for place in alone.answer)
            known |= _of_answer("alone", loss_alone[start:stop])
    return [float(known.get(name, nothing)) for name in COLUMNS]


def _of_answer(name: str, nll: Doubles) -> dict[str, float]:
    if not len(nll) or not np.isfinite(nll).all():
        return {}
    return {f"nll_{name}_sum": float(nll.sum()), f"n_{name}": float(len(nll)), f"nll_{name}": float(nll.mean())}


def load_token_scorer(spec: ModelSpec, device: str | None = None) -> TokenScorer:
    """Load a spec's model.

    Args:
        device: as for `load_encoder`.

    Raises:
        InvalidOption: the model does not exist, cannot be loaded, or is not a causal language model.
    """
    import torch

    folder = spec.folder()
    hub = {} if folder else {"revision": spec._as_encoder().commit()}  # noqa: SLF001
    device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    dtype = spec.dtype if spec.dtype == "auto" else getattr(torch, spec.dtype)
    tokenizer, network = load_causal_model(str(folder or spec.model), dtype, hub, called=spec.model)
    network.to(device)
    return TokenScorer(spec, tokenizer, network, str(device))


def load_causal_model(name: str, dtype: Any, hub: Mapping[str, str], *, called: str) -> tuple[Any, Any]:
    """The tokenizer and the network of a causal language model, on the CPU, for reading.

    Args:
        name: a folder or a hub name.
        hub: `revision` of a hub model.
        called: the model's name in messages.

    Raises:
        InvalidOption: the model cannot be loaded or is not a causal language model.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet() as missing:
            tokenizer = AutoTokenizer.from_pretrained(name, **hub)
            network = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **hub)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise invalid_encoder(f"model {called!r} cannot be loaded as a causal language model: {error}") from error
    if missing:
        raise invalid_encoder(
            f"the files of model {called!r} miss {len(missing)} weights (first: {missing[0]}), so it is no causal "
            "language model; they would be drawn at random"
        )
    tokenizer.truncation_side = "right"
    return tokenizer, network.eval()
