"""Packs hold what the folders held, for every reader; nothing goes while somebody may still read it; damage stays small."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.check import check_lines
from pipelines.reproduce import reproduce
from pipelines.runs import runs
from pipelines.upkeep.forget import cut_off, forget, request
from pipelines.upkeep.garbage import collect
from storage.catalog.publish import publish_catalog, rebuild_catalog
from storage.catalog.query import open_catalog, published_file
from storage.damage import damage_of, readable, set_aside_records
from storage.errors import StoreDamaged
from storage.packing import undamaged_records, write_pack
from storage.packs import COPIES, INDEX, RECORDS, Pack
from storage.records import ITEM_COLUMNS, commit_metrics, commit_run, commit_selection, read_selection
from storage.store import Store
from storage.upkeep import compact
from tests.pipelines.conftest import Winnow, opened, winnow
from tests.pipelines.upkeep.conftest import assert_sound, drawn, later, nights, three_nights
from tests.quick import quick_first

__all__ = ["later", "nights", "three_nights", "winnow"]


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders make a pack, two packs a larger one."""
    monkeypatch.setattr(compact, "FOLDERS", 2)
    monkeypatch.setattr(compact, "PACKS", 2)


def pack(store: Store) -> None:
    """Compact all that there is, and remove the folders at once."""
    compact.compact(store)
    compact.drop_replaced(store)
    publish_catalog(store)


def content(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """Relation -> its rows, in an order of their own."""
    with open_catalog(store) as catalog:
        names = [name for (name,) in catalog.execute("SHOW TABLES").fetchall()]
        return {name: sorted(catalog.execute(f'FROM "{name}"').fetchall(), key=repr) for name in names}


def folders(store: Store, kind: str) -> list[str]:
    path = store.path("records", kind)
    return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []


def commit(store: Store, number: int, rows: int = 3, ids: Sequence[bytes] = ()) -> str:
    """A made-up selection."""
    ids = ids or [bytes([number, n]) * 8 for n in range(rows)]
    items = {
        "rank": pa.array(range(1, rows + 1), pa.uint32()),
        "id": pa.array(ids, pa.binary(16)).cast(pa.uuid()),
        "gain": pa.array([n / 7 for n in range(rows)], pa.float32()),
        "kind": pa.array(["nearest", None, "random"] * rows)[:rows],
        "ref": pa.array([None] * rows, pa.string()),
        "ref_rank": pa.array(range(rows), pa.int32()),
        "value": pa.array([None] * rows, pa.float32()),
    }
    header = {"selection_id": f"{number:032x}", "recipe": "any", "facts": {"ä\u2028": number}}
    return commit_selection(store, header, pa.table(items, schema=pa.schema(ITEM_COLUMNS)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Five selections, three runs, two metrics, in no folder of a project."""
    store = Store(tmp_path / "store")
    for number in range(5):
        commit(store, number, rows=number)
    for number in range(3):
        commit_run(store, {"stage": "select", "status": "ok", "target": "any", "subject": f"{number:032x}"})
    for number in range(2):
        commit_metrics(store, f"{number:032x}", {"coverage": number / 3})
    return store


@pytest.mark.slow
def test_compact__every_reader_sees_what_it_saw(nights: Path, winnow: Winnow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "FOLDERS", 1)
    store = Store(nights / "store")
    first, second, last = drawn(nights, "near")
    report = [run["invocation"] for run in runs(store)][-1]

    def asked() -> list[object]:
        return [
            content(store),
            list(runs(store)),
            [read_selection(store, name) for name in store.records("selections")],
            winnow("diff", first, last, "--rows", "-c", nights).out,
            winnow("why", drawn(nights, "any")[0], "any", "-c", nights).out,
            winnow("report", report, "--out", nights / "out", "-c", nights).out,
            json.loads((nights / "out" / "report.json").read_text()),
            [entry | {"size": ""} for entry in collect(opened(nights), 0).kept],
        ]

    asked()  # makes the report
    publish_catalog(store)
    before = asked()
    pack(store)
    assert [folders(store, kind) for kind in compact.PACKED] == [[], [], [], [], []]
    assert asked() == before
    rebuild_catalog(store)
    assert asked() == before
    assert "the same" in reproduce(opened(nights), second)
    assert_sound(nights)


def test_compact__a_night_after_it_goes_on(nights: Path, winnow: Winnow) -> None:
    store = Store(nights / "store")
    pack(store)
    latest = drawn(nights, "near")[-1]
    assert winnow("run", "-c", nights).code == 0
    assert drawn(nights, "near")[-1] == latest  # nothing changed, so nothing is drawn
    assert len(store.records("selections")) == 6


def test_compact__folders_stay_while_a_kept_catalog_names_them(store: Store) -> None:
    publish_catalog(store)
    with duckdb.connect(published_file(store), read_only=True) as session:  # an analyst's
        for _ in range(4):
            compact.compact(store)
            publish_catalog(store)
            assert session.execute("SELECT count(*) FROM selection_items").fetchall() == [(10,)]
            assert len(folders(store, "selections")) == 5
        publish_catalog(store)
        compact.compact(store)
    assert folders(store, "selections") == []
    with open_catalog(store) as catalog:
        assert catalog.execute("SELECT count(*) FROM selection_items").fetchall() == [(10,)]


def test_compact__nothing_is_due_below_the_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "FOLDERS", 6)
    compact.compact(store)
    assert not store.path("packs").exists()


def test_compact__packs_grow_by_a_factor(store: Store) -> None:
    for number in range(5, 45):
        commit(store, number)
        compact.compact(store)
    assert len(store.packs.of("selections")) <= 6
    compact.drop_replaced(store)
    assert [len(pack.names) for pack in store.packs.of("selections", replaced=True)] == []
    assert len(store.records("selections")) == 45
    for number in range(45):
        header, items = read_selection(store, f"{number:032x}")
        assert header["facts"] == {"ä\u2028": number}
        assert len(items) == (number if number < 5 else 3)
        assert items.schema.equals(pa.schema(ITEM_COLUMNS))


def test_compact__records_of_other_columns_have_packs_of_their_own(store: Store) -> None:
    path = store.path("records", "selections", f"{1:032x}", "items.parquet")
    with store.replacing("records", "selections", f"{1:032x}") as new:
        shutil.copy(path.with_name("selection.json"), new)
        pq.write_table(pq.read_table(path).append_column("later", [[1]]), new / path.name)
    pack(store)
    assert folders(store, "selections") == [f"{1:032x}"]


def test_compact__the_same_record_again_is_the_first(store: Store) -> None:
    before = read_selection(store, f"{3:032x}")
    pack(store)
    commit(store, 3, rows=1)
    assert read_selection(store, f"{3:032x}") == before
    assert folders(store, "selections") == []


@pytest.mark.parametrize("moment", quick_first(4, list(range(12))))
def test_compact__killed_at_any_rename_leaves_the_same_records(store: Store, moment: int) -> None:
    compact.compact(store)
    commit(store, 5)
    commit(store, 6)
    before = {name: read_selection(store, name) for name in store.records("selections")}
    rename, count = Path.rename, 0

    def killed(path: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count > moment:
            raise KeyboardInterrupt
        return rename(path, target)

    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        pack(store)
    seen = Store(store.root)
    assert {name: read_selection(seen, name) for name in seen.records("selections")} == before
    pack(seen)
    assert {name: read_selection(seen, name) for name in seen.records("selections")} == before
    assert [path.name for path in store.path("tmp").iterdir() if store.path("tmp").is_dir()] == []


def flipped(path: Path) -> Iterator[int]:
    """Flip a byte here and there, one after the other; each is put back."""
    data = path.read_bytes()
    for at in range(0, len(data), max(len(data) // 25, 1)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        yield at
    path.write_bytes(data)


def test_damage__of_a_line_costs_its_record_alone(store: Store) -> None:
    pack(store)
    (packed,) = store.packs.of("runs")
    lines = packed.folder / RECORDS
    names = store.records("runs")
    begins = json.loads((packed.folder / INDEX).read_text())["begins"]
    for at in flipped(lines):
        hit = max((name for name in names if begins[name] <= at), key=begins.__getitem__)
        seen = Store(store.root, lambda _: None)
        assert [name for name in names if readable(seen, "runs", name) is None] == [hit]
        assert "is not what was committed" in str(damage_of("runs", seen.place("records", "runs", hit)))


def test_damage__of_a_table_is_seen_in_each_record_that_it_hit(store: Store) -> None:
    before = {name: read_selection(store, name) for name in store.records("selections")}
    pack(store)
    (packed,) = store.packs.of("selections")
    for _ in flipped(packed.folder / "items.parquet"):
        for name, expected in before.items():
            try:
                assert read_selection(Store(store.root), name) == expected
            except StoreDamaged as error:
                assert "items.parquet" in str(error)  # noqa: PT017


def test_damage__of_a_value_that_can_still_be_decompressed_is_seen(store: Store) -> None:
    ids = [random.Random(n).randbytes(16) for n in range(64)]  # which no compression changes
    name = commit(store, 9, len(ids), ids)
    pack(store)
    (packed,) = store.packs.of("selections")
    path = packed.folder / "items.parquet"
    data = bytearray(path.read_bytes())
    data[data.index(ids[7])] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreDamaged, match=r"items\.parquet"):
        read_selection(Store(store.root), name)


def test_damage__is_put_aside_and_the_rest_packed_anew(store: Store) -> None:
    pack(store)
    (packed,) = store.packs.of("runs")
    lines = packed.folder / RECORDS
    first, second, third = store.records("runs")
    at = json.loads((packed.folder / INDEX).read_text())["begins"][second]
    data = lines.read_bytes()
    lines.write_bytes(data[: at + 30] + b"#" + data[at + 31 :])
    rebuild_catalog(store)
    assert store.records("runs") == [first, third]
    assert [f"the record {second} is not" in record["damage"] for record in set_aside_records(store)] == [True]
    with open_catalog(store) as catalog:
        assert catalog.execute("SELECT count(*) FROM runs").fetchall() == [(2,)]


@pytest.mark.slow
def test_damage__of_an_index_costs_nothing(nights: Path) -> None:
    store = Store(nights / "store")
    pack(store)
    before = content(store)
    for kind in compact.PACKED:
        for packed in store.packs.of(kind):
            (packed.folder / INDEX).write_bytes(b"{}")
    seen = Store(store.root, lambda _: None)
    damaged = [line for line in check_lines(opened(nights), deep=True) if line.startswith("damaged")]
    assert len(damaged) == 4  # no reports are in this store
    rebuild_catalog(seen)
    assert content(seen) == before
    compact.compact(seen)
    compact.drop_replaced(seen)
    rebuild_catalog(seen)
    assert content(seen) == before
    assert_sound(nights)


def test_damage__of_a_pack_that_another_one_replaces_is_named(nights: Path) -> None:
    store = Store(nights / "store")
    pack(store)
    (packed,) = store.packs.of("runs")
    before = content(store)
    write_pack(store, "runs", undamaged_records(packed), [packed])
    for file in (RECORDS, INDEX):
        (packed.folder / file).write_bytes(b"{}")
        (line,) = [line for line in check_lines(opened(nights), deep=True) if str(packed.folder / file) in line]
        assert "its records are in a later pack" in line
    rebuild_catalog(store)
    assert content(store) == before


def test_copies__serve_sql_and_are_dropped_when_damaged(nights: Path) -> None:
    store = Store(nights / "store")
    before = content(store)
    pack(store)
    packs = store.packs.of(COPIES)
    assert sum(len(packed.names) for packed in packs) == 5
    assert content(store) == before  # of the third file only the last content is live
    (packs[0].folder / "part-00000.parquet").write_bytes(b"PAR1")
    compact.compact(store)
    publish_catalog(store)
    assert content(store) == before


@pytest.mark.slow
@pytest.mark.usefixtures("later")
def test_gc__takes_records_out_of_packs(nights: Path) -> None:
    store = Store(nights / "store")
    pack(store)
    assert collect(opened(nights), 30, delete=True).summary.startswith("18 things of ")
    assert set(store.records("selections")) == {drawn(nights, recipe)[-1] for recipe in ("near", "any")}
    assert_sound(nights)
    assert collect(opened(nights), 30).summary.startswith("0 things")


@pytest.mark.parametrize("moment", quick_first(1, [1, 3, 5, 8]))
@pytest.mark.usefixtures("later")
def test_gc__killed_while_it_packs_anew_ends_the_next_time(nights: Path, moment: int) -> None:
    store = Store(nights / "store")
    pack(store)
    rename, count = Path.rename, 0

    def killed(path: Path, target: Path) -> Path:
        nonlocal count
        count += "packs" in target.parts
        if count > moment:
            raise KeyboardInterrupt
        return rename(path, target)

    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        collect(opened(nights), 30, delete=True)
    collect(opened(nights), 30, delete=True)
    assert set(store.records("selections")) == {drawn(nights, recipe)[-1] for recipe in ("near", "any")}
    assert_sound(nights)


@pytest.mark.slow
def test_forget__finds_rows_in_packs(nights: Path) -> None:
    store = Store(nights / "store")
    selection = drawn(nights, "any")[0]
    with open_catalog(store) as catalog:
        sql = "SELECT id::VARCHAR FROM selection_items WHERE selection_id = ? AND rank = 2"
        ((row,),) = catalog.execute(sql, [selection]).fetchall()
    expected = request(opened(nights), [row])
    pack(store)
    wanted = request(opened(nights), [row])
    assert (wanted.holders, wanted.kinds) == (expected.holders, expected.kinds)
    done = forget(opened(nights), wanted)
    assert not cut_off(store)
    assert done.rewritten["selections"] == expected.kinds["selections"]
    header, items = read_selection(Store(store.root), selection)
    assert header["n_items"] == len(items) == 7
    assert row not in content(store)["selection_items"]


def test_pack__one_that_vanished_is_said(store: Store) -> None:
    pack(store)
    (packed,) = store.packs.of("runs")
    with pytest.raises(StoreDamaged, match="cannot be read"):
        Pack(packed.folder.with_name("gone")).table(store.records("runs")[0], "items.parquet")
