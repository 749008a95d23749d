"""One Dagster asset around one stage: what all assets of a project have in common.

Assets pass handles through the store, never arrays, and each body is one call of a stage function. (No postponed
annotations in this module: Dagster reads the annotations of asset bodies.)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from pipelines.context import Context, open_context
from pipelines.errors import USER_ERRORS
from pipelines.progress import Log
from pipelines.stages.publish import publish
from pipelines.stages.stage import Outcome, Stage
from pipelines.terminal import printable

RETRIES, RETRY_AFTER_S = 2, 30
# Dagster runs at most so many steps of a pool at once; the instance's dagster.yaml sets how many.
GPU_POOL = "gpu"

Show = Callable[[Context, Outcome], Mapping[str, Any]]


@dataclass(frozen=True)
class Project:
    """One winnow project. It is no configurable resource: no run may choose another winnow.yaml."""

    config_path: Path

    def open(self, context: dg.AssetExecutionContext) -> Context:
        """The stages' context; all steps of a Dagster run share the configuration that its first step read."""
        return open_context(self.config_path, Log(context.log.info), invocation=context.run.run_id)


def stage_asset(
    stage: Stage,
    *arguments: str,
    key: Sequence[str],
    deps: Sequence[Sequence[str]] = (),
    show: Show | None = None,
    publishes: bool = True,
    **options: Any,
) -> dg.AssetsDefinition:
    """One asset around one stage, with the checks that the stage declares.

    Args:
        show: metadata beside the metrics. Where it is given, the catalog is published first, so that a later asset that
            fails does not keep what was made from SQL.
        publishes: whether it is so.
    """
    asset_key = dg.AssetKey(list(key))

    def body(context: dg.AssetExecutionContext, project: dg.ResourceParam[Project]) -> dg.MaterializeResult:  # type: ignore[type-arg]
        try:
            opened = project.open(context)
            outcome = stage(opened, *arguments)
            if show is None:
                return _materialized(outcome, {})
            if publishes:
                publish(opened)
            return _materialized(outcome, show(opened, outcome))
        except USER_ERRORS as error:
            # Trying again would not mend a user's mistake, and its message says all: no traceback.
            raise dg.Failure(description=printable(str(error)), allow_retries=False) from None
        except OSError as error:
            # What may fail for a while and then work: a full disk, a network mount that is gone.
            raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=RETRY_AFTER_S) from error

    decorate = dg.asset(
        key=asset_key,
        deps=[dg.AssetKey(list(dep)) for dep in deps],
        check_specs=[
            dg.AssetCheckSpec(name=name, asset=asset_key, blocking=True, description=meaning)
            for name, meaning in stage.checks.items()
        ],
        owners=["team:data"],
        **options,
    )
    definition: dg.AssetsDefinition = decorate(body)
    return definition


def _materialized(outcome: Outcome, shown: Mapping[str, Any]) -> dg.MaterializeResult[Any]:
    metrics = {name: value for name, value in outcome.metrics.items() if value is not None}
    return dg.MaterializeResult(
        metadata={"summary": outcome.summary, **shown, **metrics},
        data_version=dg.DataVersion(outcome.subject),
        check_results=[
            dg.AssetCheckResult(
                check_name=check.name,
                passed=check.passed,
                severity=dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN,
                metadata={"detail": check.detail},
            )
            for check in outcome.checks
        ],
    )


def as_table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Rows as a table of the UI."""
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])


def as_sql(query: str) -> dg.MarkdownMetadataValue:
    """A query to paste."""
    return dg.MetadataValue.md(f"```sql\n{query}\n```")
