"""The `winnow` command: a function for each subcommand, which parses its arguments and prints the result.

What a user can mend ends in a message and an exit code (`pipelines.cli.exit_codes`), never in a traceback.
"""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.cli.exit_codes import DEFECT, EXIT_CODES, INTERRUPTED, REFUSED, exit_code
from pipelines.cli.options import color_system, plain_help, shared_first
from pipelines.progress import Terminal
from pipelines.terminal import printable, standard_output

app = typer.Typer(
    name="winnow",
    help="Choose what to train on and what to label next, from pools of millions of candidates.",
    epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
catalog_app = typer.Typer(help="The DuckDB file over all that was committed.", no_args_is_help=True)
app.add_typer(catalog_app, name="catalog")
labels_app = typer.Typer(help="What to label next: batches out, labels in.", no_args_is_help=True)
app.add_typer(labels_app, name="labels")

result_app = typer.Typer(help="Scores of models that you trained on selections elsewhere.", no_args_is_help=True)
app.add_typer(result_app, name="result")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="winnow.yaml, or its folder; else the nearest one upwards from here."),
]

_shown = {"quiet": False, "verbose": False}  # what of a stage's messages goes to the terminal

MAX_ROWS, MAX_CELL_WIDTH = 200, 80
# A column narrower than this is hard to read; a width for what reads the output of a pipe.
READABLE_WIDTH, PIPED_WIDTH = 24, 160


def main() -> None:
    """Run the command; turn a user's mistake, and what the disk refuses, into its message."""
    try:
        plain_help()
        app(shared_first(sys.argv[1:]), prog_name="winnow")
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # typer turns KeyboardInterrupt into it
            _say("stopped; what was committed stays, and the next run goes on from there")
        raise
    except Exception as error:  # noqa: BLE001 - shown, and ends the command
        _end_with(error)


def _end_with(error: Exception) -> NoReturn:
    from pipelines.errors import USER_ERRORS  # loads numpy, which `winnow --help` does without

    if isinstance(error, USER_ERRORS):
        _fail(str(error), exit_code(error))
    if isinstance(error, MemoryError):
        _fail("not enough memory; what was committed stays. `winnow plan` says what a run needs", REFUSED)
    if isinstance(error, OSError):
        named = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        _fail(named, exit_code(error))
    _report_defect()


def _print_version(wanted: bool) -> None:
    if wanted:
        from pipelines.runs import code_version

        _print(f"winnow {code_version()}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[  # noqa: ARG001 - its callback ends the command
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show results, warnings and errors only; also behind a command.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show time, memory and checks of each stage; also behind a command.")
    ] = False,
) -> None:
    """Hold the options of all commands."""
    if quiet and verbose:
        raise typer.BadParameter("choose one of --quiet and --verbose")
    _shown.update(quiet=quiet, verbose=verbose)


@app.command()
def init(
    data: Annotated[list[str], typer.Argument(help="Files, globs or folders of candidates.")],
    target: Annotated[list[str] | None, typer.Option("--target", "-t", help="Files of examples to match.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write.")] = Path("winnow.yaml"),
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented winnow.yaml from your data, and say what was guessed."""
    from pipelines.config.init import write_config

    for finding in write_config(output, data, target or [], force=force):
        _print(finding)
    _print(f"\nwrote {output}; look it over, then: winnow run")


@app.command()
def run(
    recipes: Annotated[list[str] | None, typer.Argument(help="Recipes to draw; all of them if left out.")] = None,
    config: ConfigOption = None,
    reread: Annotated[
        bool,
        typer.Option("--reread", help="Read files again that an earlier winnow read otherwise: see `winnow check`."),
    ] = False,
) -> None:
    """Do all that is new: ingest, embed, index, select, publish. Killed and run again, it goes on where it was."""
    from pipelines.run import run_and_report

    context = replace(_context(config), reread=reread)
    outcomes = run_and_report(context, recipes)
    for outcome in outcomes:
        _show_selection(context, outcome.subject)
    if outcomes:
        named = (recipes or list(context.config.recipes))[0]
        name = context.config.members(named)[0]
        query = f"SELECT rank, source, prompt, ref, value FROM selection('{name}') LIMIT 20"  # noqa: S608 - to paste
        _print(f'ask in SQL:  winnow sql "{query}"')


@app.command()
def check(
    config: ConfigOption = None,
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Compare every file of the store with its checksum.")] = False,
) -> None:
    """Say what of the store is not as it should be, and what this version would read otherwise; nothing is changed."""
    from pipelines.check import DAMAGED, check_lines
    from pipelines.errors import HeldBack
    from pipelines.messages import counted

    damaged = 0
    for line in check_lines(_context(config), deep=deep):
        _print(line)
        damaged += line.startswith(DAMAGED)
    if damaged:
        raise HeldBack(f"the store is damaged: {counted(damaged, 'line')} above, which begin with {DAMAGED.strip()!r}")


@app.command()
def plan(
    config: ConfigOption = None,
    *,
    probe: Annotated[
        bool,
        typer.Option(
            help="Try an encoder that has encoded nothing yet on a few rows, to know its rate; loads its model."
        ),
    ] = True,
    rows: Annotated[
        str | None, typer.Option("--rows", help="Project a first run on a pool of another size: 1e9, 10M, 1_000_000.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="With --rows: processes of a core each.")] = 1,
    gpu: Annotated[str | None, typer.Option("--gpu", help="With --rows: the card of each worker, as h100.")] = None,
) -> None:
    """Say what `winnow run` would do, without doing it: work, time, memory and disk."""
    from pipelines.plan import plan_with_costs
    from pipelines.projection import project

    context = _context(config)
    if rows is None and (workers > 1 or gpu is not None):
        raise typer.BadParameter("--workers and --gpu go with --rows: the size that is projected")
    lines = plan_with_costs(context, probe=probe) if rows is None else project(context, rows, workers, gpu, probe=probe)
    for line in lines:
        _print(line)


@app.command()
def status(
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many stages to show.")] = 15,
) -> None:
    """Show the last stages that ran and how they ended."""
    from itertools import islice

    from pipelines.runs import runs

    rows = [
        {
            "when": run["started_at"],
            "stage": " ".join(filter(None, (run["stage"], run["target"]))),
            "status": run["status"],
            "seconds": run["seconds"],
            "what": run["summary"] or run["error"],
        }
        for run in islice(runs(_store(config)), limit)
    ]
    _print_table(rows)


@app.command()
def failures(config: ConfigOption = None) -> None:
    """Show every stage that failed, was held back or warned, with its cause."""
    from pipelines.runs import causes, failed_runs

    lines = 0
    for run, since in failed_runs(_store(config)):
        mended = f"; it succeeded since, on {since}" if since else ""
        status = "warned" if run["status"] == "ok" else run["status"]
        _print(f"{run['started_at']}  {run['stage']} {run['target'] or ''} {status}{mended}")
        for cause in causes(run):
            _print(f"    {cause}")
        lines += 1
    if not lines:
        _print("no failures")


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SQL statement; `SHOW TABLES` lists what there is.")],
    config: ConfigOption = None,
    *,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="Write Parquet to this file.")] = None,
    spreadsheet: Annotated[
        bool,
        typer.Option(
            "--spreadsheet", help="With --csv: put ' before texts that a spreadsheet would take for formulas."
        ),
    ] = False,
) -> None:
    """Ask the catalog. Works while a run writes."""
    from storage.catalog.query import query_catalog

    if csv + json + (parquet is not None) > 1:
        raise typer.BadParameter("choose one of --csv, --json and --parquet")
    if spreadsheet and not csv:
        raise typer.BadParameter("--spreadsheet goes with --csv")
    table = query_catalog(_store(config), query)
    if not (csv or json or parquet):
        _print_result(table.slice(0, MAX_ROWS).to_pylist(), list(dict.fromkeys(table.column_names)))
        if table.num_rows > MAX_ROWS:
            _print(f"{MAX_ROWS:,} of {table.num_rows:,} rows; --csv, --json or --parquet give all")
        return
    from pipelines.cli.output import write_csv, write_json_lines, write_parquet

    if parquet is not None:
        write_parquet(table, parquet)
        _print(f"{table.num_rows:,} rows written to {parquet}")
    elif csv:
        write_csv(table, standard_output(), spreadsheet=spreadsheet)
    else:
        write_json_lines(table, standard_output())


@app.command()
def diff(
    a: Annotated[
        str,
        typer.Argument(help="A recipe (its last selection), RECIPE~1 (the one before), or how a selection id begins."),
    ],
    b: Annotated[
        str | None, typer.Argument(help="Another; if left out, the recipe's last selection beside its last but one.")
    ] = None,
    config: ConfigOption = None,
    *,
    rows: Annotated[bool, typer.Option("--rows", help="Say of each row that came or left why.")] = False,
    noise: Annotated[
        bool, typer.Option("--noise", help="Draw again with another seed, to say how much of a change is chance.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what changed between two selections."""
    from pipelines.cli.output import json_text
    from pipelines.diff import diff as difference_of
    from pipelines.diff import diff_tables, noise_of, row_changes

    difference = difference_of(_store(config), a, b)
    if rows or noise:
        context = _context(config)
        difference |= {"rows": row_changes(context, difference)} if rows else {}
        difference |= {"noise_floor": noise_of(context, difference)} if noise else {}
    if json:
        standard_output().write(json_text(difference) + "\n")
    else:
        _print_titled(diff_tables(difference))


@app.command()
def compare(
    selections: Annotated[
        list[str], typer.Argument(help="Recipes (a sweep stands for all of its recipes), RECIPE~1, or selection ids.")
    ],
    config: ConfigOption = None,
    *,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, max=100, help="Draw each recipe now with so many seeds; nothing is stored."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Whose vectors measure; those of the first recipe if left out.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Write compare.html and compare.json here.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the numbers in the store, for `comparisons` in SQL.")
    ] = False,
) -> None:
    """Put selections beside each other and beside random rows: overlap, coverage, similarity to targets, mix, time."""
    from pipelines.cli.output import json_text
    from pipelines.compare.compare import compare as document_of
    from pipelines.compare.page import write_comparison
    from pipelines.compare.record import record_comparison
    from pipelines.compare.tables import compare_tables

    context = _context(config)
    document = document_of(context, selections, seeds=seeds, encoder=encoder)
    if out_folder is not None:
        _say(f"written to {write_comparison(document, out_folder)}")
    if record:
        _say(f"kept for SQL: comparisons, comparison_id {record_comparison(context.store, document)}")
    if json:
        standard_output().write(json_text(document) + "\n")
    else:
        _print_titled(compare_tables(document))


@app.command()
def trial(
    selection: Annotated[str, typer.Argument(help="A recipe (its last selection), RECIPE~1, or a selection id.")],
    config: ConfigOption = None,
    *,
    seeds: Annotated[int | None, typer.Option("--seeds", min=3, help="Models of each arm.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Tokens that each model is trained on.")] = None,
    size: Annotated[
        Literal["tiny", "small", "large"] | None, typer.Option("--size", help="Of a model from scratch.")
    ] = None,
    limit_minutes: Annotated[
        float | None, typer.Option("--limit-minutes", min=0.01, help="Refuse a trial that takes longer.")
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what it would cost, and end.")] = False,
) -> None:
    """Say whether a selection helped: small models are trained on it and on random rows. Killed, it goes on."""
    from pipelines.run import run_trial
    from pipelines.trials.trial import effect_rows, set_options
    from pipelines.trials.trial import estimate as estimate_lines

    given = {"seeds": seeds, "tokens": tokens, "size": size, "limit_minutes": limit_minutes}
    context = set_options(_context(config), {key: value for key, value in given.items() if value is not None})
    if estimate:
        for line in estimate_lines(context, selection):
            _print(line)
        return
    document = run_trial(context, selection)
    _print_table(effect_rows(document))
    _print(document["line"], style="bold")


@app.command()
def why(
    row: Annotated[
        str, typer.Argument(metavar="ID", help="Winnow's id of a row, its beginning, your own id, or FILE:LINE.")
    ],
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="A recipe or a selection id; every drawn recipe if left out.")
    ] = None,
    config: ConfigOption = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Say why a row was chosen, or the first rule that kept it out."""
    from dataclasses import asdict

    from pipelines.cli.output import json_text
    from pipelines.why import why as explain_row

    for answer in explain_row(_context(config), row, recipe):
        if json:
            standard_output().write(json_text(asdict(answer)) + "\n")
        else:
            for line in answer.lines():
                _print(line)


@app.command()
def report(
    run: Annotated[
        str, typer.Argument(help="The run, by its invocation in `runs`; the last one if left out.")
    ] = "latest",
    config: ConfigOption = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Copy report.html, report.json and changes.parquet to this folder.")
    ] = None,
) -> None:
    """Write the report of a run, unless it is there: what was chosen, what changed and why, as a page and as JSON."""
    from pipelines.report.write import copy_report, make_report, page_of, read_document

    context = _context(config)
    folder = make_report(context, run)
    page = copy_report(context.store, folder, out_folder) if out_folder else page_of(context.store, folder)
    _print(read_document(folder)["verdict"]["line"])
    _print(str(page.absolute()))


@app.command()
def explore(
    selection: Annotated[str, typer.Argument(help="A recipe (its last selection), or a selection id.")],
    config: ConfigOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file; RECIPE.explore.parquet if left out.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Rows of the pool beside the selected ones.")] = 20_000,
    *,
    start: Annotated[bool, typer.Option(help="Open it in embedding-atlas, where that is installed.")] = True,
) -> None:
    """Write a selection, its targets and a sample of the pool as a map that embedding-atlas shows, and open it."""
    from pipelines.explore import explore as write_table

    table = write_table(_context(config), selection, out or Path(f"{selection}.explore.parquet"), rows=rows)
    counts = ", ".join(f"{count:,} {what}" for what, count in table.rows.items())
    _print(f"{table.path}: {counts}")
    program = table.program if start else None
    if program is not None:
        raise typer.Exit(subprocess.run([program, *table.command[1:]], check=False).returncode)  # noqa: S603
    _print(f"open it:  {shlex.join(table.command)}")
    _print("embedding-atlas is in the extra `explore`:  pip install 'winnow-pool[explore]'")


@app.command()
def reproduce(selection: Annotated[str, typer.Argument(help="A selection id.")], config: ConfigOption = None) -> None:
    """Draw a recorded selection again from its record and compare it, row by row."""
    from pipelines.reproduce import reproduce as draw_again

    _print(draw_again(_context(config), selection))


@app.command()
def pin(
    selection: Annotated[str, typer.Argument(help="A recipe (its last selection), RECIPE~1, or a selection id.")],
    config: ConfigOption = None,
    note: Annotated[str, typer.Option("--note", help="Why; shown in SQL.")] = "",
) -> None:
    """Keep a selection, and what it needs, whatever `winnow gc` removes; `pinned` in SQL lists them."""
    from pipelines.stages.publish import publish
    from pipelines.upkeep.pins import pin as pin_selection

    context = _context(config)
    _print(f"pinned {pin_selection(context, selection, note)}")
    publish(context)


@app.command()
def unpin(
    selection: Annotated[str, typer.Argument(help="A recipe (its last selection), RECIPE~1, or a selection id.")],
    config: ConfigOption = None,
) -> None:
    """Take the pin from a selection: from now on it stays as long as any other."""
    from pipelines.stages.publish import publish
    from pipelines.upkeep.pins import unpin as unpin_selection

    context = _context(config)
    unpinned = unpin_selection(context, selection)
    _print(f"unpinned {unpinned}" if unpinned else f"{selection} is not pinned")
    publish(context)


@app.command()
def rollback(
    recipe: Annotated[str, typer.Argument(help="The recipe of which a bad selection was published.")],
    selection: Annotated[
        str | None,
        typer.Argument(help="RECIPE~1 or a selection id; the one before the present one if left out."),
    ] = None,
    config: ConfigOption = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the run.")] = "",
) -> None:
    """Make an earlier selection of a recipe its latest again, in SQL and in its exports.

    Nothing is drawn and nothing is lost: the bad selection stays on record. The next run that passes its checks
    publishes what it draws, and from the same pool and recipe that is the bad selection again: mend the recipe or the
    data first, or switch the schedule off. An export made by hand is not written again.
    """
    from pipelines.upkeep.rollback import roll_back

    _print(roll_back(_context(config), recipe, selection, reason).summary)


@app.command()
def gc(
    config: ConfigOption = None,
    keep_nights: Annotated[
        int, typer.Option("--keep-nights", min=0, help="What is not older than so many days stays.")
    ] = 30,
    *,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; else it is only listed.")] = False,
) -> None:
    """List what of the store is old and needed by nothing, and why the rest stays; with --delete, remove it.

    What is pinned, exported, the latest of its recipe, compared or tried stays, labels and rounds of labeling too, with
    all that is needed to draw them again. The history in `runs` stays. Killed, it goes on when it is run again.
    """
    from pipelines.upkeep.garbage import collect

    cleaning = collect(_context(config), keep_nights, delete=delete)
    _print_titled([("stays", cleaning.kept), ("goes" if not delete else "went", cleaning.removed)])
    _print(cleaning.summary, style="bold")


@app.command()
def forget(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Winnow's ids, or your own: of all rows that ever had one of them.")
    ] = None,
    config: ConfigOption = None,
    where: Annotated[
        str | None, typer.Option("--where", help="All rows of the pool as it is now that satisfy this, as in a recipe.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--from", help="A file of further ids, one a line.")] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else it is only said what would be done.")] = False,
) -> None:
    """Remove rows from everything in the store, for good, and prove it by a search of all its files.

    Text, vectors, labels, and every record that holds or quotes a row; exports and batches that winnow wrote. Your own
    files are named by file and line, and not edited: a row that comes in from one again is refused. Killed, `winnow
    forget --yes` ends it.
    """
    from pipelines.upkeep.forget import cut_off, request
    from pipelines.upkeep.forget import forget as forget_rows

    context = _context(config)
    goes_on = cut_off(context.store)
    wanted = None if goes_on else request(context, ids or [], where, file)
    for line in wanted.lines() if wanted else ["a `winnow forget` was cut off; it has to end before another begins"]:
        _print(line)
    if not yes:
        _print("nothing was changed. To forget them, which nothing undoes: the same command with --yes", style="bold")
        return
    for line in forget_rows(context, wanted).lines():
        _print(line)


@app.command()
def export(
    out_folder: Annotated[str, typer.Option("--out", "-o", help="The folder to write, or its URL.")],
    selection: Annotated[str | None, typer.Argument(help="A recipe (its last selection), or a selection id.")] = None,
    config: ConfigOption = None,
    to: Annotated[str, typer.Option("--to", help="The shape of the records: see docs/exports.md.")] = "messages",
    trainer: Annotated[
        str | None, typer.Option("--for", help="Write the file that this trainer wants beside the data.")
    ] = None,
    columns: Annotated[str, typer.Option("--columns", help="Further fields, as a,b.")] = "",
    shuffle: Annotated[int | None, typer.Option("--shuffle", help="Seed of the order; rank order if left out.")] = None,
    shards: Annotated[int, typer.Option("--shards", help="How many data files.")] = 1,
    allow_left_out: Annotated[
        float, typer.Option("--allow-left-out", help="Share of rows that the shape need not hold.")
    ] = 0.0,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Instead: the labelled rows of this labeling project.")
    ] = None,
    predictions: Annotated[
        str | None,
        typer.Option("--predictions", help="Instead: what this project's model says of every row; the model."),
    ] = None,
) -> None:
    """Write a selection as files for a trainer: whole conversations, in rank order, with a card."""
    from pipelines.exports.export import export_selection
    from pipelines.exports.labels import export_labels, export_predictions
    from pipelines.exports.options import ExportOptions
    from pipelines.stages.export import record_export

    if sum(name is not None for name in (selection, labels, predictions)) != 1:
        raise typer.BadParameter("name a recipe or a selection id; or --labels PROJECT; or --predictions PROJECT")
    context = _context(config)
    if labels is not None:
        _print(export_labels(context, labels, out_folder))
        record_export(context, out_folder)
        return
    if predictions is not None:
        _print(export_predictions(context, predictions, out_folder))
        record_export(context, out_folder)
        return
    assert selection is not None
    options = ExportOptions(
        to=to,
        trainer=trainer,
        columns=tuple(filter(None, (name.strip() for name in columns.split(",")))),
        shuffle=shuffle,
        shards=shards,
        allow_left_out=allow_left_out,
    )
    report = export_selection(context, selection, options, out_folder)
    _print(report.summary)
    record_export(context, out_folder, report.selection)


@labels_app.command("push")
def labels_push(
    project: Annotated[str | None, typer.Argument(help="The labeling project; not needed where there is one.")] = None,
    config: ConfigOption = None,
    *,
    more: Annotated[bool, typer.Option("--more", help="Draw another batch although one is still out.")] = False,
) -> None:
    """Take in what is new (pool, labels), fit the model and write the next batch to label; an open batch is written again."""
    from pipelines.cli.labels import choose_project, push_batch

    context = _context(config)
    push_batch(context, choose_project(context.config, project), more=more)


@labels_app.command("pull")
def labels_pull(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[PROJECT] [FILES]...", help="Label files beside the project's own.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Take in labels and fit the model to them. The same file twice changes nothing."""
    from pipelines.cli.labels import pull_labels, split_arguments

    context = _context(config)
    pull_labels(context, *split_arguments(context.config, arguments or []))


@labels_app.command("adjudicate")
def labels_adjudicate(
    project: Annotated[str | None, typer.Argument(help="The labeling project; not needed where there is one.")] = None,
    config: ConfigOption = None,
) -> None:
    """Take in labels and write the rows whose votes are tied to a file for the project's adjudicator."""
    from pipelines.cli.labels import adjudicate, choose_project

    context = _context(config)
    _print(adjudicate(context, choose_project(context.config, project)))


@labels_app.command("status")
def labels_status(
    project: Annotated[str | None, typer.Argument(help="The labeling project; not needed where there is one.")] = None,
    config: ConfigOption = None,
) -> None:
    """Show a project's rounds, labels, annotators, cost, and whether it may be time to stop."""
    from pipelines.cli.labels import choose_project, status_tables

    context = _context(config)
    _print_titled(status_tables(context, choose_project(context.config, project)))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where the demo project lives.")] = Path("demo"),
    rows: Annotated[int, typer.Option("--rows", min=200, help="How many candidates to harvest.")] = 1500,
    pool: Annotated[Path | None, typer.Option("--pool", help="Your own file of candidates instead.")] = None,
    *,
    trial: Annotated[
        bool, typer.Option("--trial", help="End with a trial: did the subset help? Some minutes.")
    ] = False,
) -> None:
    """Run the main job on a real pool harvested from this Python installation; offline, in about a minute."""
    from pipelines.demo.demo import run_demo

    run_demo(folder, rows, pool, _terminal(), show=_show_selection, say=_print, trial=trial)


@app.command()
def ui(
    config: ConfigOption = None,
    port: Annotated[int, typer.Option("--port", help="Where to serve.")] = 3000,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Another name by which browsers know this server.")
    ] = None,
) -> None:
    """Open the Dagster UI on this project, with its history kept in .winnow/dagster beside winnow.yaml."""
    from pipelines.cli.ui import serve

    serve(config, host, port, name or ())


@result_app.command("add")
def result_add(
    selection: Annotated[str, typer.Argument(help="A recipe (its last selection), RECIPE~1, or a selection id.")],
    file: Annotated[Path, typer.Argument(help='JSON: {"seed": 1, "mmlu": 0.61}, or a list of such, or one a line.')],
    config: ConfigOption = None,
    lower: Annotated[str, typer.Option("--lower", help="Scores of which lower ones are better, as loss,ppl.")] = "",
) -> None:
    """Keep scores of models trained on a selection, and judge it against others with scores of the same seeds."""
    from pipelines.stages.publish import publish
    from pipelines.trials.results import add_result

    context = _context(config)
    names = tuple(filter(None, (name.strip() for name in lower.split(","))))
    lines = add_result(context, selection, file, names)
    publish(context)
    for line in lines:
        _print(line)


@catalog_app.command("rebuild")
def catalog_rebuild(config: ConfigOption = None) -> None:
    """Build the catalog anew from the committed records, for example after the store was moved."""
    from storage.catalog.publish import rebuild_catalog

    _print(f"rebuilt {rebuild_catalog(_store(config))}")


def _print(line: str, style: str | None = None) -> None:
    """Print a line on stdout."""
    _console(soft_wrap=True).print(printable(line), style=style, markup=False)


def _fail(message: str, code: int) -> NoReturn:
    _say(message)
    sys.exit(code)


def _report_defect() -> NoReturn:
    """End with the traceback of an error that no user made."""
    from pipelines.runs import code_version

    print(printable(traceback.format_exc()), file=sys.stderr)
    _say(
        "this is a defect of winnow, not a mistake of yours; what was committed stays. Please report the lines above"
        f" with this one: winnow {code_version()}, Python {platform.python_version()}, {platform.platform()}"
    )
    sys.exit(DEFECT)


def _console(**options: Any) -> Console:
    return Console(highlight=False, color_system=color_system(), **options)


def _terminal() -> Terminal:
    return Terminal(quiet=_shown["quiet"], verbose=_shown["verbose"])


def _say(message: str) -> None:
    """Print a line on stderr, over a progress line that may be half drawn."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{clear}winnow: {printable(message)}", file=sys.stderr)


def _context(config: Path | None) -> Any:
    from pipelines.config.locate import find_config
    from pipelines.context import open_context

    return open_context(find_config(config), _terminal())


def _store(config: Path | None) -> Any:
    """The store alone: a query needs no valid recipes, only the folder."""
    from pipelines.config.locate import find_store
    from storage.format import check_format
    from storage.store import Store

    store = Store(find_store(config))
    check_format(store)
    return store


def _show_selection(context: Any, selection_id: str) -> None:
    from pipelines.recipes.explain import explain

    explained = explain(context, selection_id)
    header = explained.header
    _print(f"\n{header['recipe']}: {header['n_items']:,} rows, selection {selection_id}", style="bold")
    _print_table(explained.by_source[:6])
    _print_table(explained.first_rows[:5])


def _print_titled(tables: list[tuple[str, list[dict[str, Any]]]]) -> None:
    for title, rows in tables:
        _print(title)
        if rows:
            _print_table(rows)


def _print_result(rows: list[dict[str, Any]], columns: list[str]) -> None:
    """Rows as a table, or, where its columns would be too narrow to read, each row as a list of its values."""
    widths = [max(len(_cell(value)) for value in (column, *(row[column] for row in rows))) for column in columns]
    if sum(min(width, READABLE_WIDTH) + 2 for width in widths) <= _width():
        _print_table(rows, columns)
        return
    longest = max(map(len, columns))
    for number, row in enumerate(rows, start=1):
        _print(f"-- row {number}")
        for column in columns:
            _print(f"{_cell(column):<{longest}}  {_cell(row[column])}")


def _width() -> int:
    return _console().width if sys.stdout.isatty() else PIPED_WIDTH


def _print_table(rows: list[dict[str, Any]], columns: list[str] | None = None) -> None:
    columns = columns or (list(rows[0]) if rows else [])
    if not columns:
        _print("nothing yet")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        numeric = all(isinstance(row[column], int | float | None) for row in rows)
        table.add_column(Text(_cell(column)), justify="right" if numeric and rows else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in columns))
    _console(width=_width()).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = printable(" ".join(str(value).split()))
    return text if len(text) <= MAX_CELL_WIDTH else text[: MAX_CELL_WIDTH - 1] + "…"
