"""The `winnow` command: what it prints, and that a user's mistake is one message and an exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.cli.main import main
from storage.catalog.query import query_catalog
from storage.store import Store
from tests.conftest import row, write_rows
from tests.pipelines.conftest import Winnow, change


def refused(winnow: Winnow, *arguments: str | Path, code: int = 2) -> str:
    """The message of a command that a user's mistake ended."""
    ended = winnow(*arguments)
    assert ended.code == code
    return ended.err


def latest(project: Path, recipe: str) -> str:
    found = query_catalog(
        Store(project / "store"), "SELECT selection_id FROM latest_selections WHERE recipe = ?", [recipe]
    )
    return str(found[0][0].as_py())


class TestMistakes:
    def test_run__no_project_says_how_to_make_one(
        self, winnow: Winnow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        said = refused(winnow, "run")
        assert said.startswith(
            f"winnow: no winnow.yaml in {tmp_path} or a folder above it. `winnow init DATA` writes one"
        )

    @pytest.mark.parametrize("command", [["run"], ["plan"], ["status"], ["failures"], ["sql", "SELECT 1"], ["ui"]])
    def test_any__a_wrong_path_is_named(self, winnow: Winnow, tmp_path: Path, command: list[str]) -> None:
        assert refused(winnow, *command, "-c", tmp_path / "nowhere") == (
            f"winnow: {tmp_path}/nowhere: does not exist; `winnow init` writes one from your data\n"
        )
        assert list(tmp_path.iterdir()) == []

    def test_init__what_matches_nothing_is_named(self, winnow: Winnow, light: Path) -> None:
        for arguments in (["none-*.jsonl"], [light / "data" / "a.jsonl", "--target", "none-*.jsonl"]):
            said = refused(winnow, "init", *arguments, "-o", light / "new.yaml")
            assert said == f"winnow: nothing to read matches 'none-*.jsonl' (looked in {Path.cwd()})\n"
        assert not (light / "new.yaml").exists()

    def test_run__a_wrong_option_is_named(self, winnow: Winnow) -> None:
        assert "No such option: --budget" in refused(winnow, "run", "--budget", "3")
        assert "No such command 'rum'" in refused(winnow, "rum")

    def test_run__an_unknown_recipe_with_a_guess(self, winnow: Winnow, light: Path) -> None:
        assert refused(winnow, "run", "naer", "-c", light) == (
            "winnow: no recipe is called 'naer' (did you mean `near`?); there are: near, any\n"
        )
        assert not (light / "store").exists()

    def test_run__bad_yaml(self, winnow: Winnow, light: Path) -> None:
        change(light, "targets:\n", "targets: [\n")
        assert re.match(r"winnow: \S+/winnow.yaml:\d+: is not valid YAML, ", refused(winnow, "run", "-c", light))

    def test_run__too_many_bad_rows_publish_nothing(self, winnow: Winnow, light: Path) -> None:
        with (light / "data" / "a.jsonl").open("a") as file:
            file.write("{broken\n" * 3)
        said = refused(winnow, "run", "-c", light)
        assert "winnow: 1 of 2 files have more than 1.00% rows that cannot be read:\n" in said
        assert f"{light}/data/a.jsonl: 3 of 43 rows\n    3 x not JSON, for example line 41: {{broken\n" in said
        assert not (light / "store" / "winnow.duckdb").exists()
        assert "ingest" in winnow("failures", "-c", light).out

    def test_run__an_empty_pool(self, winnow: Winnow, light: Path) -> None:
        for name in ("a", "b"):
            (light / "data" / f"{name}.jsonl").write_text("\n")
        said = refused(winnow, "run", "-c", light)
        assert said.endswith("winnow: the pool is empty: the 2 files under `pool.files` hold no readable row\n")
        assert Store(light / "store").records("snapshots") == []
        (light / "data" / "b.jsonl").unlink()
        said = refused(winnow, "run", "-c", light)
        assert said.endswith("winnow: the pool is empty: the 1 file under `pool.files` holds no readable row\n")

    def test_run__a_budget_larger_than_the_pool(self, winnow: Winnow, light: Path) -> None:
        change(light, "budget: 8", "budget: 81")
        said = refused(winnow, "run", "any", "-c", light, code=3).splitlines()[-1]
        assert said.startswith("winnow: ")
        assert "81" in said
        assert "80" in said
        change(light, "budget: 81", "budget: 81, allow_short: true")
        assert "any: 80 rows" in winnow("run", "any", "-c", light).out

    def test_run__a_where_that_fails_lists_the_columns(self, winnow: Winnow, light: Path) -> None:
        change(light, "budget: 8", "budget: 8, where: lenght(prompt) > 3")
        said = refused(winnow, "run", "any", "-c", light, code=3)
        assert "where: 'lenght(prompt) > 3' names the function lenght, which is not there" in said
        assert "known columns: empty_response, file, " in said
        change(light, "lenght(prompt) > 3", "abs(prompt) > 3")
        said = refused(winnow, "run", "any", "-c", light, code=3)
        assert "where: 'abs(prompt) > 3' failed: " in said
        assert "known columns: prompt, response, messages, " in said

    def test_run__a_deny_list_may_name_rows_that_are_gone_and_says_how_many(self, winnow: Winnow, light: Path) -> None:
        (light / "deny.txt").write_text("fox-1\nnobody\n")
        change(light, "budget: 8", "budget: 8, deny: deny.txt")
        done = winnow("run", "any", "-c", light)
        assert "1 denied" in done.err
        assert "1 id of the deny list is of no row of the pool" in done.err

    def test_run__an_allow_list_with_an_unknown_id(self, winnow: Winnow, light: Path) -> None:
        (light / "allow.txt").write_text("fox-1\nnobody\n")
        change(light, "budget: 8", "budget: 8, allow: allow.txt")
        assert refused(winnow, "run", "any", "-c", light, code=3).endswith(
            f"winnow: recipe any: {light}/allow.txt: line 2: 'nobody' names no row of the pool; an id names exactly one\n"
        )

    def test_run__a_recipe_that_fails_does_not_keep_the_others_from_sql(self, winnow: Winnow, light: Path) -> None:
        change(light, "  any:", "  broken: {steps: [random], budget: 100000}\n  any:")
        assert "budget must be in 0.." in refused(winnow, "run", "broken", "any", "-c", light, code=3)
        assert latest(light, "any")

    def test_run__what_the_disk_refuses_is_a_message(self, winnow: Winnow, light: Path) -> None:
        (light / "store").write_text("not a folder")
        said = refused(winnow, "run", "-c", light)
        assert said.splitlines()[-1].startswith(f"winnow: {light}/store")

    def test_main__exit_code_and_stderr_of_the_process(self, tmp_path: Path) -> None:
        ended = subprocess.run(
            [sys.executable, "-m", "pipelines", "run"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith("winnow: no winnow.yaml in ")

    def test_main__ctrl_c_says_that_nothing_is_lost(
        self, winnow: Winnow, light: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("pipelines.run.run_all", interrupted)
        ended = winnow("run", "-c", light)
        assert ended.code == 130
        assert ended.err.endswith("winnow: stopped; what was committed stays, and the next run goes on from there\n")

    def test_main__a_defect_says_so_and_shows_its_traceback(
        self, light: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def broken(*_: object) -> None:
            raise KeyError("a text that would clear the screen: \x1bc")

        monkeypatch.setattr("pipelines.run.run_all", broken)
        monkeypatch.setattr(sys, "argv", ["winnow", "run", "-c", str(light)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 1
        assert "Traceback" in said
        assert "\x1b" not in said
        assert "this is a defect of winnow" in said.splitlines()[-1]


class TestRun:
    def test_run__prints_what_was_chosen_and_what_to_ask(self, winnow: Winnow, light: Path) -> None:
        ended = winnow("run", "-c", light)
        assert ended.code == 0
        assert "near: 10 rows, selection " in ended.out
        assert "any: 8 rows, selection " in ended.out
        assert "target foxes/fox-100, 1st in its list" in ended.out
        (hint,) = re.findall(r'winnow sql "(.*)"$', ended.out, re.MULTILINE)
        assert "FROM selection('near')" in hint
        assert len(winnow("sql", hint, "-c", light).out.splitlines()) == 11
        assert "selection/near: drew 10 rows of 80 eligible" in ended.err

    def test_run__named_recipes_alone_each_once(self, winnow: Winnow, light: Path) -> None:
        ended = winnow("run", "any", "any", "-c", light)
        assert ended.out.count("rows, selection ") == 1
        assert "embeddings" not in ended.err

    def test_plan__before_the_first_run_after_it_and_after_a_change(self, winnow: Winnow, light: Path) -> None:
        def work() -> list[str]:
            lines = winnow("plan", "-c", light).out.splitlines()
            return lines[: next(i for i, line in enumerate(lines) if line.startswith("time: "))]

        assert work() == [
            "pool: 2 files, 2 of them new or changed",
            "vectors/embeddings: about 80 rows to take in",
            "the rest is known once the pool has been read",
        ]
        assert not (light / "store").exists()

        winnow("run", "-c", light)
        assert work() == [
            "pool: 2 files, 0 of them new or changed",
            "snapshot: 80 rows",
            "vectors/embeddings: 0 rows to take in, 80 in the store",
            "selection/near: drawn already, nothing to do",
            "selection/any: drawn already, nothing to do",
        ]

        change(light, "budget: 8", "budget: 9")
        assert work()[-2:] == ["selection/near: drawn already, nothing to do", "selection/any: to be drawn"]
        (light / "data" / "b.jsonl").unlink()
        assert work() == [
            "pool: 1 file, 0 of them new or changed",
            "snapshot: 80 rows; its files have changed, a new one will be taken",
            "the rest is known once the pool has been read",
        ]

    def test_status__newest_first_and_no_more_than_asked(self, winnow: Winnow, ran: Path) -> None:
        lines = winnow("status", "-c", ran).out.splitlines()
        stages = [re.split(r"  +", line)[1] for line in lines]
        assert stages[0] == "stage"
        assert stages[1] == "publish"
        assert stages[-1] == "ingest"
        assert len(winnow("status", "-n", "2", "-c", ran).out.splitlines()) == 3
        assert refused(winnow, "status", "-n", "-1", "-c", ran)

    def test_status__asking_writes_nothing(self, winnow: Winnow, light: Path) -> None:
        assert winnow("status", "-c", light).out == "nothing yet\n"
        assert winnow("failures", "-c", light).out == "no failures\n"
        assert not (light / "store").exists()

    def test_failures__each_with_its_cause(self, winnow: Winnow, light: Path) -> None:
        change(light, "budget: 8", "budget: 800")
        winnow("run", "any", "-c", light)
        lines = winnow("failures", "-c", light).out.splitlines()
        assert lines[0].endswith("select any failed")
        assert "800" in lines[1]
        change(light, "budget: 800", "budget: 8")
        winnow("run", "any", "-c", light)
        assert "select any failed; it succeeded since, on 20" in winnow("failures", "-c", light).out

    @pytest.mark.slow
    def test_run__held_back_leaves_the_published_catalog_and_says_why(self, winnow: Winnow, light: Path) -> None:
        winnow("run", "-c", light)
        before = latest(light, "any")
        change(light, "budget: 8", "budget: 8, seed: 1, min_overlap: 1.0")

        said = refused(winnow, "run", "-c", light, code=4)
        assert (
            "winnow: selection/any is held back: what depends on it did not run, what was published before stays"
            in said
        )
        assert latest(light, "any") == before
        lines = winnow("failures", "-c", light).out.splitlines()
        assert lines[0].endswith("select any held_back")
        assert re.fullmatch(r" +overlap_above_floor: Jaccard 0\.\d+ with the last selection, floor 1.0 .*", lines[1])

        # What was held back is kept as a record, but it is never the latest.
        winnow("catalog", "rebuild", "-c", light)
        assert latest(light, "any") == before


class TestSql:
    def test_sql__an_unknown_table_lists_the_views(self, winnow: Winnow, ran: Path) -> None:
        said = refused(winnow, "sql", "SELECT * FROM exampels", "-c", ran)
        assert "exampels does not exist" in said
        assert re.search(r"The catalog has: .*examples, .*latest_selections, .*selected_examples", said)

    def test_sql__several_statements_are_refused(self, winnow: Winnow, ran: Path) -> None:
        assert "these are several statements" in refused(winnow, "sql", "SELECT 1; SELECT 2", "-c", ran)

    def test_sql__json_columns_are_json_and_wide_rows_are_lists(self, winnow: Winnow, ran: Path) -> None:
        line = winnow("sql", "SELECT facts, NULL::JSON AS none FROM latest_selections LIMIT 1", "--json", "-c", ran).out
        assert json.loads(line)["facts"]["pool"] == 80
        assert json.loads(line)["none"] is None
        wide = winnow("sql", "SELECT * FROM latest_selections LIMIT 1", "-c", ran).out.splitlines()
        assert wide[0] == "-- row 1"
        assert [line.split()[:2] for line in wide if line.startswith("n_items")] == [["n_items", "8"]]

    def test_sql__before_the_first_run(self, winnow: Winnow, light: Path) -> None:
        assert "no catalog is published in" in refused(winnow, "sql", "SELECT 1", "-c", light)

    def test_sql__needs_no_valid_recipes(self, winnow: Winnow, light: Path) -> None:
        winnow("run", "any", "-c", light)
        change(light, "[rds_plus]", "[rds_minus]")
        assert "80" in winnow("sql", "SELECT count(*) FROM examples", "-c", light).out

    def test_sql__table(self, winnow: Winnow, ran: Path) -> None:
        out = winnow("sql", "SELECT 'a' AS name, 12 AS number, NULL AS nothing, 'x\ny' AS text", "-c", ran).out
        assert [re.split(r"  +", line.strip()) for line in out.splitlines()] == [
            ["name", "number", "nothing", "text"],
            ["a", "12", "x y"],
        ]
        assert winnow("sql", "SELECT 1 AS n WHERE false", "-c", ran).out.split() == ["n"]
        assert (
            "200 of 1,000 rows; --csv, --json or --parquet give all" in winnow("sql", "FROM range(1000)", "-c", ran).out
        )

    def test_sql__csv_json_and_parquet_hold_the_same(self, winnow: Winnow, ran: Path, tmp_path: Path) -> None:
        query = (
            "SELECT rank, id, gain, ref FROM selection_items JOIN latest_selections USING (selection_id) ORDER BY ALL"
        )
        rows = list(csv.DictReader(io.StringIO(winnow("sql", query, "--csv", "-c", ran).out)))
        objects = [json.loads(line) for line in winnow("sql", query, "--json", "-c", ran).out.splitlines()]
        assert "18 rows written to" in winnow("sql", query, "--parquet", tmp_path / "o.parquet", "-c", ran).out
        table = pq.read_table(tmp_path / "o.parquet")

        assert len(rows) == len(objects) == len(table) == 18
        for plain, one, stored in zip(rows, objects, table.to_pylist(), strict=True):
            assert plain["id"] == one["id"] == str(stored["id"])
            assert int(plain["rank"]) == one["rank"] == stored["rank"]
            assert plain["ref"] == (one["ref"] or "") == (stored["ref"] or "")

    def test_sql__one_form_at_a_time_and_a_folder_that_is_there(
        self, winnow: Winnow, ran: Path, tmp_path: Path
    ) -> None:
        assert "choose one of --csv, --json and --parquet" in refused(
            winnow, "sql", "SELECT 1", "--csv", "--json", "-c", ran
        )
        said = refused(winnow, "sql", "SELECT 1", "--parquet", tmp_path / "no" / "o.parquet", "-c", ran)
        assert "o.parquet" in said
        assert len(said.splitlines()) == 1


class TestSelections:
    @pytest.mark.slow
    def test_diff__top_up_then_a_larger_budget(self, winnow: Winnow, light: Path) -> None:
        change(light, "budget: 8", "budget: 8, mode: top_up")
        winnow("run", "any", "-c", light)
        first = latest(light, "any")
        change(light, "budget: 8", "budget: 13")
        winnow("run", "any", "-c", light)
        second = latest(light, "any")

        for arguments in (("any",), (first, second), ("any~1", "any"), (first[:9], second[:9])):
            out = winnow("diff", *arguments, "-c", light).out
            assert out.startswith(f"from {first} (any, 8 rows)\nto   {second} (any, 13 rows)\n")
            counts = dict(re.findall(r"^(kept|added|dropped) +(\d+) *$", out, flags=re.MULTILINE))
            assert counts == {"kept": "8", "added": "5", "dropped": "0"}
        query = "SELECT rank_a, rank_b FROM selection_diff(?, ?) WHERE change = 'kept'"
        kept = query_catalog(Store(light / "store"), query, [first, second]).to_pylist()
        assert all(one["rank_a"] == one["rank_b"] for one in kept)

    def test_diff__mistakes(self, winnow: Winnow, ran: Path) -> None:
        assert (
            "'naer' is neither a recipe with a selection nor a selection's id (did you mean `near`?); drawn were: any, near"
            in refused(winnow, "diff", "naer", "-c", ran)
        )
        assert "'near~1': the recipe 'near' has one selection so far" in refused(winnow, "diff", "near", "-c", ran)
        assert "'x' is neither a recipe with" in refused(winnow, "diff", latest(ran, "any"), "x", "-c", ran)

    def test_reproduce__the_same(self, winnow: Winnow, ran: Path) -> None:
        for recipe, rows in (("near", 10), ("any", 8)):
            chosen = latest(ran, recipe)
            assert winnow("reproduce", chosen, "-c", ran).out == (
                f"{chosen}: the same {rows} rows in the same order, with the same gains\n"
            )
        assert "no selection 'nothing' in" in refused(winnow, "reproduce", "nothing", "-c", ran)

    @pytest.mark.parametrize("damage", ["a flipped bit", "cut short"])
    def test_reproduce__a_damaged_segment_is_named(self, winnow: Winnow, light: Path, damage: str) -> None:
        winnow("run", "-c", light)
        chosen = latest(light, "near")
        segment = max((light / "store" / "vectors").glob("*/seg-*/vectors.npy"), key=lambda path: path.stat().st_size)
        content = bytearray(segment.read_bytes())
        if damage == "cut short":
            content = content[:-100]
        else:
            content[-1] ^= 1
        segment.write_bytes(content)
        said = refused(winnow, "reproduce", chosen, "-c", light)
        assert said.startswith(f"winnow: {segment.parent}")
        assert "vectors.npy is not" in said

    def test_reproduce__a_deny_list_that_changed_is_named(self, winnow: Winnow, light: Path) -> None:
        (light / "deny.txt").write_text("fox-1\n")
        change(light, "budget: 8", "budget: 8, deny: deny.txt")
        winnow("run", "any", "-c", light)
        chosen = latest(light, "any")
        assert "the same 8 rows" in winnow("reproduce", chosen, "-c", light).out
        (light / "deny.txt").write_text("fox-2\n")
        assert "the `deny` list" in refused(winnow, "reproduce", chosen, "-c", light)

    @pytest.mark.slow
    def test_catalog_rebuild__after_the_project_was_moved(self, winnow: Winnow, light: Path, tmp_path: Path) -> None:
        winnow("run", "-c", light)
        moved = tmp_path / "moved"
        shutil.move(light, moved)
        query = "SELECT count(*) AS n FROM selected_examples"
        assert "`winnow catalog rebuild` mends its paths" in refused(winnow, "sql", query, "-c", moved)
        assert winnow("catalog", "rebuild", "-c", moved).out.startswith(f"rebuilt {moved}/store/catalog/")
        assert winnow("sql", query, "--csv", "-c", moved).out == "n\n18\n"
        assert "drawn already" in winnow("plan", "-c", moved).out
        write_rows(moved / "data" / "c.jsonl", [row(15, "dog")])
        assert winnow("run", "-c", moved).code == 0
