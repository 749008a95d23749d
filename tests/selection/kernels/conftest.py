from __future__ import annotations

import pytest

from selection.checks import in_parts
from selection.vectors import TensorVectors


def on_device(device):
    return lambda vectors: TensorVectors(vectors, device)


@pytest.fixture(params=["compiled", "parts", "tensor", pytest.param("gpu", marks=pytest.mark.gpu)])
def implementation(request):
    """Puts vectors where another implementation of a kernel takes them: the compiled one, that on parts of the vectors,
    torch's on the host, torch's on a GPU.
    """
    if request.param == "compiled":
        return lambda vectors: vectors
    if request.param == "parts":
        return in_parts
    torch = pytest.importorskip("torch")
    if request.param == "gpu" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return on_device("cuda:0" if request.param == "gpu" else "cpu")
