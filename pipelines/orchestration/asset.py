"""One Dagster asset around one stage: what all assets of a project have in common.

Assets pass handles through the store, never arrays, and each body is one call of a stage function. (No postponed
annotations in this module: Dagster reads the annotations of asset bodies.)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from pipelines.context import Context, open_context
from pipelines.errors import USER_ERRORS, HeldBack
from pipelines.progress import Log
from pipelines.runs import last_run, runs
from pipelines.stages.publish import publish
from pipelines.stages.stage import Outcome, Stage
from pipelines.terminal import printable

# For what may pass: a step that was killed, a full disk, a mount or server that is gone. About half a minute after the
# first failure, then one and a half, then three and a half; spread, so that steps do not come back together.
RETRY = dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
# Dagster runs at most so many steps of a pool at once; the instance's dagster.yaml sets how many.
GPU_POOL = "gpu"
MADE, MADE_MEANING = "made", "the stage did not fail; where it did, what it made last stays"

Show = Callable[[Context, Outcome], Mapping[str, Any]]


# A tag of the jobs: the digest of the configuration that their definitions were built from.
CONFIG_TAG = "winnow/config"
STALE = (
    "winnow.yaml has changed since Dagster read it: recipes that came since were not drawn; press Reload definitions"
)


@dataclass(frozen=True)
class Project:
    """One winnow project. It is no configurable resource: no run may choose another winnow.yaml."""

    config_path: Path

    def open(
        self,
        context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
        engine: Mapping[str, Any] | None = None,
    ) -> Context:
        """The stages' context; all steps of a Dagster run share the configuration that its first step read.

        Args:
            engine: what the run has under `engine` otherwise than that.
        """
        return open_context(self.config_path, Log(context.log.info), context.run.run_id, engine)


class EngineResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where a run does large work; what is left out is as winnow.yaml has it. The rows are the same."""

    kind: str | None = Field(default=None, description="`local` or `ray`.")
    workers: int | None = Field(default=None, description="How many processes.")
    address: str | None = Field(default=None, description="Of the Ray cluster: `host:port`, or `auto`.")
    gpus_per_worker: float | None = Field(default=None, description="Cards of each Ray worker, for work that uses one.")

    def given(self) -> dict[str, Any]:
        """What the run says."""
        return {key: value for key, value in self.model_dump().items() if value is not None}


def is_stale(run: dg.DagsterRun, opened: Context) -> bool:
    """Whether a run was started from definitions of another configuration than the one that its steps read."""
    return run.tags.get(CONFIG_TAG, opened.config.digest) != opened.config.digest


# The stage whose failure an asset waits for, and its target.
Upstream = tuple[str, str]


def stage_asset(
    stage: Stage,
    *arguments: str,
    key: Sequence[str],
    deps: Sequence[Sequence[str]] = (),
    show: Show | None = None,
    publishes: bool = True,
    may_fail: bool = False,
    after: Sequence[Upstream] = (),
    observed: Sequence[str] = (),
    **options: Any,
) -> dg.AssetsDefinition:
    """One asset around one stage, with the checks that the stage declares.

    Args:
        show: metadata beside the metrics. Where it is given, the catalog is published first, so that a later asset that
            fails does not keep what was made from SQL.
        publishes: whether it is so.
        may_fail: what depends on it goes on when it fails or is held back: its check `made`, or the one that holds it
            back, fails, and none of its checks blocks. Dagster would skip all that depends on a failed step, also the
            catalog.
        after: stages that may fail, without which this one does nothing if they did in the same run.
        observed: the key of another asset, on whose page the metrics stand as well.
    """
    asset_key = dg.AssetKey(list(key))
    checks = dict(stage.checks) | ({MADE: MADE_MEANING} if may_fail else {})

    def body(
        context: dg.AssetExecutionContext, project: dg.ResourceParam[Project], engine: EngineResource
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        opened: Context | None = None
        try:
            opened = project.open(context, engine.given())
            _require(opened, after)
            outcome = stage(opened, *arguments)
            if show is not None and publishes:
                publish(opened)
            shown = {} if show is None else show(opened, outcome)
            if observed:
                context.log_event(dg.AssetObservation(dg.AssetKey(list(observed)), metadata=_metadata(outcome)))
            return _materialized(outcome, shown, made=may_fail)
        except USER_ERRORS as error:
            if may_fail and opened is not None:
                context.log.warning(printable(str(error)))
                return _not_made(opened, stage, arguments, printable(str(error)))
            # Trying again would not mend a user's mistake, and its message says all: no traceback.
            raise dg.Failure(description=printable(str(error)), allow_retries=False) from None
        except OSError:
            raise  # what may pass, and is tried again
        except Exception as error:
            raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error  # a defect stays one

    decorate = dg.asset(
        key=asset_key,
        deps=[dg.AssetKey(list(dep)) for dep in deps],
        check_specs=[
            dg.AssetCheckSpec(name=name, asset=asset_key, blocking=not may_fail, description=meaning)
            for name, meaning in checks.items()
        ],
        owners=["team:data"],
        retry_policy=RETRY,
        **options,
    )
    definition: dg.AssetsDefinition = decorate(body)
    return definition


def failed_stages(context: Context) -> dict[Upstream, str]:
    """The stages of this run whose last execution failed or was held back, with their targets -> how it ended.

    Cost: reads the records since the run began, however many nights there were before.
    """
    last: dict[Upstream, str] = {}
    for run in runs(context.store, context.began_after):
        if run["invocation"] == context.invocation:
            last.setdefault((run["stage"], run["target"] or ""), run["status"])
    return {stage: status for stage, status in last.items() if status != "ok"}


def _require(context: Context, after: Sequence[Upstream]) -> None:
    failed = failed_stages(context) if after else {}
    for stage in after:
        if stage in failed:
            raise HeldBack(f"{' '.join(stage)}: {failed[stage].replace('_', ' ')}; what depends on it stays as it was")


def _not_made(context: Context, stage: Stage, arguments: Sequence[str], error: str) -> dg.MaterializeResult[Any]:
    """A stage that failed: what it made last stays, and so does the version of the data."""
    last = last_run(context.store, stage.name, *arguments[:1])
    failed = dg.AssetCheckResult(check_name=MADE, passed=False, metadata={"detail": error})
    skipped = [
        dg.AssetCheckResult(check_name=name, passed=False, metadata={"detail": "not made"}) for name in stage.checks
    ]
    return dg.MaterializeResult(
        metadata={"summary": f"failed, what was made before stays: {error}"},
        data_version=dg.DataVersion(last["subject"] if last else "none"),
        check_results=[failed, *skipped],
    )


def _materialized(outcome: Outcome, shown: Mapping[str, Any], *, made: bool) -> dg.MaterializeResult[Any]:
    own = [dg.AssetCheckResult(check_name=MADE, passed=True)] if made else []
    return dg.MaterializeResult(
        metadata={**_metadata(outcome), **shown},
        data_version=dg.DataVersion(outcome.subject),
        check_results=own
        + [
            dg.AssetCheckResult(
                check_name=check.name,
                passed=check.passed,
                severity=dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN,
                metadata={"detail": check.detail},
            )
            for check in outcome.checks
        ],
    )


def _metadata(outcome: Outcome) -> dict[str, Any]:
    metrics = {name: value for name, value in outcome.metrics.items() if value is not None}
    held_back = "; ".join(f"{check.name}: {check.detail}" for check in outcome.failed_checks)
    prefix = f"held back, what was made before stays ({held_back}): " if held_back else ""
    return {"summary": f"{prefix}{outcome.summary}", **metrics}


def as_table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Rows as a table of the UI."""
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])


def as_sql(query: str) -> dg.MarkdownMetadataValue:
    """A query to paste."""
    return dg.MetadataValue.md(f"```sql\n{query}\n```")
