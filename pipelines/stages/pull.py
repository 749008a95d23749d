"""Read the label files of a labeling project."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.config.schema import Labeling
from pipelines.context import Context
from pipelines.labeling.annotations import Annotations
from pipelines.labeling.project import project_settings, project_state
from pipelines.messages import counted
from pipelines.stages.stage import Check, Outcome, stage
from storage.errors import NothingMatches
from storage.files.user_files import expand
from storage.labels.log import import_labels


def label_files(project: Labeling, root: Path) -> list[str]:
    """The files of labels that there are now; none where the first are still to come."""
    files: list[str] = []
    for pattern in project.labels:
        with suppress(NothingMatches):
            files += expand([pattern], root)
    return files


@stage(
    "pull",
    checks={
        "labels_usable": "every label of the files could be used",
        "classes_known": "no label is of a class that the project no longer has",
        "annotators_known": "each annotator has one name, and is named where files differ",
        "annotators_comparable": "Dawid-Skene has more than two people to compare",
    },
)
def pull(context: Context, project: str, *files: str) -> Outcome:
    """Read the label files of a project, and any others given; what is known already changes nothing.

    Args:
        files: paths, globs or URLs beside those of the configuration, relative to the working directory.
    """
    settings = project_settings(context, project)
    snapshot = context.pool.snapshot
    urls = [url for file in files for url in expand([file], Path.cwd())] + label_files(settings, context.config.root)
    read = partial(import_labels, context.store, project, classes=settings.classes, snapshot=snapshot)
    imports = [read(settings.gold, gold=True)] if settings.gold is not None else []
    for url in dict.fromkeys(urls):
        imports.append(read(url, fields=settings.fields or None))
        context.report.progress(f"read labels of {project}", len(imports), None, "files")
    new, known, bad = (sum(getattr(done, key) for done in imports) for key in ("new", "known", "quarantined"))
    new_gold = sum(done.new for done in imports if done.gold)
    state = project_state(context, project)
    comparable = _annotators_comparable(settings, state.annotations)
    unknown_classes = state.annotations.unknown_classes
    tied = int((state.annotations.tied & state.annotations.adjudicated).sum())
    unusable = f"{bad:,} labels of {sum(done.quarantined > 0 for done in imports)} files could not be used"
    no_class = f"{unknown_classes:,} labels are of classes that the project no longer has"
    return Outcome(
        subject=state.annotations.digest,
        metrics={
            "files": len(imports),
            "new_labels": new,
            "known_labels": known,
            "quarantined": bad,
            "labelled": state.labelled,
            "annotators": len(state.annotations.annotators),
            "agreement": state.annotations.agreement,
            "adjudicator": settings.adjudicator,
            "price_per_label": settings.budget.per_row if settings.budget else None,
            "settled": int(state.annotations.settled.sum()),
        },
        summary=f"{counted(new, 'new label')} from {counted(len(imports), 'file')} ({known:,} were known"
        + (f", {new_gold:,} are answers of gold rows" if new_gold else "")
        + (f", {bad:,} could not be used: `label_quarantine` says why" if bad else "")
        + (f", {unknown_classes:,} are of classes that the project no longer has" if unknown_classes else "")
        + f"); {counted(state.labelled, 'labelled row')}"
        + (f", {counted(tied, 'row')} with tied votes wait{_for_whom(settings)}" if tied else "")
        + "".join(f"; {line}" for line in state.of_others)
        + ("" if comparable.passed else f"; warning: {comparable.detail}"),
        checks=(
            Check("labels_usable", bad == 0, unusable, blocking=False),
            Check("classes_known", unknown_classes == 0, no_class, blocking=False),
            _annotators_known(state.annotations),
            comparable,
        ),
    )


def _for_whom(settings: Labeling) -> str:
    if settings.adjudicator is None:
        return ": `adjudication` lists them"
    return f" for {settings.adjudicator}: `winnow labels adjudicate` writes them to a file"


def _annotators_comparable(settings: Labeling, annotations: Annotations) -> Check:
    """Of two people who differ, no statistics of their votes can tell who is right; a third one or a person decides."""
    name, passes = "annotators_comparable", Check("annotators_comparable", True, "they are", blocking=False)
    if settings.aggregate == "majority" or "ties" in _options(settings.aggregate) or settings.adjudicator is not None:
        return passes
    if 2 not in (len(settings.annotators), annotations.voters_on_shared_rows):
        return passes
    cause = (
        "Dawid-Skene cannot tell which of two annotators is right where they differ. With `aggregate: majority`, or "
        "`{dawid_skene: {ties: wait}}`, such rows wait for a third person or an `adjudicator`"
    )
    return Check(name, False, cause, blocking=False)


def _options(aggregate: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {} if isinstance(aggregate, str) else aggregate["dawid_skene"]


def _annotators_known(annotations: Annotations) -> Check:
    said = [f"{', '.join(map(repr, names))} may be one person" for names in annotations.spellings]
    if annotations.unnamed_conflicts:
        said.append(
            f"{counted(annotations.unnamed_conflicts, 'row')} have different labels from several files that name no "
            "annotator, of which the last counts; name them in the files, or by `fields: {annotator: ...}`"
        )
    return Check("annotators_known", not said, "; ".join(said) or "all are", blocking=False)
