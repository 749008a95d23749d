"""Encoders: from text to unit vectors and token counts.

`representation` says what the kinds of `encoders:` have in common, `spec` what vectors of hidden states depend on
(model, pooling, template ...), `format` turns a conversation into text, `encoder` runs the model, `pooling` reduces its
hidden states to one unit vector, `token_scores` asks a causal model how likely the tokens are, `tokenizer` counts them.
`gradients` gives a row's gradient as its vector, with `answers` (which tokens are the answer), `moments` (of Adam) and
`projection` (to a short vector); `ngrams` counts words, without a model; `remote_encoder` asks a server. Modules here
import `errors`, `types`, the checks of `step` and the n-grams of `kernels` of `selection`; torch, transformers and
sentence-transformers only inside functions. To add a pooling, see CONTRIBUTING.md.

>>> from selection.encoders import EncoderSpec
>>> EncoderSpec(model="sentence-transformers/all-MiniLM-L6-v2", pooling="mean").template
'tulu'
"""

from __future__ import annotations

from selection.encoders.answers import ROW_CAUSES
from selection.encoders.encoder import Encoder, load_encoder
from selection.encoders.gradients import Checkpoint, GradientSpec
from selection.encoders.kinds import DEFAULT_KIND, KINDS, load_vectorizer
from selection.encoders.ngrams import NgramSpec
from selection.encoders.remote_spec import RemoteSpec
from selection.encoders.representation import Encoded, Probed, Representation, Vectorizer, record_of
from selection.encoders.spec import EncoderSpec
from selection.encoders.token_scores import ModelSpec, TokenScorer, load_token_scorer
from selection.encoders.tokenizer import TokenCounter, load_token_counter, tokenizer_fingerprint

__all__ = [
    "DEFAULT_KIND",
    "KINDS",
    "ROW_CAUSES",
    "Checkpoint",
    "Encoded",
    "Encoder",
    "EncoderSpec",
    "GradientSpec",
    "ModelSpec",
    "NgramSpec",
    "Probed",
    "RemoteSpec",
    "Representation",
    "TokenCounter",
    "TokenScorer",
    "Vectorizer",
    "load_encoder",
    "load_token_counter",
    "load_token_scorer",
    "load_vectorizer",
    "record_of",
    "tokenizer_fingerprint",
]
