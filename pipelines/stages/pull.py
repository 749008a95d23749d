"""Read the label files of a labeling project."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pipelines.config.schema import Labeling
from pipelines.context import Context
from pipelines.labeling.project import project_of, standing
from pipelines.messages import counted
from pipelines.stages.stage import Check, Outcome, stage
from storage.errors import BadInput
from storage.files.user_files import expand
from storage.labels.log import LabelImport, import_labels


def label_files(project: Labeling, root: Path) -> list[str]:
    """The files of labels that there are now; none where the first are still to come."""
    found: list[str] = []
    for pattern in project.labels:
        with suppress(BadInput):
            found += expand([pattern], root)
    return found


@stage(
    "pull",
    checks={
        "labels_usable": "every label of the files could be used",
        "classes_known": "no label is of a class that the project no longer has",
    },
)
def pull(context: Context, project: str, *files: str) -> Outcome:
    """Read the label files of a project, and any others given; what is known already changes nothing.

    Args:
        files: paths, globs or URLs beside those of the configuration, relative to the working directory.
    """
    section = project_of(context, project)
    snapshot = context.snapshot()
    urls = [url for file in files for url in expand([file], Path.cwd())] + label_files(section, context.config.root)
    done: list[LabelImport] = []
    if section.gold is not None:
        done.append(
            import_labels(context.store, project, section.gold, classes=section.classes, snapshot=snapshot, gold=True)
        )
    for url in dict.fromkeys(urls):
        done.append(
            import_labels(
                context.store, project, url, classes=section.classes, snapshot=snapshot, fields=section.fields or None
            )
        )
        context.report.progress(f"read labels of {project}", len(done), None, "files")
    new, known, bad = (sum(getattr(one, key) for one in done) for key in ("new", "known", "quarantined"))
    answers = sum(one.new for one in done if one.gold)
    at = standing(context, project)
    strange = at.answers.strange
    return Outcome(
        subject=at.answers.digest,
        metrics={
            "files": len(done),
            "new_labels": new,
            "known_labels": known,
            "quarantined": bad,
            "labelled": at.labelled,
            "annotators": len(at.answers.annotators),
            "agreement": at.answers.agreement,
        },
        summary=f"{counted(new, 'new label')} from {counted(len(done), 'file')} ({known:,} were known"
        + (f", {answers:,} are answers of gold rows" if answers else "")
        + (f", {bad:,} could not be used: `label_quarantine` says why" if bad else "")
        + (f", {strange:,} are of classes that the project no longer has" if strange else "")
        + f"); {at.labelled:,} rows are labelled",
        checks=(
            Check(
                "labels_usable",
                bad == 0,
                f"{bad:,} labels of {len([one for one in done if one.quarantined])} files could not be used",
                blocking=False,
            ),
            Check(
                "classes_known",
                strange == 0,
                f"{strange:,} labels are of classes that the project no longer has",
                blocking=False,
            ),
        ),
    )
