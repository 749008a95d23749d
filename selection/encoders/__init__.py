"""Text to vectors: what an encoder is, how turns become text, how hidden states become one unit vector.

>>> from selection.encoders import EncoderSpec
>>> EncoderSpec(model="sentence-transformers/all-MiniLM-L6-v2", pooling="mean").template
'tulu'
"""

from __future__ import annotations

from selection.encoders.encoder import Encoder, load_encoder
from selection.encoders.spec import EncoderSpec
from selection.encoders.tokenizer import TokenCounter, load_token_counter, tokenizer_fingerprint

__all__ = ["Encoder", "EncoderSpec", "TokenCounter", "load_encoder", "load_token_counter", "tokenizer_fingerprint"]
