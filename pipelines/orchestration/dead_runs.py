"""Ends the runs whose process is gone, so that the nights after a power cut are not kept waiting.

Dagster's web server notices when the process of a run dies, but not after it died itself: the run then counts as
started for ever, among the runs that may go on at once, and keeps its place in the pools. Nor does Dagster by default
give back the place of a run whose process was killed. (No postponed annotations in this module: Dagster reads those of
sensor bodies.)
"""

import os
import time
from pathlib import Path

import dagster as dg

# Clocks may be put forward by so much while a run goes on.
CLOCK_STEP_S = 60
GONE = "the process of this run is gone: it was killed, or the machine went down"


def dead_runs_sensor() -> dg.SensorDefinition:
    """Ends runs whose process is gone, and gives back their places in the pools."""

    @dg.sensor(
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends runs whose process is gone, so that nothing waits for them. Starts no run.",
    )
    def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        ended = end_dead_runs(context.instance)
        return dg.SkipReason(f"ended {', '.join(ended)}" if ended else "every run that goes on has its process")

    return dead_runs


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs whose process is gone as failed, and free what runs that ended hold of pools; gives the ids of the dead."""
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    lost = [run.run_id for run in instance.get_runs(started) if not _goes_on(instance, run.run_id)]
    dead = [run for run in instance.get_runs(started) if run.run_id in lost]  # the others have just ended by themselves
    for run in dead:
        instance.report_run_failed(run, GONE)
    for run_id in instance.event_log_storage.get_concurrency_run_ids():
        waiting = instance.get_run_by_id(run_id)
        if waiting is None or waiting.is_finished:
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return [run.run_id for run in dead]


def _goes_on(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the process that a run named last is there; True while it has named none."""
    for entry in reversed(instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)):
        named = entry.get_dagster_event().engine_event_data.metadata.get("pid")
        if named is not None:
            return is_alive(int(str(named.value)), entry.timestamp)
    return True


def is_alive(pid: int, when: float) -> bool:
    """Whether a process goes on that had this id at a time (seconds since 1970); not another one that has it now."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # or somebody else's by now
        return False
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(") ")[2].split()
    except OSError:
        return not Path("/proc/self").exists()  # without it, the id has to do
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    started = booted + int(status[19]) / os.sysconf("SC_CLK_TCK")
    return status[0] != "Z" and started <= when + CLOCK_STEP_S
