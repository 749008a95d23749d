"""Make `golden.tar.xz` and `expected.json` anew: `python -m tests.golden.make_golden`, from the root of the
repository.

These two files say what winnow stores. They change only when a stored format, or what a step draws, changes on
purpose; such a change has a line in CHANGELOG.md, and that line says what becomes of stores that exist. A change of
the code's structure never needs this script: if the tests are red after one, the change is wrong.

`python -m tests.golden.make_golden --fresh` makes `fresh.json` anew instead: what a fresh run of the archived inputs
stores otherwise than the archived one, because steps have newer algorithms. The archive stays: it is a store that
exists, and has to open and to reproduce.

The project is made and run twice, in folders of different length. What the two runs do not have in common, beyond
what `contents` takes out, is an error: then something is recorded that varies, and nothing could be compared with
it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden import archive, contents
from tests.golden.project import write_project
from tests.golden.replay import replay

EXPECTED = Path(__file__).with_name("expected.json")
FRESH = Path(__file__).with_name("fresh.json")


def expected_of(project: Path) -> dict[str, Any]:
    """What the tests compare of a project that was run."""
    return {
        "recipes": contents.drawn(project),
        "rounds": contents.rounds(project),
        "files": {name: contents.facts_of(path, project) for name, path in contents.files_of(project).items()},
        "catalog": contents.catalog_schema(project),
        "rows": contents.catalog_rows(project),
    }


def make_fresh() -> None:
    """Make `fresh.json`."""
    before = json.loads(EXPECTED.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch) / "golden"
        archive.unpack_inputs(project)
        replay(project)
        after = expected_of(project)
    changes = {
        part: {name: after[part].get(name) for name in names if before[part].get(name) != after[part].get(name)}
        for part in after
        for names in [sorted({*before[part], *after[part]})]
    }
    FRESH.write_text(json.dumps(changes, indent=1, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    """Make the archive and `expected.json`."""
    if "--fresh" in sys.argv:
        make_fresh()
        return
    with tempfile.TemporaryDirectory() as scratch:
        first, second = archive.MADE_IN, Path(scratch) / "a" / "longer" / "path" / "golden"
        shutil.rmtree(first, ignore_errors=True)
        write_project(first)
        shutil.copytree(first, second)
        replay(first)
        replay(second)
        found, again = expected_of(first), expected_of(second)
        for part, value in found.items():
            varying = [name for name in value if value[name] != again[part].get(name)]
            if varying or value.keys() != again[part].keys():
                raise SystemExit(f"{part}: two runs differ in {varying[:20]}")
        archive.pack(first)
        shutil.rmtree(first)
    whole = {"made_with": contents.versions(), **found}
    EXPECTED.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", "utf-8")
    FRESH.write_text(json.dumps({part: {} for part in found}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
