from __future__ import annotations

import pytest

from tests.tiny_models import tiny_bert, tiny_llama


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert") / "model")
