from __future__ import annotations

import json
import re

import numpy as np
import pytest

from selection.encoders.moments import BETAS, EPS, Moments, load_moments
from selection.errors import InvalidOption

NAMES = {"a.weight": (2, 3), "a.bias": (2,), "norm.weight": (4,), "b.weight": (1, 2)}


@pytest.fixture
def trained():
    import torch

    return {name: torch.zeros(shape) for name, shape in NAMES.items()}


@pytest.fixture
def kept():
    """Name -> its moments; other numbers everywhere."""
    import torch

    rng = np.random.default_rng(0)
    return {
        name: {kind: torch.from_numpy(rng.random(shape)).float() for kind in ("exp_avg", "exp_avg_sq")}
        for name, shape in NAMES.items()
    }


def state(kept, groups, **options):
    """An optimizer's state_dict of some groups of names."""
    numbers = {name: i for i, name in enumerate(name for group in groups for name in group)}
    return {
        "state": {numbers[name]: kept[name] | {"step": 3} for name in numbers},
        "param_groups": [{"params": [numbers[name] for name in group]} | options for group in groups],
    }


DECAYED, OTHERS = ["a.weight", "b.weight"], ["a.bias", "norm.weight"]


@pytest.mark.parametrize("groups", [[DECAYED, OTHERS], [list(NAMES)]])
def test_load_moments__an_optimizer_of_the_trainer(tmp_path, trained, kept, groups):
    import torch

    torch.save(state(kept, groups, betas=(0.5, 0.75), eps=1e-3, lr=1e-4), tmp_path / "optimizer.pt")
    check(load_moments(tmp_path / "optimizer.pt", trained, some(trained)), kept, (0.5, 0.75), 1e-3)


def test_load_moments__of_a_newer_torch_by_the_names_in_it(tmp_path, trained, kept):
    import torch

    document = state(kept, [OTHERS, DECAYED[::-1]])
    for group, names in zip(document["param_groups"], (OTHERS, DECAYED[::-1]), strict=True):
        group["param_names"] = names
    torch.save(document, tmp_path / "optimizer.pt")
    check(load_moments(tmp_path / "optimizer.pt", trained, some(trained)), kept, BETAS, EPS)


def test_load_moments__safetensors_by_name(tmp_path, trained, kept):
    from safetensors.torch import save_file

    tensors = {f"{name}.{kind}": moment for name, each in kept.items() for kind, moment in each.items()}
    save_file(tensors, tmp_path / "bare.safetensors")
    save_file(tensors, tmp_path / "said.safetensors", {"betas": json.dumps([0.5, 0.75]), "eps": "0.001"})
    check(load_moments(tmp_path / "bare.safetensors", trained, some(trained)), kept, BETAS, EPS)
    check(load_moments(tmp_path / "said.safetensors", trained, some(trained)), kept, (0.5, 0.75), 1e-3)


def some(trained):
    return {name: trained[name] for name in ("a.bias", "b.weight")}


def check(moments, kept, betas, eps):
    for given, kind in ((moments.mean, "exp_avg"), (moments.square, "exp_avg_sq")):
        expected = [*kept["a.bias"][kind].tolist(), *kept["b.weight"][kind].flatten().tolist()]
        assert given.tolist() == expected
    assert (moments.betas, moments.eps) == (betas, eps)


def test_direction__eps_stands_inside_the_root_and_nothing_corrects_the_bias():
    import torch

    moments = Moments(torch.tensor([0.2]), torch.tensor([0.04]), (0.9, 0.999), 1e-8)
    m, v = 0.9 * 0.2 + 0.1 * -0.5, 0.999 * 0.04 + 0.001 * 0.25
    assert moments.direction(torch.tensor([-0.5])).item() == pytest.approx(m / (v + 1e-8) ** 0.5, rel=1e-6)


def test_load_moments__what_does_not_fit_says_so(tmp_path, trained, kept):
    import torch
    from safetensors.torch import save_file

    def refused(path, message):
        with pytest.raises(InvalidOption, match=f"optimizer {re.escape(str(path))}: {message}"):
            load_moments(path, trained, some(trained))

    path = tmp_path / "optimizer.pt"
    refused(path, "there is no such file; direction: adam needs")
    path.write_bytes(b"no optimizer")
    refused(path, "it cannot be read as the state of an optimizer")
    torch.save({"model": 1}, path)
    refused(path, "it cannot be read as the state of an optimizer")
    torch.save(state(kept, [["a.weight"], ["a.bias"]]), path)
    refused(path, r"it has 1 \+ 1 parameters, the model 2 with weight decay and 2 without; save them by name")
    torch.save(state(kept, [DECAYED[::-1], OTHERS]), path)
    refused(path, r"the moment that should be that of a.weight has shape \(1, 2\); save them by name")
    torch.save(state(kept | {"a.bias": {}}, [DECAYED, OTHERS]), path)
    refused(path, "no exp_avg of a.bias")
    kept["a.bias"]["exp_avg_sq"][0] = -1
    torch.save(state(kept, [DECAYED, OTHERS]), path)
    refused(path, "a moment is not finite, or a second one is below 0")
    path = tmp_path / "moments.safetensors"
    path.write_bytes(b"no safetensors")
    refused(path, "it cannot be read as safetensors")
    save_file({"b.weight.exp_avg": torch.zeros(1)}, path)
    refused(path, "no exp_avg of a.bias")


@pytest.mark.slow
def test_load_moments__parameters_without_decay_are_those_of_the_trainer(llama):
    from transformers import AutoModelForCausalLM, Trainer

    from selection.encoders.moments import _NO_DECAY

    network = AutoModelForCausalLM.from_pretrained(llama)
    names = [name for name, _ in network.named_parameters()]
    decayed = set(Trainer.get_decay_parameter_names(None, network))
    assert [name for name in names if not _NO_DECAY.search(name)] == [name for name in names if name in decayed]
