"""The catalog's schema: native tables in numbered steps, views over Parquet, and a comment on everything.

Native tables hold small facts. `STEPS` is append-only: a published catalog says how many of them made it, and one made
by another number of steps is not carried over but rebuilt from the records, which are the truth. Views hold no data, so
they are made afresh with every catalog and need no steps. SQL is kept to what DuckDB 1.1 knows, so that older clients
can read it.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from storage import records
from storage.labels import log, rounds
from storage.labels.classifiers import EXAMPLE_SCHEMA
from storage.labels.models import CONSENSUS_SCHEMA
from storage.pool import contamination, ingest
from storage.pool.ingest import POOL_SCHEMA
from storage.pool.snapshot import DUPLICATES_SCHEMA, TOMBSTONES_SCHEMA
from storage.pool.targets import ITEMS_SCHEMA, MEASURES
from storage.reports import CHANGES_SCHEMA
from storage.vectors import health, model_scores, segments

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE schema_version (version INTEGER PRIMARY KEY);
    CREATE TABLE ingests (
        ingest VARCHAR PRIMARY KEY, url VARCHAR, digest VARCHAR, size_bytes BIGINT, fields JSON, source VARCHAR,
        encoding VARCHAR, "read" BIGINT, readable BIGINT, quarantined BIGINT, empty_responses BIGINT, shapes JSON,
        extra_columns JSON, damage VARCHAR, seconds DOUBLE, created_at TIMESTAMP);
    CREATE TABLE snapshots (
        snapshot VARCHAR PRIMARY KEY, parent VARCHAR, ingests BIGINT, examples BIGINT, duplicates BIGINT, tombstones BIGINT,
        columns JSON, created_at TIMESTAMP);
    CREATE TABLE snapshot_files (
        snapshot VARCHAR, ingest VARCHAR, file VARCHAR, "read" BIGINT, kept BIGINT, duplicate BIGINT, quarantined BIGINT,
        PRIMARY KEY (snapshot, ingest));
    CREATE TABLE encoders (
        encoder VARCHAR PRIMARY KEY, model VARCHAR, revision VARCHAR, pooling VARCHAR, template VARCHAR, prompt VARCHAR,
        max_tokens BIGINT, dtype VARCHAR, dimension BIGINT, created_at TIMESTAMP, record JSON);
    CREATE TABLE embeddings (
        encoder VARCHAR, segment VARCHAR, n_rows BIGINT, n_failed BIGINT, tokens BIGINT, truncated BIGINT, device VARCHAR,
        seconds DOUBLE, created_at TIMESTAMP, PRIMARY KEY (encoder, segment));
    CREATE TABLE indexes (
        "index" VARCHAR PRIMARY KEY, encoder VARCHAR, snapshot VARCHAR, kind VARCHAR, cells BIGINT, nprobe BIGINT, n_rows BIGINT,
        n_dead BIGINT, recall_at_10 DOUBLE, created_at TIMESTAMP, record JSON);
    CREATE TABLE selections (
        selection_id VARCHAR PRIMARY KEY, recipe VARCHAR, steps JSON, budget BIGINT, n_items BIGINT, exhausted BOOLEAN,
        seed BIGINT, round BIGINT, snapshot VARCHAR, encoder VARCHAR, "index" VARCHAR, targets JSON, facts JSON,
        created_at TIMESTAMP, seconds DOUBLE, code_version VARCHAR, record JSON);
    CREATE TABLE metrics (
        metrics_id VARCHAR, selection_id VARCHAR, name VARCHAR, value DOUBLE, created_at TIMESTAMP,
        PRIMARY KEY (metrics_id, name));
    CREATE TABLE runs (
        run_id VARCHAR PRIMARY KEY, invocation VARCHAR, stage VARCHAR, target VARCHAR, status VARCHAR, subject VARCHAR,
        summary VARCHAR, started_at TIMESTAMP, finished_at TIMESTAMP, seconds DOUBLE, config_digest VARCHAR,
        code_version VARCHAR, facts JSON, checks JSON, error VARCHAR);
    """,
    """
    CREATE TABLE label_imports (
        "import" VARCHAR PRIMARY KEY, number BIGINT, project VARCHAR, url VARCHAR, digest VARCHAR, fields JSON, classes JSON,
        gold BOOLEAN, snapshot VARCHAR, "read" BIGINT, new BIGINT, known BIGINT, quarantined BIGINT, unlabelled BIGINT,
        damage VARCHAR, created_at TIMESTAMP);
    CREATE TABLE round_records (
        round_id VARCHAR PRIMARY KEY, project VARCHAR, round BIGINT, phase VARCHAR, steps JSON, snapshot VARCHAR,
        encoder VARCHAR, model_id VARCHAR, selection_id VARCHAR, random_selection_id VARCHAR, n_items BIGINT, spent DOUBLE,
        metrics JSON, stop BOOLEAN, reasons JSON, lease_until TIMESTAMP, created_at TIMESTAMP, code_version VARCHAR,
        record JSON);
    CREATE TABLE models (
        model_id VARCHAR PRIMARY KEY, project VARCHAR, classifier JSON, encoder VARCHAR, n_labelled BIGINT, metrics JSON,
        created_at TIMESTAMP, record JSON);
    """,
    """
    ALTER TABLE ingests ADD COLUMN name VARCHAR;
    ALTER TABLE ingests ADD COLUMN rules BIGINT;
    ALTER TABLE ingests ADD COLUMN roles JSON;
    ALTER TABLE ingests ADD COLUMN notices JSON;
    """,
    """
    ALTER TABLE snapshots ADD COLUMN number BIGINT;
    ALTER TABLE models ADD COLUMN number BIGINT;
    ALTER TABLE indexes ADD COLUMN number BIGINT;
    """,
    """
    CREATE TABLE classifiers (
        classifier_id VARCHAR PRIMARY KEY, name VARCHAR, classes JSON, features JSON, estimator JSON, seed BIGINT,
        examples BIGINT, held_out BIGINT, accuracy DOUBLE, auc DOUBLE, metrics JSON, notes JSON, snapshot VARCHAR,
        targets JSON, number BIGINT, created_at TIMESTAMP);
    """,
    """
    ALTER TABLE encoders ADD COLUMN kind VARCHAR;
    """,
    """
    CREATE TABLE representation_health (
        health_measurement_id VARCHAR PRIMARY KEY, number BIGINT, encoder VARCHAR, snapshot VARCHAR, pool_rows BIGINT,
        "rows" BIGINT, dimension BIGINT, effective_rank DOUBLE, effective_rank_centred DOUBLE, largest_rank BIGINT,
        rank_share DOUBLE, mean_cosine DOUBLE, near_copies DOUBLE, near_copies_of_other_texts DOUBLE,
        largest_group_in_cell DOUBLE, largest_cell DOUBLE, plants BIGINT, plant_recall DOUBLE, reasons JSON,
        created_at TIMESTAMP, code_version VARCHAR);
    CREATE TABLE trial_records (
        trial_id VARCHAR, part VARCHAR, selection_id VARCHAR, recipe VARCHAR, model VARCHAR, size VARCHAR, lora BOOLEAN,
        parameters BIGINT, seeds BIGINT, against JSON, targets JSON, selection_tokens BIGINT, training_tokens BIGINT,
        epochs DOUBLE, rate DOUBLE, estimated_seconds DOUBLE, memory_bytes BIGINT, left_out JSON, notes JSON,
        created_at TIMESTAMP, code_version VARCHAR, PRIMARY KEY (trial_id, part));
    CREATE TABLE trial_cells (
        trial_id VARCHAR, cell VARCHAR, arm VARCHAR, seed BIGINT, "rows" BIGINT, train_loss DOUBLE, loss JSON, seconds DOUBLE,
        created_at TIMESTAMP, PRIMARY KEY (trial_id, cell));
    CREATE TABLE trial_detectable (trial_id VARCHAR, part VARCHAR, target_set VARCHAR, effect DOUBLE, created_at TIMESTAMP);
    CREATE TABLE trial_effects (
        trial_id VARCHAR, part VARCHAR, selection_id VARCHAR, target_set VARCHAR, against VARCHAR, verdict VARCHAR, mean DOUBLE,
        low DOUBLE, high DOUBLE, se DOUBLE, df DOUBLE, p DOUBLE, p_adjusted DOUBLE, detectable DOUBLE, examples BIGINT,
        created_at TIMESTAMP);
    CREATE TABLE trial_verdicts (
        trial_id VARCHAR, part VARCHAR, selection_id VARCHAR, verdict VARCHAR, line VARCHAR, created_at TIMESTAMP,
        PRIMARY KEY (trial_id, part));
    CREATE TABLE results (
        result_id VARCHAR, selection_id VARCHAR, seed BIGINT, name VARCHAR, value DOUBLE, lower_is_better BOOLEAN,
        created_at TIMESTAMP);
    """,
    """
    CREATE TABLE result_judgements (
        result_id VARCHAR, selection_id VARCHAR, other_selection_id VARCHAR, name VARCHAR, seeds BIGINT, mean DOUBLE,
        low DOUBLE, high DOUBLE, p DOUBLE, verdict VARCHAR, created_at TIMESTAMP);
    ALTER TABLE encoders ADD COLUMN models JSON;
    ALTER TABLE encoders ADD COLUMN options JSON;
    ALTER TABLE encoders ADD COLUMN base VARCHAR;
    ALTER TABLE encoders ADD COLUMN fit VARCHAR;
    CREATE TABLE reports (
        invocation VARCHAR PRIMARY KEY, state VARCHAR, line VARCHAR, recipes BIGINT, passed BIGINT, "rows" BIGINT,
        tokens BIGINT, seconds DOUBLE, started_at TIMESTAMP, finished_at TIMESTAMP, created_at TIMESTAMP);
    CREATE TABLE comparisons (
        comparison_id VARCHAR, number BIGINT, name VARCHAR, random BOOLEAN, draws BIGINT, selection_id VARCHAR,
        "rows" DOUBLE, tokens DOUBLE, mean_distance DOUBLE, mean_distance_std DOUBLE, most_distance DOUBLE,
        most_distance_std DOUBLE, seconds DOUBLE, seconds_std DOUBLE, peak_memory_bytes BIGINT, encoder VARCHAR,
        snapshot VARCHAR, pool_rows BIGINT, sample_rows BIGINT, created_at TIMESTAMP, PRIMARY KEY (comparison_id, number));
    CREATE TABLE comparison_targets (
        comparison_id VARCHAR, name VARCHAR, target_set VARCHAR, half VARCHAR, examples BIGINT, similarity DOUBLE,
        similarity_std DOUBLE);
    CREATE TABLE comparison_overlaps (
        comparison_id VARCHAR, name VARCHAR, other VARCHAR, jaccard DOUBLE, rank_biased_overlap DOUBLE);
    CREATE TABLE comparison_sources (
        comparison_id VARCHAR, name VARCHAR, source VARCHAR, share DOUBLE, share_of_pool DOUBLE);
    """,
    # A row for each file and night: an index of them would be nine tenths of the catalog, and of the time to publish
    # it.
    """
    CREATE OR REPLACE TABLE snapshot_files (
        snapshot VARCHAR, ingest VARCHAR, file VARCHAR, "read" BIGINT, kept BIGINT, duplicate BIGINT, quarantined BIGINT);
    """,
)

_SQL_TYPES = {
    pa.uuid(): "UUID",
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.uint8(): "UTINYINT",
    pa.int32(): "INTEGER",
    pa.uint32(): "UINTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.list_(pa.string()): "VARCHAR[]",
    pa.list_(pa.float64()): "DOUBLE[]",
}


def _columns(schema: pa.Schema, *first: str) -> dict[str, str]:
    """Column -> SQL type of a Parquet schema, behind text columns that come first."""
    return dict.fromkeys(first, "VARCHAR") | {column.name: _SQL_TYPES[column.type] for column in schema}


def _without(columns: dict[str, str], name: str) -> dict[str, str]:
    return {column: kind for column, kind in columns.items() if column != name}


# The columns of what lies in Parquet. A view lists its files by name, which is as fast as a glob and is a snapshot;
# without files it is a select of no rows with these types.
PARQUET_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "pool_rows": _without(_columns(POOL_SCHEMA), "extra") | {"extra": "VARCHAR"},
    "duplicates": _without(_columns(DUPLICATES_SCHEMA), "snapshot"),
    "tombstones": _columns(TOMBSTONES_SCHEMA, "snapshot"),
    "quarantine": _columns(ingest.QUARANTINE_SCHEMA),
    "targets": _columns(ITEMS_SCHEMA.append(MEASURES), "targets", "target_set"),
    "selection_items": _columns(pa.schema(records.ITEM_COLUMNS), "selection_id"),
    "selection_drops": _columns(pa.schema(records.REPORT_COLUMNS), "selection_id"),
    "selection_finds": _columns(pa.schema(records.REPORT_COLUMNS), "selection_id"),
    "contamination": _columns(pa.schema(contamination.MATCH_COLUMNS), "contamination_id"),
    "contamination_recall": _columns(pa.schema(contamination.RECALL_COLUMNS), "contamination_id"),
    "contamination_embedding_recall": _columns(pa.schema(contamination.EMBEDDING_RECALL_COLUMNS), "contamination_id"),
    "embedding_recall": _columns(pa.schema(contamination.EMBEDDING_RECALL_COLUMNS), "selection_id"),
    "representation_groups": _columns(pa.schema(health.GROUP_COLUMNS), "health_measurement_id"),
    "token_scores": _columns(pa.schema(model_scores.SCORE_COLUMNS)),
    "gradient_norms": _columns(pa.schema(segments.NORM_COLUMNS)),
    "label_events": _columns(log.LOG_SCHEMA, "import"),
    "label_quarantine": _columns(log.QUARANTINE_SCHEMA),
    "round_items": _columns(pa.schema(rounds.ITEM_COLUMNS | rounds.ADDED_COLUMNS), "round_id"),
    "consensus": _columns(CONSENSUS_SCHEMA, "project") | {"model_id": "VARCHAR"},
    "classifier_examples": _columns(EXAMPLE_SCHEMA, "classifier_id"),
    "change_causes": _columns(CHANGES_SCHEMA, "invocation"),
}

# Taken from the record's folder rather than from inside the file: a condition on such a column then opens only the
# files that can hold it (measured over 1,000 selections: 19 ms instead of 76).
FROM_FOLDER: Mapping[str, str] = {
    **dict.fromkeys(("selection_items", "selection_drops", "selection_finds", "embedding_recall"), "selection_id"),
    **dict.fromkeys(("contamination", "contamination_recall", "contamination_embedding_recall"), "contamination_id"),
    "tombstones": "snapshot",
    "representation_groups": "health_measurement_id",
    "targets": "targets",
    "label_events": "import",
    "round_items": "round_id",
    "consensus": "model_id",
    "classifier_examples": "classifier_id",
    "change_causes": "invocation",
}

# {latest}: the snapshot that is the pool now; {without}, {renamed}: extra fields with a name of selection_items.
VIEWS = """
CREATE VIEW pools AS
    SELECT s.snapshot, s.ingests, sum(f."read")::BIGINT AS "read", sum(f.kept)::BIGINT AS kept,
        sum(f.duplicate)::BIGINT AS duplicate, sum(f.quarantined)::BIGINT AS quarantined, s.created_at
    FROM snapshots s JOIN snapshot_files f USING (snapshot) WHERE s.snapshot = {latest} GROUP BY ALL;
CREATE VIEW selected_examples AS
    SELECT i.*, e.* EXCLUDE ({without}){renamed} FROM selection_items i JOIN examples e ON i.id = e.id
    UNION ALL
    SELECT i.*, e.* EXCLUDE ({without}){renamed} FROM selection_items i ANTI JOIN examples x ON i.id = x.id
    LEFT JOIN (
        SELECT * FROM ({past}) QUALIFY row_number() OVER (PARTITION BY id ORDER BY file, line, ingest) = 1
    ) e ON i.id = e.id;
CREATE VIEW selected_conversations AS
    SELECT selection_id, rank, id, given_id, source,
        CASE WHEN content_json IS NOT NULL THEN NULL
             WHEN messages IS NOT NULL THEN CAST(list_zip(
                 json_extract_string(messages, '$[*][0]'), json_extract_string(messages, '$[*][1]')
             ) AS STRUCT("role" VARCHAR, content VARCHAR)[])
             WHEN response IS NOT NULL THEN [
                 struct_pack("role" := 'user', content := prompt),
                 struct_pack("role" := 'assistant', content := response)
             ] END AS messages,
        CASE WHEN content_json IS NULL AND response IS NULL THEN prompt END AS "text",
        content_json
    FROM selected_examples;
CREATE VIEW notices AS
    SELECT ingest, file, notice.key AS notice, notice.value AS "rows"
    FROM (
        SELECT i.ingest, f.file, unnest(map_entries(CAST(i.notices AS MAP(VARCHAR, BIGINT)))) AS notice
        FROM ingests i JOIN snapshot_files f ON i.ingest = f.ingest AND f.snapshot = {latest}
    )
    ORDER BY file, "rows" DESC, 3;
CREATE VIEW latest_selections AS
    SELECT s.* REPLACE (r.target AS recipe), r.run_id, coalesce(t.verdict, 'not tried') AS trial
    FROM selections s JOIN (
        SELECT run_id, target, subject FROM runs WHERE stage = 'select' AND status = 'ok'
        QUALIFY row_number() OVER (PARTITION BY target ORDER BY run_id DESC) = 1
    ) r ON s.selection_id = r.subject
    LEFT JOIN (
        SELECT selection_id, verdict FROM trial_verdicts
        QUALIFY row_number() OVER (PARTITION BY selection_id ORDER BY created_at DESC, trial_id) = 1
    ) t ON s.selection_id = t.selection_id;
CREATE VIEW pinned AS
    SELECT s.selection_id, s.recipe, r.note, r.created_at FROM selections s JOIN (
        SELECT subject, stage, facts->>'note' AS note, started_at AS created_at
        FROM runs WHERE stage IN ('pin', 'unpin') QUALIFY row_number() OVER (PARTITION BY subject ORDER BY run_id DESC) = 1
    ) r ON r.subject = s.selection_id AND r.stage = 'pin';
CREATE VIEW selection_changes AS
    WITH draws AS (
        SELECT invocation, target AS recipe, arg_max(subject, run_id) AS selection_id, max(run_id) AS run_id
        FROM runs WHERE stage = 'select' AND status = 'ok' GROUP BY invocation, target
    ),
    pairs AS (
        SELECT invocation, recipe, selection_id, lag(selection_id) OVER (PARTITION BY recipe ORDER BY run_id) AS previous
        FROM draws
    ),
    sides AS (
        SELECT *, selection_id AS side, true AS is_new FROM pairs WHERE previous IS NOT NULL
        UNION ALL SELECT *, previous, false FROM pairs WHERE previous IS NOT NULL
    ),
    ranks AS (
        SELECT s.invocation, s.recipe, s.selection_id, s.previous, i.id,
            max(i.rank) FILTER (is_new) AS rank, max(i.rank) FILTER (NOT is_new) AS previous_rank
        FROM sides s JOIN selection_items i ON i.selection_id = s.side GROUP BY ALL
    )
    SELECT r.invocation, r.recipe, r.id,
        CASE WHEN previous_rank IS NULL THEN 'added' WHEN rank IS NULL THEN 'dropped' ELSE 'kept' END AS change, c.cause,
        c.detail, rank, previous_rank, selection_id, previous
    FROM ranks r LEFT JOIN change_causes c ON c.invocation = r.invocation AND c.recipe = r.recipe AND c.id = r.id;
CREATE VIEW trials AS
    SELECT r.trial_id, r.selection_id, r.recipe, coalesce(v.verdict, 'not finished') AS verdict, v.line,
        r.* EXCLUDE (trial_id, part, selection_id, recipe), v.created_at AS finished_at
    FROM trial_records r LEFT JOIN trial_verdicts v ON v.trial_id = r.trial_id
    ORDER BY r.created_at, r.trial_id;
CREATE VIEW result_effects AS
    SELECT s.recipe, j.selection_id, o.recipe AS other_recipe, j.* EXCLUDE (result_id, selection_id, created_at), j.created_at
    FROM result_judgements j LEFT JOIN selections s ON s.selection_id = j.selection_id
    LEFT JOIN selections o ON o.selection_id = j.other_selection_id
    QUALIFY row_number() OVER (
        PARTITION BY least(j.selection_id, other_selection_id), greatest(j.selection_id, other_selection_id), name
        ORDER BY j.created_at DESC, result_id
    ) = 1;
CREATE MACRO selection_of(name) AS coalesce(
    (SELECT any_value(selection_id) FROM selections WHERE selection_id = name),
    (SELECT any_value(selection_id) FROM latest_selections WHERE recipe = name),
    error('no selection has the id, and no recipe with a selection the name, ' || name)
);
CREATE MACRO selection(selection) AS TABLE
    SELECT * FROM selected_examples WHERE selection_id = selection_of(selection) ORDER BY rank;
CREATE MACRO selection_diff(a, b) AS TABLE
    WITH sides AS (
        SELECT selection_of(a) AS selection_id, false AS is_new UNION ALL SELECT selection_of(b), true
    )
    SELECT id,
        CASE WHEN max(rank) FILTER (NOT is_new) IS NULL THEN 'added'
             WHEN max(rank) FILTER (is_new) IS NULL THEN 'dropped' ELSE 'kept' END AS change,
        max(rank) FILTER (NOT is_new) AS rank_a,
        max(rank) FILTER (is_new) AS rank_b,
        any_value(source) AS source,
        any_value(left(prompt, 120)) AS prompt
    FROM sides JOIN selected_examples USING (selection_id) GROUP BY id ORDER BY rank_b NULLS LAST, rank_a;
CREATE MACRO overlap(a, b) AS TABLE
    WITH sides AS (
        SELECT selection_of(a) AS selection_id, true AS is_a UNION ALL SELECT selection_of(b), false
    )
    SELECT count(*) FILTER (in_a) AS n_a, count(*) FILTER (in_b) AS n_b, count(*) FILTER (in_a AND in_b) AS "both",
        count(*) FILTER (in_a AND in_b) / nullif(count(*), 0) AS jaccard
    FROM (
        SELECT id, bool_or(is_a) AS in_a, bool_or(NOT is_a) AS in_b
        FROM sides JOIN selection_items USING (selection_id) GROUP BY id
    );
"""

# What counts of the log is said once more in Python, in labels.counted.
# What the configuration said of each labeling project when its labels were last pulled: who decides, the price of a
# label.
_LATEST_PULLS = """latest_pulls AS (
        SELECT target AS project, facts->>'adjudicator' AS adjudicator, (facts->>'price_per_label')::DOUBLE AS price
        FROM runs WHERE stage = 'pull' AND status = 'ok'
        QUALIFY row_number() OVER (PARTITION BY target ORDER BY run_id DESC) = 1
    )"""
LABEL_VIEWS = f"""
CREATE VIEW labels AS
    WITH {_LATEST_PULLS},
    latest AS (
        SELECT e.* EXCLUDE ("import") FROM label_events e JOIN label_imports i ON e."import" = i."import"
        QUALIFY row_number() OVER (
            PARTITION BY e.project, e.id, e.annotator, CASE WHEN e.kind = 'skip' THEN 'class' ELSE e.kind END
            ORDER BY coalesce(e.created_at, i.created_at) DESC, i.number DESC, e.line DESC, e.event DESC
        ) = 1
    ),
    sent AS (
        SELECT r.project, i.id, arg_max(i.price, r."round") AS price
        FROM round_items i JOIN round_records r USING (round_id) WHERE i.price IS NOT NULL GROUP BY r.project, i.id
    )
    SELECT l.*, coalesce(l.cost, CASE WHEN l.kind = 'class' THEN coalesce(p.price, s.price) END) AS price
    FROM latest l LEFT JOIN latest_pulls p ON p.project = l.project LEFT JOIN sent s ON s.project = l.project AND s.id = l.id;
CREATE VIEW label_conflicts AS
    SELECT project, id, count(*) AS n_labels, count(DISTINCT label) AS n_classes,
        to_json(map(list(annotator ORDER BY annotator), list(label ORDER BY annotator))) AS votes
    FROM labels l
    WHERE kind = 'class'
        AND NOT EXISTS (FROM labels g WHERE g.kind = 'ignore' AND g.project = l.project AND g.id = l.id)
    GROUP BY project, id HAVING count(DISTINCT label) > 1;
CREATE VIEW adjudication AS
    WITH {_LATEST_PULLS},
    votes AS (
        SELECT l.project, l.id, l.label, count(*) AS n, list(l.annotator ORDER BY l.annotator) AS people
        FROM labels l WHERE l.kind = 'class' AND NOT EXISTS (
            FROM labels g LEFT JOIN latest_pulls p ON p.project = g.project
            WHERE (g.kind IN ('ignore', 'gold') OR (g.kind = 'class' AND g.annotator = p.adjudicator))
                AND g.project = l.project AND g.id = l.id
        )
        GROUP BY l.project, l.id, l.label
    )
    SELECT project, id, any_value(total)::BIGINT AS n_labels, to_json(map(list(label ORDER BY label), list(people ORDER BY label))) AS tied
    FROM (SELECT *, sum(n) OVER (PARTITION BY project, id) AS total FROM votes QUALIFY n = max(n) OVER (PARTITION BY project, id))
    GROUP BY project, id HAVING count(*) > 1;
CREATE VIEW annotators AS
    WITH {_LATEST_PULLS},
    votes AS (SELECT * FROM labels WHERE kind = 'class'),
    acts AS (
        SELECT project, annotator, count(*) FILTER (kind = 'class') AS n_labels, count(*) FILTER (kind = 'skip') AS skipped,
            count(*) FILTER (kind = 'ignore') AS ignored, median(seconds) AS median_seconds, sum(price) AS cost
        FROM labels WHERE kind <> 'gold' GROUP BY project, annotator
    ),
    shared AS (
        SELECT a.project, a.annotator, count(DISTINCT a.id) AS n_shared, avg((a.label = b.label)::DOUBLE) AS agreement
        FROM votes a JOIN votes b ON a.project = b.project AND a.id = b.id AND a.annotator <> b.annotator
        LEFT JOIN latest_pulls p ON p.project = b.project
        WHERE b.annotator IS DISTINCT FROM p.adjudicator
        GROUP BY a.project, a.annotator
    ),
    gold AS (
        SELECT v.project, v.annotator, count(*) AS n_gold, avg((v.label = g.label)::DOUBLE) AS gold_accuracy
        FROM votes v JOIN labels g ON g.kind = 'gold' AND v.project = g.project AND v.id = g.id
        GROUP BY v.project, v.annotator
    )
    SELECT acts.project, acts.annotator, n_labels, skipped, ignored, coalesce(n_shared, 0) AS n_shared, agreement,
        coalesce(n_gold, 0) AS n_gold, gold_accuracy, median_seconds, cost,
        coalesce(acts.annotator = p.adjudicator, false) AS adjudicates
    FROM acts LEFT JOIN shared USING (project, annotator) LEFT JOIN gold USING (project, annotator)
    LEFT JOIN latest_pulls p ON p.project = acts.project;
CREATE VIEW rounds AS
    WITH given AS (
        SELECT l.*, i.round_id AS sent_in, i.arm,
            l.kind = 'class' AND (l.project, l.id) NOT IN (SELECT (project, id) FROM labels WHERE kind = 'ignore') AS votes
        FROM labels l JOIN round_items i ON i.id = l.id
        JOIN round_records r ON r.round_id = i.round_id AND r.project = l.project
        WHERE l.kind <> 'gold'
        QUALIFY row_number() OVER (
            PARTITION BY l.event ORDER BY coalesce(i.round_id = l.round_id, false) DESC, r.round DESC, r.round_id
        ) = 1
    ),
    acts AS (
        SELECT sent_in, count(DISTINCT id) FILTER (votes) AS labelled, sum(price) AS cost
        FROM given GROUP BY sent_in
    ),
    majority AS (
        SELECT sent_in, id, label, count(*) AS n FROM given WHERE votes AND arm <> 'gold' GROUP BY sent_in, id, label
        QUALIFY rank() OVER (PARTITION BY sent_in, id ORDER BY n DESC) = 1 AND count(*) OVER (PARTITION BY sent_in, id, n) = 1
    ),
    by_class AS (SELECT sent_in, label, count(*) AS n FROM majority GROUP BY sent_in, label),
    found AS (
        SELECT sent_in, to_json(map(list(label ORDER BY label), list(n ORDER BY label))) AS found
        FROM by_class GROUP BY sent_in
    )
    SELECT r.round_id, r.project, r.round, r.phase, r.n_items, coalesce(labelled, 0) AS labelled, found, cost,
        sum(cost) OVER (PARTITION BY r.project ORDER BY r.round, r.created_at, r.round_id) AS cost_so_far,
        r.spent AS spent_before, r.spent, r.metrics,
        r.stop, r.reasons, r.steps, r.snapshot, r.encoder, r.model_id, r.selection_id, r.random_selection_id,
        r.record ->> '$.rare_selection_id' AS rare_selection_id, r.record ->> '$.choice.reason' AS steps_because, r.lease_until,
        r.created_at, r.code_version, r.record
    FROM round_records r LEFT JOIN acts ON acts.sent_in = r.round_id LEFT JOIN found ON found.sent_in = r.round_id;
"""  # noqa: S608


# Macros that give a value; the others give rows.
SCALAR_MACROS = frozenset({"selection_of"})
# "relation" or "macro": what a row is. All are needed; a test looks.
RELATION_COMMENTS: Mapping[str, str] = {
    "schema_version": "One row: how many schema steps made this catalog.",
    "pools": "One row: the pool as it is now, the latest snapshot, with its counts; read = kept + duplicate + quarantined.",
    "ingests": "One row per file taken in, ever, with the mapping of its fields.",
    "notices": "One row per file of the pool as it is now and thing to know of its rows: a field set to null, an unknown role, an unread answer.",
    "snapshots": "One row per state of the pool, ever: a list of ingests.",
    "snapshot_files": "One row per snapshot and file: what became of its rows; read = kept + duplicate + quarantined.",
    "encoders": "One row per encoder: the model and all else that its vectors depend on.",
    "embeddings": "One row per stored segment of vectors; sum n_rows by encoder for what is embedded.",
    "representation_health": "One row per sample of a pool and encoder: how sound the vectors are; `number` has the newest last.",
    "representation_groups": "One row per source, or language, of such a sample: how much of it lies in one of the encoder's 64 cells.",
    "indexes": "One row per vector index.",
    "targets": "One row per target: an example of the task to match; evaluation texts that are no targets too.",
    "examples": "One row per candidate of the pool as it is now; the fields of the user's files that winnow has no name for are columns at the end.",
    "pool_rows": "One row per readable row of every file ever taken in, repeats and old files included; most questions are for `examples`.",
    "duplicates": "One row per exact repeat in the pool as it is now, with the row that was kept in its place.",
    "tombstones": "One row per candidate that a snapshot's parent had and the snapshot has not.",
    "quarantine": "One row per row that could not be read in the files of the pool as it is now.",
    "selections": "One row per selection ever drawn. The same draw by two recipes is one selection, under the first recipe's name.",
    "latest_selections": "One row per recipe: its newest selection whose checks passed.",
    "pinned": "One row per selection that `winnow pin` keeps from being removed.",
    "selection_items": "One row per selection and chosen candidate, in the order of choice.",
    "selection_drops": "One row per selection and candidate that a filter left out and said why, for example a duplicate.",
    "selection_finds": "One row per selection, filter that searches and chosen candidate: what found it, for example an anchor.",
    "selected_examples": "selection_items with the text and fields of each candidate, also of candidates no longer in the pool.",
    "selected_conversations": "The chosen candidates as a trainer reads them, whole conversations: messages as a list of role and content, for COPY.",
    "contamination": "One row per candidate and evaluation example that it holds, of the last search: which rule, how much, where.",
    "contamination_recall": "One row per evaluation set and kind of plant: how many of the planted examples the last search finds.",
    "contamination_embedding_recall": "One row per evaluation set, form and kind of plant: how many the last search's rule `embedding` finds.",
    "embedding_recall": "One row per selection with the rule `decontaminate: {similarity}`, target set, form and kind of plant: how many it finds.",
    "token_scores": "One row per row and model of `models:` that scored it: log-likelihoods of its tokens, of pool and targets.",
    "gradient_norms": "One row per row and encoder of `kind: gradients`: how long its gradients are, of pool and targets.",
    "labels": "One row per label that counts: the latest of each annotator on each row, of each kind.",
    "label_events": "One row per label ever given; most questions are for `labels`.",
    "label_imports": "One row per label file taken in, ever; a file that grew is there once for each state.",
    "label_quarantine": "One row per label that could not be used, in the label files as they were last taken in.",
    "label_conflicts": "One row per candidate whose annotators disagree on its class.",
    "adjudication": "One row per candidate with as many votes for one class as for another; by majority it has no label until another vote, or the adjudicator, decides.",
    "annotators": "One row per labeling project and annotator: how much, how well, how fast, at what cost.",
    "consensus": "One row per labeling project and labelled candidate: the one class that its labels come to, as of the project's latest model.",
    "models": "One row per model fitted on labels.",
    "classifiers": "One row per classifier of `classifiers:` ever fitted, and how good it is on examples that it did not learn from.",
    "classifier_examples": "One row per classifier and example that it was fitted to or measured on.",
    "rounds": "One row per round of a labeling project: what was sent out, what came back.",
    "round_items": "One row per round and candidate sent out to be labelled, in the order of the batch.",
    "round_records": "One row per round as it was drawn; `rounds` has what came of it as well.",
    "selection_changes": "One row per run, recipe and candidate that its selection or the one before has: added, dropped or kept; why, once the run has a report.",
    "change_causes": "One row per report, recipe and candidate that was added or dropped: why; `selection_changes` has those kept as well.",
    "reports": "One row per report of a run: what was published, or held back.",
    "metrics": "One row per number measured on a selection.",
    "comparisons": "One row per comparison that `winnow compare --record` kept, and entry of its table: coverage, time, memory; random rows among them.",
    "comparison_targets": "One row per comparison, entry and target set: how similar the selection is to the examples that judge.",
    "comparison_overlaps": "One row per comparison and two of its entries: how much they share.",
    "comparison_sources": "One row per comparison, entry and source: its share of the selection and of the pool.",
    "trials": "One row per trial of a selection: whether it helped the models that were trained on it, and how they were trained.",
    "trial_cells": "One row per trial, arm and seed: a model that was trained, and its losses.",
    "trial_effects": "One row per finished trial, target set and control: by how much the selection's losses are lower, and the verdict.",
    "trial_detectable": "One row per trial and target set: the smallest effect that would be seen, known before the selection was tried.",
    "trial_records": "One row per trial as it was planned; `trials` has what came of it as well.",
    "trial_verdicts": "One row per finished trial and its verdict against random; `trials` has it as well.",
    "results": "One row per score of a model that was trained elsewhere on a selection: `winnow result add`.",
    "result_effects": "One row per pair of selections and score of models trained elsewhere: the difference over seeds, and the verdict.",
    "result_judgements": "One row per `winnow result add`, other selection and score; `result_effects` has the newest of each pair.",
    "runs": "One row per execution of a stage, failed ones included, ever.",
    "selection": "selection(name): the chosen candidates of one selection in rank order, with their text; of a recipe its newest one whose checks passed.",
    "selection_diff": "selection_diff(a, b): candidates added, dropped and kept from selection a to selection b, with both ranks.",
    "overlap": "overlap(a, b): sizes of two selections, how many candidates both have, and the Jaccard index.",
    "selection_of": "selection_of(name): the id of a recipe's newest selection whose checks passed, or the id itself; an error if there is neither.",
}

# A name means the same thing in every relation; "relation.column" where it needs to say more.
_EMBEDDING_RECALL = {
    "false_positives": "Negatives that are as similar to an example of the set as the rule demands.",
    "form": "alone, the row is the example in disguise; inside, the example's question stands within a row of the pool.",
    "found": "How many of the planted rows are as similar to an example of the set as the rule demands.",
    "kind": "The disguise, as in contamination_recall.",
    "negatives": "Rows of the pool that hold no question of the set word for word.",
    "planted": "How many rows with an example in disguise were encoded.",
    "threshold": "The least cosine of the rule.",
}

COLUMN_COMMENTS: Mapping[str, str] = {
    "annotator": "Who gave the label.",
    "budget": "How many were asked for.",
    "cause": "Why the row could not be read.",
    "checks": "What was checked: a JSON list of name, passed, detail, blocking.",
    "cells": "Inverted lists; 0 for an exact index.",
    "code_version": "winnow's version and, from a checkout, its commit.",
    "confidence": "The annotator's confidence, 0 to 1.",
    "columns": "Digests of the user's columns, as JSON.",
    "config_digest": "Digest of the configuration; it lies in configs/<digest>.yaml of the store.",
    "content_json": "All that a trainer would see beside the turns, as JSON: tool calls, images, the rejected answer; NULL if nothing.",
    "created_at": "When it was committed, UTC.",
    "damage": "Why only the rows before it were taken from a damaged file; NULL for a whole file.",
    "device": "Where it was computed.",
    "digest": "Digest of the file's bytes.",
    "dimension": "Length of a vector.",
    "dtype": "Number format of the stored vectors.",
    "duplicate": "Rows equal to one that was kept.",
    "duplicates": "Rows equal to one that was kept.",
    "empty_response": "Whether the row had a prompt and an empty or missing response.",
    "empty_responses": "Rows with a prompt and an empty or missing response; they are kept.",
    "encoding": "Encoding of text without a byte-order mark.",
    "encoder": "Fingerprint of the encoder; its folder under vectors/.",
    "error": "What went wrong, NULL if nothing did.",
    "examples": "Candidates: distinct readable rows.",
    "excerpt": "The beginning of the row as it stands in the file.",
    "exhausted": "Whether fewer than the budget could be given, which the recipe allowed.",
    "extra": "All fields of the row that winnow has no name for, as a JSON object; NULL if none.",
    "extra_columns": "Field that winnow has no name for -> its type, as JSON.",
    "facts": "What was counted on the way: a JSON object.",
    "selections.facts": "What was counted on the way: a JSON object. drawn: rows drawn now, whether or not the last selection had "
    "them; kept_by_top_up: rows that `mode: top_up` kept of it. Of `mode: sticky`, sticky_stays: rows of the last selection that the "
    "steps took again; sticky_held: that stay only for max_churn; sticky_replaced: that were given up for others; "
    "sticky_could_not_stay: that left whatever max_churn is; sticky_held_back: rows that the steps took and max_churn kept out. "
    "Earlier versions said new_rows and kept_from_last.",
    "fields": "What the configuration says of the file's fields, as JSON; NULL if they were detected.",
    "file": "Path or URL of the file.",
    "finished_at": "When it ended, UTC.",
    "gain": "The selector's value for the candidate at the moment of choosing it.",
    "given_id": "The row's own id in the file, NULL if it has none.",
    "id": "The candidate's id: hash of its text, the same wherever the text comes from.",
    "index": "The index's folder under indexes/.",
    "selections.index": "The vector index that was searched, NULL if the choice is exact.",
    "latest_selections.index": "The vector index that was searched, NULL if the choice is exact.",
    "ingest": "A file as taken in: hash of its bytes and its mapping.",
    "ingests": "How many files.",
    "invocation": "What the stages of one `winnow run` or one Dagster run have in common.",
    "kept": "Rows that are candidates.",
    "kept_ingest": "Where the kept row of the same text is: its ingest.",
    "kept_line": "Where the kept row of the same text is: its line.",
    "kind": "What pulled the candidate: target, stratum, score, random, ...",
    "indexes.kind": "flat (exact), ivf or rabitq.",
    "line": "1-based line of the file, or record number where the format has no lines.",
    "max_tokens": "Tokens of a text that the encoder reads; the rest is cut.",
    "messages": "The turns as JSON [[role, content], ...] where they are more than a prompt and a response, else NULL.",
    "selected_conversations.messages": "All turns, the system prompt among them. NULL for a single text, and where role and text do not say everything: "
    "see content_json; `winnow export` writes those whole.",
    "metrics_id": "The record of the measurement.",
    "model": "Name or folder of the model.",
    "ingests.name": "Path of the file relative to the project, or its URL: `file` of its rows.",
    "notice": "What was kept otherwise than it stood in the file, or not read.",
    "notices": "What a user should know of its rows -> how many, as JSON; see the view `notices`.",
    "roles": "What the configuration says of the roles of messages, as JSON; NULL for nothing.",
    "notices.rows": "How many rows.",
    "rules": "Version of the rules by which files are read.",
    "n_dead": "Vectors in the index of candidates that are no more; a search never gives them.",
    "n_failed": "How many texts have no vector (no tokens, an overflow).",
    "n_items": "How many were chosen.",
    "n_rows": "How many vectors.",
    "name": "What was measured.",
    "nprobe": "Inverted lists that a search looks into; 0 for an exact index.",
    "parent": "The snapshot before this one, NULL for the first.",
    "pooling": "How token states become one vector.",
    "prompt": "The prompt, the first user turn, or the whole of a single text.",
    "encoders.kind": "The kind of representation: hidden_states, or as `kind:` of the entry says; NULL for imported vectors.",
    "encoders.model": "Name or folder of the model; NULL for several checkpoints, see `models`, and for imported vectors.",
    "encoders.models": "Names or folders of all its models, as a JSON list: one, or several checkpoints.",
    "encoders.options": "All options of the entry that it was made by, as JSON: layers, chunk, dims, postprocess and others.",
    "encoders.base": "With `postprocess`, the encoder before it, whose vectors these are copies of; else NULL.",
    "encoders.fit": "With `postprocess`, what its mean and matrix were fitted on, as a hash; else NULL.",
    "encoders.prompt": "What is put in front of each text.",
    "quarantined": "Rows that could not be read; each stands in `quarantine`.",
    "rank": "Order of choice, 1 is first.",
    "read": "Rows of the file.",
    "readable": "Rows that could be read, repeats included.",
    "reason": "Why it is gone.",
    "recall_at_10": "Share of the 10 exact nearest neighbours that a search gives, measured on a sample.",
    "recipe": "The recipe in winnow.yaml.",
    "record": "The whole record, with fields that have no column of their own: record->>'where'.",
    "ref": "The target or stratum that pulled the candidate, by name; or the id of the candidate that did.",
    "ref_rank": "The candidate's place in the list of what pulled it, 1 is nearest.",
    "response": "The response, NULL for a single text.",
    "revision": "Revision of the model.",
    "round": "Number of the round drawn for.",
    "round_id": "The round.",
    "run_id": "A ULID: runs are in its order, also where a clock was wrong.",
    "seconds": "How long it took.",
    "seed": "Seed of the random generator.",
    "segment": "The segment's folder under vectors/<encoder>/.",
    "selection_id": "Hash of all that the draw depends on; the same draw is the same selection.",
    "size_bytes": "Bytes on disk.",
    "shapes": "How many rows had each shape, as JSON.",
    "snapshot": "A state of the pool: hash of its list of files.",
    "source": "Where the row comes from, as the file or the configuration says.",
    "ingests.source": "The source that the configuration gives to every row; NULL if the rows say it.",
    "stage": "ingest, embed, index, select, ...",
    "started_at": "When it began, UTC.",
    "status": "ok; held_back, a blocking check failed; or failed, an error.",
    "step": "The filter.",
    "steps": "The recipe's steps with all options, as JSON.",
    "subject": "The id of what was made: a snapshot, encoder, index or selection.",
    "summary": "One sentence on the outcome.",
    "target": "What the stage was for: a recipe or an encoder; NULL for the whole pool.",
    "target_set": "The set of targets, by its name in winnow.yaml.",
    "targets": "The record of the target set.",
    "selections.targets": "Target set -> its record in `targets`, as JSON.",
    "latest_selections.targets": "Target set -> its record in `targets`, as JSON.",
    "text": "A single text without roles, else NULL.",
    "template": "How the turns become the text that is encoded.",
    "url": "Path or URL of the file.",
    "tokens": "Tokens read.",
    "tombstones": "Candidates of the parent that are no more.",
    "truncated": "Texts longer than max_tokens.",
    "value": "The number.",
    "selection_items.value": "The score or similarity behind the choice, NULL if there is none.",
    "selection_drops.kind": "What the candidate was left out for: neighbour, a duplicate of the candidate in `ref`; better, "
    "`ref` is better in the same group; outlier; score, a candidate for which its scorer has none. Of the step sticky: "
    "replaced, by the candidate in `ref`; no_place, within the constraint in `ref`; held_back by max_churn.",
    "selection_drops.ref": "The id of the candidate that was kept in its place, NULL if there is none.",
    "selection_drops.value": "The similarity to it; of an outlier or where `ref` is better, the score that was too low; of a candidate "
    "that is held back, its rank in the fresh draw.",
    "selection_finds.kind": "What found the candidate: anchor, a labelled row. Of the step sticky: stays; kept, only for max_churn; "
    "replaces the candidate in `ref`; fills a free place.",
    "selection_finds.ref": "The id of the row that found it, the most similar one if several did.",
    "selection_finds.value": "The similarity to it; of a candidate that stays or is kept, its rank in the last selection.",
    "selected_examples.value": "The score or similarity behind the choice, NULL if there is none.",
    "version": "Number of schema steps.",
    "contamination.excerpt": "What of the row's text matches, its first 200 characters.",
    "contamination.id": "The candidate that holds the example.",
    "contamination.rule": "exact, all words of the example in one run; ngrams, enough of its word n-grams; or embedding, vectors.",
    "contamination.score": "The share of the example's n-grams that the row holds, or the cosine; 1 for exact.",
    "contamination.start": "The first character of the match in the row's text, its turns one below the other, from 0; NULL for embedding.",
    "contamination.stop": "The character after the match.",
    "contamination_id": "The search: hash of pool, evaluation sets and rules; it lies in records/contaminations/.",
    "contamination_recall.kind": "The disguise: verbatim, rewrapped, case_and_punctuation, numbers_replaced, names_replaced, "
    "options_reordered or paraphrase.",
    "contamination_recall.found": "How many of the plants are found.",
    **{
        f"{view}.{column}": text
        for view in ("contamination_embedding_recall", "embedding_recall")
        for column, text in _EMBEDDING_RECALL.items()
    },
    "example": "The example's id: `id` in `targets`.",
    "example_name": "The example's own id in its file, else its place.",
    "false_positives": "Negatives that are taken to hold an example of the set.",
    "negatives": "Texts without an example of the set: rows of the pool, and those with a plant of another set.",
    "planted": "How many examples were planted.",
    "precision": "found / (found + false_positives).",
    "promised": "Whether the rules promise to find this kind; if so it counts for `recall_floor`.",
    "recall": "found / planted.",
    "token_scores.cause": "Why numbers are NULL: no answer, the answer is empty, cut at max_tokens; else NULL.",
    "token_scores.fingerprint": "The model with all that its numbers depend on.",
    "token_scores.model": "The model's name or folder, as in the configuration.",
    "norms": "Lengths of the row's gradients, one of each checkpoint, before Adam's moments, projection and scaling to length 1.",
    "mean_rank": "Mean place of the true token among all, by probability; 1 is the likeliest.",
    "n_alone": "Tokens of the answer without the prompt.",
    "n_answer": "Tokens of the answer after the prompt, with the end-of-sequence token that the template writes.",
    "n_prompt": "Tokens before the answer.",
    "n_tok": "Tokens but the first, which nothing predicts.",
    "nll_alone": "Mean negative log-likelihood of the answer's tokens without the prompt.",
    "nll_alone_sum": "Sum of the same.",
    "nll_answer": "Mean negative log-likelihood (natural logarithm) of the answer's tokens after the prompt.",
    "nll_answer_sum": "Sum of the same.",
    "nll_mean": "Mean negative log-likelihood of all tokens but the first.",
    "nll_prompt_sum": "Sum over the tokens before the answer.",
    "nll_q10": "The 0.1 quantile of the tokens' negative log-likelihoods.",
    "nll_q50": "Their median.",
    "nll_q90": "Their 0.9 quantile.",
    "nll_sum": "Sum over all tokens but the first.",
    # Labels, rounds and models.
    "adjudicates": "Whether this person decides where the others differ, as of the last pull.",
    "agreement": "Share of the other annotators' labels on the same rows that are the same; the adjudicator is none of the others.",
    "annotators": "How many annotators the row wants.",
    "assigned": "The annotators that the row was given to, where the project names them; else NULL.",
    "arm": "strategy, the project's steps; random, the standing random arm; gold, a row with a known answer; or rare, likely "
    "of a rare class.",
    "classes": "The project's classes at that time, as JSON.",
    "classifier": "The classifier with its options, as JSON.",
    "consensus.confidence": "How sure the aggregation is of the class, 0 to 1.",
    "consensus.label": "The class.",
    "cost": "What it cost, in the unit of the label files.",
    **dict.fromkeys(
        ("annotators.cost", "rounds.cost"),
        "What the labels cost: the sum of `price` in `labels`. NULL if nothing is known.",
    ),
    "labels.price": "What the label cost: `cost`, as its file says; else, of a class, `per_row` of the project's budget as of the "
    "last pull, or `price` of the row in `round_items`. NULL if nothing is known.",
    "round_items.price": "What one label of the row costs by the project's budget (`per_row`, `column` or `per_token`), as of when "
    "it was sent out; NULL where the budget is not in money.",
    "cost_so_far": "What this round and the earlier ones cost.",
    "event": "Hash of all that was said: the same label brought again is the same event.",
    "found": "Class -> how many of the round's rows it was given to by most of their annotators, as JSON; gold and ignored rows apart.",
    "gold": "Whether the file holds known answers.",
    "gold_accuracy": "Share of the labels on gold rows that are the known answer.",
    "ignored": "Rows taken out for good.",
    "import": "A label file as taken in: hash of its bytes and of how it was read.",
    "inclusion_probability": "The chance that the random arm had to draw the row; NULL in other arms.",
    "known": "Labels that the log had before.",
    "label": "The class, or the text.",
    "label_events.created_at": "When it was given, UTC, as the file says; NULL if it does not.",
    "label_events.kind": "class; rating; text; skip, left to others; ignore, out for good; gold, a known answer.",
    "label_events.seconds": "How long the annotator took.",
    "label_imports.damage": "Why nothing was taken of a damaged file; NULL for a whole file.",
    "label_imports.fields": "What the configuration says of the file's fields, as JSON; NULL if they were detected.",
    "label_imports.quarantined": "Labels that could not be used; those of each file's last import stand in `label_quarantine`.",
    "label_imports.read": "Records of the file.",
    "label_quarantine.cause": "Why the label could not be used.",
    "labelled": "Rows that were given a class; ignored rows apart.",
    "labels.created_at": "When it was given, UTC, as the file says; NULL if it does not.",
    "labels.kind": "class; rating; text; skip, left to others; ignore, out for good; gold, a known answer.",
    "labels.seconds": "How long the annotator took.",
    "lease_until": "Until when the rows are not sent out again, UTC.",
    "measures": "Whether the example only measures what was selected (`measure`); NULL where its set has no such part.",
    "median_seconds": "Half of the labels took less.",
    "metrics": "Name -> number, as JSON.",
    "model_id": "The model: hash of what it was fitted on and how; NULL before there are labels.",
    "n_classes": "How many classes were given.",
    "n_gold": "Labels on gold rows.",
    "n_labelled": "Rows with a consensus.",
    "n_labels": "How many class labels.",
    "n_shared": "Rows that others labelled as well; the adjudicator is none of the others.",
    "new": "Labels added to the log.",
    "indexes.number": "Order in which the indexes were made, 1 is first; NULL in records of earlier versions.",
    "models.number": "Order in which the models were fitted, 1 is first; NULL in records of earlier versions.",
    "number": "Order in which the files were taken in, 1 is first.",
    "snapshots.number": "Order in which the snapshots were taken, 1 is first; NULL in records of earlier versions.",
    "phase": "cold_start, before there were labels to learn from; or active.",
    "prediction": "The model's top class when the row was sent out.",
    "probability": "The model's probability of it.",
    "project": "The labeling project in winnow.yaml.",
    "random_selection_id": "The selection of the random arm.",
    "rare_selection_id": "The selection of likely rows of a rare class; NULL in rounds without.",
    "steps_because": "Why these steps, where the project says `steps: auto`; else NULL.",
    "rating": "The rating, of labels of that kind.",
    "reasons": "Why labeling could stop, as a JSON list.",
    "relabel_score": "How much another label is wanted, higher is more; NULL if it was not scored.",
    "round_items.rank": "Place in the batch, 1 is first.",
    "round_records.selection_id": "The selection of the project's steps.",
    "rounds.selection_id": "The selection of the project's steps.",
    "score": "The steps' value for the row.",
    "skipped": "Rows left to others.",
    "spent": "How much of the budget was spent before the round, by all rounds before it, in the budget's unit: money or rows.",
    "spent_before": "How much of the budget was spent before the round, by all rounds before it, in the budget's unit: money or rows.",
    "rounds.spent": "The earlier name of `spent_before`.",
    "stop": "Whether the stopping rules advised to stop when the round was drawn.",
    "tied": "Class -> its annotators, as JSON, of the classes with the most votes.",
    "unlabelled": "Rows of a batch that wait for their label.",
    "votes": "Annotator -> class, as JSON.",
    # Health of representations.
    "representation_groups.cell": "The cell that holds most of the group's rows.",
    "effective_rank": "How many directions the vectors use: exp of the entropy of their singular values.",
    "effective_rank_centred": "The same, of the vectors minus their mean.",
    "group": "The source, or the language.",
    "group_by": "The column that says so.",
    "health_measurement_id": "Hash of the encoder, the sample and how it was measured.",
    "largest_cell": "The largest share of the sample in a cell; NULL where it is too small for cells.",
    "largest_group_in_cell": "The largest share of a group that a cell holds, of groups that are a twentieth of the sample; NULL without such.",
    "largest_rank": "The most that the effective rank could be: the dimension, or the rows if they are fewer.",
    "mean_cosine": "Mean cosine of two rows, over all pairs.",
    "near_copies": "Share of rows whose nearest row has a cosine above 0.999.",
    "near_copies_of_other_texts": "Share of rows of which this row has another text, white space and case apart.",
    "plant_recall": "Share of rows copied in another layout whose nearest row is the original; NULL if none was copied.",
    "plants": "How many rows were copied and encoded.",
    "pool_rows": "Rows of the snapshot.",
    "rank_share": "effective_rank_centred / largest_rank.",
    "representation_groups.rows": "Rows of the group in the sample.",
    "representation_groups.share": "Share of the group's rows in that cell.",
    "representation_health.number": "Order in which they were measured, 1 is first.",
    "representation_health.reasons": "Measure -> why it is NULL, as JSON.",
    "representation_health.rows": "Rows of the sample.",
    "representation_health.snapshot": "The first snapshot that has this sample.",
    "share_of_sample": "Share of all rows of the sample in that cell.",
    # Reports and comparisons.
    "change": "added, dropped or kept.",
    "change_causes.cause": "The first of the causes that holds, as docs/report.md lists them: new_row, gone, score, quota, pushed_out, ...",
    "selection_changes.cause": "Why it was added or dropped, the first of the causes in docs/report.md that holds: new_row, gone, score, quota, "
    "pushed_out, ...; NULL for a kept row, and without a report.",
    "detail": "What more there is to say of the cause: the keys that changed, the condition, the other row; NULL if nothing is.",
    "previous": "The selection before, of the last run whose checks passed.",
    "previous_rank": "Place in the selection before; NULL of a row that was added.",
    "selection_changes.rank": "Place in the selection; NULL of a row that was dropped.",
    "passed": "Recipes whose checks passed.",
    "recipes": "Recipes that were drawn.",
    "reports.line": "The verdict in a sentence.",
    "reports.rows": "Rows of the recipes that passed.",
    "reports.tokens": "Tokens of the recipes that passed and count them.",
    "state": "published; partly, something failed or was held back; or held_back, what was published before stays.",
    "comparison_id": "Hash of all that was measured.",
    "comparisons.draws": "Draws with different seeds; numbers are means over them.",
    "comparisons.encoder": "The encoder's name in winnow.yaml, whose vectors measure; NULL without vectors.",
    "comparisons.number": "Place in the table, 1 is first.",
    "comparisons.rows": "Rows of the selection.",
    "comparisons.tokens": "Tokens of the selection; NULL for a budget in rows.",
    "comparisons.seconds": "What a draw took.",
    "comparisons.selection_id": "The selection, where one draw is compared and it is on record.",
    **dict.fromkeys(
        ("mean_distance_std", "most_distance_std", "seconds_std", "similarity_std"),
        "Standard deviation over the draws; NULL of one draw.",
    ),
    "comparison_targets.examples": "How many examples judge.",
    "half": "measuring, examples that no step saw; or selecting, those that choose rows as well, which flatters.",
    "jaccard": "Rows in both, of rows in either: the mean over their draws; of an entry with itself, over different draws.",
    "mean_distance": "Mean distance of a row of the pool to the nearest chosen one: lower covers better.",
    "most_distance": "95 of 100 rows of the pool are nearer than this to a chosen one.",
    **dict.fromkeys(
        (
            f"{table}.name"
            for table in ("comparisons", "comparison_targets", "comparison_overlaps", "comparison_sources")
        ),
        "The entry: a recipe, a selection, or so many random rows.",
    ),
    "other": "The other entry, or the same.",
    "peak_memory_bytes": "The most memory of the process that last drew it.",
    "random": "Whether it is random rows to compare with, that nobody asked for.",
    "rank_biased_overlap": "How alike the lists begin, 0 to 1 (Webber et al. 2010); of at most 5 draws each.",
    "sample_rows": "Rows of the pool that coverage was measured on.",
    "share": "Share of the selection's rows: the mean over the draws.",
    "share_of_pool": "Share of the pool's rows.",
    "similarity": "Mean, over the examples, of the highest cosine to a chosen row: the mean over the draws.",
    # Trials.
    # Trials.
    "against": "The control: random, random_per_source, longest, top_score, or a recipe.",
    "trials.against": "Controls beside random, as JSON: a recipe's with the selection that it would draw.",
    "trial_records.against": "Controls beside random, as JSON: a recipe's with the selection that it would draw.",
    "trial_cells.arm": "What the model was trained on: random, random_again (other random rows, to know what chance does), selection, or a control.",
    "trial_cells.cell": "The folder of its record.",
    "detectable": "The smallest effect that is seen with power 0.8, by the spread of two random arms.",
    "effect": "The smallest effect that is seen with power 0.8, by the spread of two random arms; nats per answer token.",
    "df": "Degrees of freedom of the standard error; NULL where nothing varies.",
    "epochs": "How often a model reads the selection; above 4 repetition is worth less.",
    "estimated_seconds": "What the trial was expected to take, by timed steps.",
    "trial_effects.examples": "Examples that it was measured on.",
    "high": "Upper end of the interval of 95 %.",
    "pinned.note": "Why it was pinned; NULL if that was not said.",
    "latest_selections.trial": "Verdict of its newest trial: helped, hurt, no evidence or mixed; `not tried` if there is none.",
    "left_out": "Target set -> why -> examples that are not measured on, as JSON; the empty name is the pool's.",
    "trials.line": "The verdict in a sentence.",
    "trial_verdicts.line": "The verdict in a sentence.",
    "lora": "Whether low-rank additions were trained instead of all weights.",
    "loss": "Target set -> mean loss per answer token in nats, as JSON; the empty name is the pool's held-out rows.",
    "low": "Lower end of the interval of 95 %.",
    "lower_is_better": "Whether lower scores are better.",
    "mean": "loss(control) - loss(selection) in nats per answer token, the mean over seeds and examples: positive helps.",
    "memory_bytes": "The most memory of the process once a step was timed.",
    "results.name": "What the score is of, as the file says.",
    **{
        f"{view}.{column}": text
        for view in ("result_effects", "result_judgements")
        for column, text in {
            "name": "The score.",
            "seeds": "Seeds that both selections have.",
            "mean": "By how much the selection is better than the other, the mean over seeds.",
            "low": "Lower end of the interval of 95 %; NULL of one seed.",
            "high": "Upper end of the interval of 95 %; NULL of one seed.",
            "verdict": "helped, no evidence or hurt, adjusted for the number of scores; NULL of one seed.",
        }.items()
    },
    "other_recipe": "The recipe of the other selection.",
    "other_selection_id": "The selection that it is compared with.",
    "results.value": "The score.",
    "p": "Of no difference, two-sided.",
    "p_adjusted": "The same, adjusted by Holm for the number of target sets.",
    "parameters": "Weights of a model.",
    "part": "The folder of its record.",
    "rate": "The learning rate, chosen on the random control.",
    "result_id": "Hash of the scores.",
    "trial_cells.rows": "Rows that it was trained on.",
    "se": "Standard error of the mean, over seeds and examples.",
    "seeds": "Models of each arm.",
    "selection_tokens": "Tokens of the selection.",
    "size": "Of a model from scratch: tiny, small or large; NULL for a folder's.",
    "trials.model": "`scratch`, or the folder or name of a model.",
    "trial_records.model": "`scratch`, or the folder or name of a model.",
    "trials.targets": "Target set -> the id of its record, as JSON, of those that were measured on.",
    "trial_records.targets": "Target set -> the id of its record, as JSON, of those that were measured on.",
    "trial_detectable.target_set": "The target set that was measured on; NULL for held-out rows of the pool.",
    "trial_effects.target_set": "The target set that was measured on; NULL for held-out rows of the pool.",
    "train_loss": "Loss at the end of the training, in nats per answer token.",
    "training_tokens": "Tokens that each model was trained on.",
    "trial_id": "Hash of selection, controls, targets, model, seeds and tokens.",
    "verdict": "helped, hurt, no evidence; over several target sets also mixed; of a trial that goes on, not finished.",
    # Classifiers.
    "accuracy": "Share of the held-out examples whose top class is right; NULL if none was held out.",
    "auc": "Area under the ROC curve on the held-out examples, of each class against the rest in the mean; NULL if none was held out.",
    "class": "The class that the example stands for.",
    "classifier_examples.held_out": "Whether it measures the classifier and does not train it.",
    "classifier_examples.target_set": "The target set that it is of; NULL for a row of the pool.",
    "classifier_id": "Hash of what the classifier was fitted to and how.",
    "classifiers.classes": "The names of the classes, as JSON.",
    "classifiers.examples": "Examples that train or measure.",
    "classifiers.held_out": "Those of them that measure and do not train.",
    "classifiers.metrics": "Name -> number, as JSON: examples and recall of each class as well.",
    "classifiers.name": "Its name in winnow.yaml.",
    "classifiers.number": "Order in which the classifiers were fitted, 1 is first.",
    "classifiers.targets": "Target set -> the id of its record, as JSON, of those that it learned from.",
    "estimator": "What was fitted, with its options, as JSON.",
    "features": "What it sees of a row, as JSON.",
    "notes": "What it has to say, as a JSON list.",
    "classifiers.notes": "What the fit has to say, as a JSON list: how it was calibrated, or why not.",
}

# A column that winnow did not choose.
FIELD_COMMENT = "A field of the pool's files or of the columns brought to it, as they have it."


def column_comment(relation: str, column: str) -> str:
    """What a column means."""
    return COLUMN_COMMENTS.get(f"{relation}.{column}") or COLUMN_COMMENTS.get(column) or FIELD_COMMENT
