"""Token counts of rows by a trainer's tokenizer; the store keeps them, so each row is counted once."""

from __future__ import annotations

from collections import Counter

from pipelines.context import Context
from selection import TokenBudget
from selection.encoders import load_token_counter, tokenizer_fingerprint
from storage.pool.snapshot import Snapshot
from storage.pool.token_counts import MISSING, commit_counts, read_counts


def count_for_budget(context: Context, budget: int | TokenBudget, snapshot: Snapshot) -> None:
    """Count the tokens that a budget counts, where a tokenizer does and no column has them."""
    if isinstance(budget, TokenBudget) and budget.tokenizer:
        count_tokens(context, budget.tokenizer, snapshot)


def count_tokens(context: Context, tokenizer: str, snapshot: Snapshot) -> None:
    """Count the tokens of the rows of which the store does not know them yet."""
    fingerprint = tokenizer_fingerprint(tokenizer)
    uncounted = snapshot.ids[read_counts(context.store, fingerprint, snapshot.ids) == MISSING]
    if not len(uncounted):
        return
    counter = load_token_counter(tokenizer)
    done = 0
    refusals = Counter[str]()
    for ids, turns in snapshot.turns(uncounted):
        counts, refused = counter.counts(turns)
        refusals.update(refused)
        commit_counts(context.store, fingerprint, ids, counts)
        done += len(ids)
        context.report.progress(f"count tokens with {tokenizer}", done, len(uncounted))
    for refusal, rows in refusals.items():
        context.report.say(f"note: {tokenizer}: {rows:,} rows are counted without the chat template: {refusal}")
