"""The plan of `winnow run`: the work that it would do."""

from __future__ import annotations

from pipelines.config.schema import OWN_VECTORS
from pipelines.context import Context
from pipelines.recipes.spec import encoders_of, resolve_spec
from pipelines.runs import last_run
from storage.pool.columns import columns_id
from storage.pool.ingest import ingest_id
from storage.vectors.segments import missing_ids


def plan_lines(context: Context) -> list[str]:
    """Describe what `run_all` would do, a line for each stage."""
    config, store = context.config, context.store
    specs = config.pool.specs(config.root)
    ingests = {ingest_id(store, spec) for spec in specs}
    new = sum(not store.has("pool", ingest) for ingest in ingests)
    lines = [f"pool: {len(specs)} files, {new} of them new or changed"]
    last = last_run(store, "ingest")
    if last is None:
        return [*lines, "the rest is known once the pool has been read"]
    snapshot = context.pool.snapshot
    columns = {columns_id(store, file.url, file.id) for file in config.pool.columns}
    if ingests != set(snapshot.ingests) or columns != set(snapshot.columns):
        lines.append(f"snapshot: {len(snapshot):,} rows; its files have changed, a new one will be taken")
        return [*lines, "the rest is known once the pool has been read"]
    lines.append(f"snapshot: {len(snapshot):,} rows")
    for name in encoders_of(config, config.recipes):
        lacking = len(missing_ids(store, context.pool.fingerprint(name), snapshot.ids))
        what = "take in" if name == OWN_VECTORS else "encode"
        lines.append(f"{name}/embeddings: {lacking:,} rows to {what}, {len(snapshot) - lacking:,} in the store")
    for name in config.recipes:
        drawn = store.has("records", "selections", resolve_spec(context, name).selection_id)
        lines.append(f"selection/{name}: " + ("drawn already, nothing to do" if drawn else "to be drawn"))
    return lines
