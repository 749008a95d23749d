"""`python -m website`: write the pages into build/docs and build the site into build/site, strictly, without network."""

from __future__ import annotations

import shutil
import subprocess
import sys

from website.pages import ROOT, pages


def main() -> int:
    """Build; the exit code is that of the builder, which fails for a broken link."""
    folder = ROOT / "build" / "docs"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "images", folder / "images")
    shutil.copy(ROOT / "website" / "site.css", folder)
    for name, text in pages().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
