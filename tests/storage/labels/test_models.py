from __future__ import annotations

import pyarrow as pa
import pytest

from storage.errors import NotInStore
from storage.ids import from_bytes, to_arrow
from storage.labels.models import CONSENSUS_SCHEMA, PREDICTION_SCHEMA, commit_model, read_model
from storage.store import Store
from tests.storage.conftest import id_of


def test_model__is_read_back_as_it_was_committed(store: Store) -> None:
    ids = to_arrow(from_bytes([id_of("p1"), id_of("p2")]))
    consensus = pa.table(
        {"id": ids, "label": ["a", "b"], "confidence": [1.0, 0.5], "n_labels": [1, 2], "relabel_score": [None, 0.25]}
    )
    predictions = pa.table({"id": ids, "label": ["b", "b"], "probability": [0.75, 0.5]})
    header = {"model_id": "M", "project": "topics", "classifier": {"logistic_regression": {"C": 1}}, "metrics": {}}
    assert commit_model(store, header, consensus, predictions) == commit_model(store, header, consensus, predictions)
    header_read, labels, predicted = read_model(store, "M")
    assert header_read == header | {"n_labelled": 2, "created_at": header_read["created_at"], "number": 1}
    assert (labels.schema, predicted.schema) == (CONSENSUS_SCHEMA, PREDICTION_SCHEMA)
    assert labels.cast(consensus.schema).equals(consensus)
    assert predicted["probability"].to_pylist() == [0.75, 0.5]
    with pytest.raises(ValueError, match=r"model N: the table misses the columns \['relabel_score'\]"):
        commit_model(store, header | {"model_id": "N"}, consensus.drop_columns(["relabel_score"]), predictions)
    with pytest.raises(NotInStore, match="no model 'N'"):
        read_model(store, "N")
