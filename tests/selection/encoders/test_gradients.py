from __future__ import annotations

import json
from fnmatch import fnmatchcase
from importlib.util import find_spec

import numpy as np
import pytest

from selection import Pool, Targets
from selection.encoders import gradients
from selection.encoders.answers import ALONE, CUT, EMPTY_ANSWER, NO_ANSWER
from selection.encoders.gradients import Checkpoint, GradientSpec, load_gradient_encoder
from selection.encoders.projection import Projector
from selection.errors import InvalidOption
from selection.scorers.rds import RdsMax
from tests.tiny_models import tiny_llama
from tests.training_checkpoints import BETAS, EPS, checkpoints_of_a_training, single_thread

LAST = "model.layers.1.*"
ROWS = [
    [("user", "add two numbers"), ("assistant", "def add(a, b): return a + b")],
    [("system", "be brief"), ("user", "the lazy dog?"), ("assistant", "the quick brown fox")],
    [("user", "hi"), ("assistant", "yes"), ("user", "again"), ("assistant", "no")],
    [("user", "text " * 30), ("assistant", "answer " * 12)],
]


@pytest.fixture(autouse=True, scope="module")
def _single_thread():
    with single_thread():
        yield


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return checkpoints_of_a_training(tmp_path_factory.mktemp("training"))


def literal(folder, turns, pattern, *, adam=False):
    """The gradient of a row by torch.autograd in float64, padded on the right to see that padding does not count."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    before = "".join(
        f"<|{role}|>\n{text.strip()}{'</s>' if role == 'assistant' else ''}\n" for role, text in turns[:-1]
    )
    prompt, answer = f"{before}<|assistant|>\n", turns[-1][1].strip() + "</s>"
    read = tokenizer(prompt + answer, return_offsets_mapping=True)
    ids, offsets = read["input_ids"], read["offset_mapping"]
    padded = torch.tensor([ids + [5] * 7])
    logits = network(input_ids=padded).logits[0]
    losses = [
        -torch.log_softmax(logits[place - 1], 0)[ids[place]]
        for place in range(len(ids))
        if offsets[place][1] > len(prompt)
    ]
    torch.stack(losses).mean().backward()
    names = [name for name, _ in network.named_parameters() if fnmatchcase(name, pattern)]
    gradient = {name: network.get_parameter(name).grad.numpy() for name in names}
    if adam:
        moments = by_name(folder, network)
        for name, g in gradient.items():
            m = BETAS[0] * moments[name]["exp_avg"].numpy() + (1 - BETAS[0]) * g
            v = BETAS[1] * moments[name]["exp_avg_sq"].numpy() + (1 - BETAS[1]) * g**2
            gradient[name] = m / np.sqrt(v + EPS)
    return np.concatenate([gradient[name].ravel() for name in names])


def by_name(folder, network):
    """The moments in optimizer.pt, which come as the fixture grouped them: what is a norm last."""
    import torch

    state = torch.load(folder / "optimizer.pt", weights_only=True)["state"]
    order = sorted((name for name, _ in network.named_parameters()), key=lambda name: "norm" in name)
    return {name: state[number] for number, name in enumerate(order)}


def encoder(**options):
    return load_gradient_encoder(GradientSpec(**options), device="cpu")


@pytest.mark.parametrize("projection", ["count_sketch", "rademacher"])
def test_encode__equals_literal_autograd_and_the_whole_matrix(checkpoints, projection):
    import torch

    few = "model.layers.1.self_attn.k_proj.*"
    loaded = encoder(model=str(checkpoints[0]), parameters=(few,), dims=96, seed=5, projection=projection)
    given = loaded.vectors_of(ROWS)
    raw = np.array([literal(checkpoints[0], turns, few) for turns in ROWS])
    identity = torch.eye(loaded.size)
    matrix = Projector(kind=projection, size=loaded.size, dims=96, seed=5).project(identity).double().numpy()
    expected = raw @ matrix
    np.testing.assert_allclose(given.vectors, expected / np.linalg.norm(expected, axis=1)[:, None], atol=2e-6)
    np.testing.assert_allclose(given.norms, np.linalg.norm(raw, axis=1)[:, None], rtol=1e-5)
    assert given.failed == {}
    assert given.tokens == sum(len(loaded.reader.read(turns).ids) for turns in ROWS)


def test_encode__of_several_checkpoints_is_less_and_rds_max_selects_by_it(checkpoints):
    """LESS: the sum over checkpoints of the share of the learning rate times the cosine, the mean of a subtask, the best."""
    rates, options = (3e-4, 1e-4), {"parameters": (LAST,), "dims": 4096, "seed": 2}
    both = tuple(Checkpoint(model=str(c), learning_rate=r) for c, r in zip(checkpoints, rates, strict=True))
    spec = GradientSpec(checkpoints=both, direction="adam", **options)
    candidates, targets = ROWS[:3], [ROWS[3], *ROWS[1:3]]
    subtasks = np.array([0, 0, 1])
    encoded = load_gradient_encoder(spec, device="cpu").vectors_of(candidates)
    x = encoded.vectors
    q = load_gradient_encoder(spec.for_targets(), device="cpu").vectors_of(targets).vectors
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-6)
    influence = np.zeros((3, 3))
    for number, (folder, rate) in enumerate(zip(checkpoints, rates, strict=True)):
        before_adam = [np.linalg.norm(literal(folder, turns, LAST)) for turns in candidates]
        np.testing.assert_allclose(encoded.norms[:, number], before_adam, rtol=1e-5)
        size = len(literal(folder, candidates[0], LAST))
        project = Projector(kind="count_sketch", size=size, dims=4096, seed=2).project
        train = unit(project, [literal(folder, turns, LAST, adam=True) for turns in candidates])
        validation = unit(project, [literal(folder, turns, LAST) for turns in targets])
        influence += rate / sum(rates) * train @ validation.T
    np.testing.assert_allclose(x @ q.T, influence, atol=5e-6)
    pool = Pool(vectors=x, targets=Targets(q, subtasks, ("first", "second")))
    scores = RdsMax(per="subtask").score(pool, rng=np.random.default_rng(0))
    literal_less = np.maximum(influence[:, :2].mean(axis=1), influence[:, 2])
    np.testing.assert_allclose(scores, literal_less, atol=5e-6)


def unit(project, raw):
    import torch

    short = project(torch.from_numpy(np.array(raw, np.float32))).double().numpy()
    return short / np.linalg.norm(short, axis=1)[:, None]


def test_encode__other_rows_and_threads_do_not_move_a_vector(checkpoints, monkeypatch):
    loaded = encoder(model=str(checkpoints[0]), dims=64)
    together = loaded.vectors_of(ROWS).vectors
    monkeypatch.setattr(gradients, "GRADIENT_BYTES", {"cpu": 1})
    alone = encoder(model=str(checkpoints[0]), dims=64)
    assert loaded.rows_at_once > alone.rows_at_once == 1
    np.testing.assert_allclose(alone.vectors_of(ROWS[::-1]).vectors[::-1], together, atol=1e-6)


def test_encode__rows_without_a_whole_answer_say_why(checkpoints):
    counted = []
    rows = [
        [("user", "hi")],
        [("user", "hi"), ("assistant", "  ")],
        [("text", "a page")],
        [("user", "hi"), ("assistant", "fox " * 40)],
        ROWS[0],
    ]
    given = encoder(model=str(checkpoints[0]), parameters=(LAST,), dims=16, max_tokens=72).vectors_of(
        rows, on_batch=counted.append
    )
    assert given.failed == {0: NO_ANSWER, 1: EMPTY_ANSWER, 2: NO_ANSWER, 3: CUT}
    assert not given.vectors[:4].any()
    assert given.truncated == 1
    assert sum(counted) == len(rows)
    assert np.linalg.norm(given.vectors[4]) == pytest.approx(1, abs=1e-6)


def test_encode__an_answer_without_a_token_in_front(tmp_path):
    folder = tiny_llama(tmp_path / "chat", chat_template=True)
    loaded = encoder(model=str(folder), template="plain", dims=16, parameters=(LAST,))
    loaded.reader._special = False  # as a tokenizer that begins with no special token
    assert loaded.vectors_of([[("assistant", "a")]]).failed == {0: ALONE}


def test_encode__of_no_rows(checkpoints):
    assert encoder(model=str(checkpoints[0]), dims=16).vectors_of([]).vectors.shape == (0, 16)


def test_fingerprint__depends_on_all_that_the_numbers_depend_on(checkpoints, tmp_path):
    spec = {"model": str(checkpoints[0]), "direction": "adam", "parameters": (LAST, "*norm*")}
    other_file = tmp_path / "optimizer.pt"
    other_file.write_bytes((checkpoints[1] / "optimizer.pt").read_bytes())
    prints = [
        GradientSpec(**spec | change).fingerprint()
        for change in (
            {},
            {"model": str(checkpoints[1])},
            {"optimizer": str(other_file)},
            {"direction": "plain"},
            {"dims": 8},
            {"seed": 1},
            {"projection": "rademacher"},
            {"parameters": (LAST,)},
            {"template": "plain"},
            {"max_tokens": 9},
            {"store": "float32"},
        )
    ]
    assert len(set(prints)) == len(prints)
    assert GradientSpec(**spec | {"parameters": ("*norm*", LAST, LAST)}).fingerprint() == prints[0]
    (tmp_path / "moved").symlink_to(checkpoints[0])
    assert GradientSpec(**spec | {"model": str(tmp_path / "moved")}).fingerprint() == prints[0]
    assert GradientSpec(**spec).for_targets().fingerprint() == prints[3]

    def of(*rates):
        each = (Checkpoint(model=str(c), learning_rate=r) for c, r in zip(checkpoints, rates, strict=True))
        return GradientSpec(checkpoints=tuple(each)).fingerprint()

    assert of(1, 3) == of(2.0, 6.0) != of(3, 1)


def test_spec__is_rebuilt_from_its_record():
    from dataclasses import asdict

    spec = GradientSpec(checkpoints=(Checkpoint(model="a/b", learning_rate=2), Checkpoint(model="c/d")), dims=7)
    assert GradientSpec(**json.loads(json.dumps(asdict(spec)))) == spec
    assert spec.dimension == 14
    assert spec.weights == (2 / 3, 1 / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either a model or checkpoints, got model None and 0 checkpoints"),
        ({"model": "m", "checkpoints": ({"model": "n"},)}, "either a model or checkpoints"),
        ({"model": "m", "dims": 0}, "dims must be a whole number >= 1, got 0"),
        ({"model": "m", "direction": "sgd"}, "direction must be one of plain, adam, got 'sgd'"),
        ({"model": "m", "projection": "fft"}, "projection must be one of count_sketch, rademacher"),
        ({"checkpoints": ({"model": "n", "learning_rate": 0},)}, "learning_rate must be a number above 0, got 0"),
        ({"checkpoints": ({"model": "n"},), "optimizer": "o.pt"}, "optimizer stands beside each of the checkpoints"),
    ],
)
def test_spec__bad_options(options, message):
    with pytest.raises(InvalidOption, match=message):
        GradientSpec(**options)


def test_load__what_does_not_fit_says_so(checkpoints, llama, tmp_path):
    with pytest.raises(
        InvalidOption, match=r"no parameter of .* has a name like 'layers.9.\*'; its 21 names begin with"
    ):
        encoder(model=str(llama), parameters=("layers.9.*",))
    with pytest.raises(InvalidOption, match=r"holds neither optimizer.pt nor optimizer.safetensors"):
        encoder(model=str(llama), direction="adam")
    with pytest.raises(InvalidOption, match="there is no such file; direction: adam needs"):
        encoder(model=str(llama), direction="adam", optimizer=str(tmp_path / "none.pt"))
    (tmp_path / gradients.ADAPTER).write_text('{"base_model_name_or_path": "a/b"}')
    if find_spec("peft") is None:
        with pytest.raises(InvalidOption, match=r"LoRA adapters .* need the package peft, and it is not installed"):
            encoder(model=str(tmp_path))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, to peft
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_load__adapters_of_a_folder_give_their_own_gradients_and_moments(llama, tmp_path):
    import torch

    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(llama)
    options = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", lora_dropout=0.1)
    network = peft.get_peft_model(base, options)
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(named.values(), lr=1e-2)
    ids = torch.arange(20)[None]
    for _ in range(2):
        network(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    network.save_pretrained(tmp_path)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    loaded = encoder(model=str(tmp_path), dims=4096, direction="adam")
    assert list(loaded.parts[0].chosen) == list(named)
    reading = loaded.reader.read(ROWS[0])
    ids = torch.from_numpy(reading.ids.astype(np.int64))
    labels = torch.full_like(ids, -100)
    labels[slice(*reading.answer)] = ids[slice(*reading.answer)]
    network.eval()(input_ids=ids[None], labels=labels[None]).loss.backward()
    steps = []
    for p in named.values():
        m = 0.9 * optimizer.state[p]["exp_avg"] + 0.1 * p.grad
        steps.append((m / (0.999 * optimizer.state[p]["exp_avg_sq"] + 0.001 * p.grad**2 + 1e-8).sqrt()).flatten())
    projected = Projector(kind="count_sketch", size=loaded.size, dims=4096, seed=0).project(torch.cat(steps)[None])
    expected = torch.nn.functional.normalize(projected).numpy()
    np.testing.assert_allclose(loaded.vectors_of(ROWS[:1]).vectors, expected, atol=1e-5)
