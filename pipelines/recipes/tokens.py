"""Token counts of rows by a trainer's tokenizer; the store keeps them, so each row is counted once."""

from __future__ import annotations

from pipelines.context import Context
from selection.encoders import load_token_counter, tokenizer_fingerprint
from storage.pool.snapshot import Snapshot
from storage.pool.token_counts import MISSING, commit_counts, read_counts


def count_tokens(context: Context, tokenizer: str, snapshot: Snapshot) -> None:
    """Count the tokens of the rows of which the store does not know them yet."""
    fingerprint = tokenizer_fingerprint(tokenizer)
    uncounted = snapshot.ids[read_counts(context.store, fingerprint, snapshot.ids) == MISSING]
    if not len(uncounted):
        return
    counter = load_token_counter(tokenizer)
    done = 0
    for ids, turns in snapshot.turns(uncounted):
        commit_counts(context.store, fingerprint, ids, counter.counts(turns))
        done += len(ids)
        context.report.progress(f"count tokens with {tokenizer}", done, len(uncounted))
