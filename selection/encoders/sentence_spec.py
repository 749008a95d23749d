"""What the vectors of a model saved by sentence-transformers depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from selection.encoders.format import Part
from selection.encoders.postprocess import checked
from selection.encoders.representation import record_of
from selection.encoders.spec import DTYPES, MODEL_FILES, files_digest, hub_commit, invalid_encoder, local_folder
from selection.step import check_choice

MODULES = "modules.json"
# Part of the fingerprint. Increase it whenever the same spec would give other vectors.
VECTORS_VERSION = 1
# Files that are no part of what the modules compute, wherever they lie.
_FORMATS = frozenset({"onnx", "openvino", "__pycache__"})


@dataclass(frozen=True, kw_only=True)
class SentenceSpec:
    """A model as its author saved it with sentence-transformers: its transformer or static embeddings, pooling, dense
    layers and normalisation, as its modules.json lists them. JSON-plain: `asdict` is the record and rebuilds it.

    Attributes:
        model: a hub name ("org/model"), a local folder, or "package:<name>".
        revision: branch, tag or commit of a hub model. Without it, the commit in the local hub cache, else the newest.
        pooling: "model": all that the folder says. It stands for this kind.
        template: how turns become text: "plain", their contents one below the other, or "tulu".
        turns: which of them: "all"; "prompt", "response" or "first_two" of the first exchange.
        max_tokens: texts are cut on the right at this length; the model's own limit if left out. Static embeddings read
            all of a text.
        dtype: the type of the model's weights and hidden states; "auto" is that of its files.
        prompt: a prefix of each text, or `prompt_name` the name of one of the model's own ("document"); without either,
            the model's default prompt.
        prompt_name: see `prompt`.
        target_prompt: that of the targets, or `target_prompt_name` its name ("query"); as the candidates' if left out.
        target_prompt_name: see `target_prompt`.
        task: of a model with a Router: "document" or "query".
        target_task: that of the targets.
        truncate_dim: keep so many first dimensions (Matryoshka models).
        trust_remote_code: run Python code that comes with the model.
        store: how vectors are stored: "float16", or "float32" in twice the space.
        kind: "sentence_transformers".
        postprocess: "center" or "whiten" the vectors by a sample of the pool, or `{method: whiten, sample: 16384,
            eps: 1e-6, fit: 1}`. A pool that grows keeps its fit; another number in `fit` is fitted anew.
    """

    added_keys: ClassVar[tuple[str, ...]] = ("postprocess",)
    model: str
    revision: str | None = None
    pooling: Literal["model"] = "model"
    template: Literal["plain", "tulu"] = "plain"
    turns: Part = "all"
    max_tokens: int | None = None
    dtype: str = "float32"
    prompt: str | None = None
    prompt_name: str | None = None
    target_prompt: str | None = None
    target_prompt_name: str | None = None
    task: str | None = None
    target_task: str | None = None
    truncate_dim: int | None = None
    trust_remote_code: bool = False
    store: Literal["float16", "float32"] = "float16"
    kind: Literal["sentence_transformers"] = "sentence_transformers"
    postprocess: str | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        choices = {
            "pooling": ("model",),
            "template": ("plain", "tulu"),
            "turns": get_args(Part),
            "dtype": DTYPES,
            "store": ("float16", "float32"),
            "kind": ("sentence_transformers",),
        }
        for name, allowed in choices.items():
            check_choice("encoder", name, getattr(self, name), allowed)
        if not isinstance(self.model, str) or not self.model.strip():
            raise invalid_encoder(f"model must be a hub name, a folder or package:<name>, got {self.model!r}")
        for name in ("max_tokens", "truncate_dim"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise invalid_encoder(f"{name} must be a whole number >= 1, got {value!r}", name)
        for whose in ("", "target_"):
            if getattr(self, f"{whose}prompt") is not None and getattr(self, f"{whose}prompt_name") is not None:
                raise invalid_encoder(f"{whose}prompt and {whose}prompt_name: give one of them", f"{whose}prompt_name")
        object.__setattr__(self, "postprocess", checked(self.postprocess))

    def folder(self) -> Path | None:
        """The folder that sentence-transformers saved; None for a model of the hub.

        Raises:
            InvalidOption: there is no such folder or package, or it has no modules.json.
        """
        folder = local_folder(self.model, self.revision)
        if folder is not None and not (folder / MODULES).is_file():
            raise invalid_encoder(
                f"model {self.model!r}: {folder} holds no {MODULES}, so sentence-transformers did not save it; "
                "choose another `pooling` to pool its hidden states",
            )
        return folder

    def check(self) -> None:
        """See `Representation.check`."""
        self.folder()

    def commit(self) -> str:
        """The commit of a hub model; see `hub_commit`."""
        return hub_commit(self.model, self.revision, MODULES)

    def for_targets(self) -> SentenceSpec:
        """The spec of the targets' vectors: with their own prompt and task, where they have one."""
        changes: dict[str, str | None] = dict.fromkeys(("target_prompt", "target_prompt_name", "target_task"))
        if self.target_prompt is not None or self.target_prompt_name is not None:
            changes |= {"prompt": self.target_prompt, "prompt_name": self.target_prompt_name}
        if self.target_task is not None:
            changes["task"] = self.target_task
        return replace(self, **changes)  # type: ignore[arg-type]

    def fingerprint(self) -> str:
        """32 hex digits of everything that a candidate's vector depends on: options and the model's files (or hub commit).

        Every file of the folder that a module may read counts; that of a hub model, its commit. Library versions do not
        count.
        """
        folder = self.folder()
        inputs = record_of(replace(self, postprocess=None)) | {
            "model": files_digest(_files_of(folder, code=self.trust_remote_code))
            if folder
            else f"{self.model}@{self.commit()}",
            "revision": None,
            "version": VECTORS_VERSION,
        }
        for name in ("target_prompt", "target_prompt_name", "target_task"):
            del inputs[name]
        return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()


def _files_of(folder: Path, *, code: bool) -> Mapping[str, Path]:
    """Every file below a folder that its modules may read, by its path; with `code` Python files as well.

    Weights in `.bin` count only where their folder has none in `.safetensors`, as for the loader.
    """
    suffixes = MODEL_FILES | ({".py"} if code else frozenset())
    files = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.suffix not in suffixes or not path.is_file() or _FORMATS.intersection(below.parts):
            continue
        if path.suffix != ".bin" or not any(path.parent.glob("*.safetensors")):
            files[below.as_posix()] = path
    return files
