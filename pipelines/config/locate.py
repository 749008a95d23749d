"""Find the winnow.yaml, and the store, of the project that a command or the Dagster UI works on."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from pipelines.config.yaml_lines import composed, read_file
from pipelines.errors import NoProject

FILE_NAME = "winnow.yaml"
ENVIRONMENT = "WINNOW_CONFIG"
DEMO_FOLDER = "demo"
DEFAULT_STORE = "./store"


def find_config(named: Path | None = None) -> Path:
    """The configuration file: the one named, else WINNOW_CONFIG, else the nearest winnow.yaml upwards, else the demo's.

    Args:
        named: a file, or a folder that holds a winnow.yaml.

    Raises:
        NoProject: there is none; says how to make one.
    """
    chosen = named or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if chosen is not None:
        return (chosen / FILE_NAME if chosen.is_dir() else chosen).absolute()
    working = Path.cwd()
    for folder in (working, *working.parents, working / DEMO_FOLDER):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise NoProject(
        f"no {FILE_NAME} in {working} or a folder above it. `winnow init DATA` writes one for your data, "
        f"`winnow demo` makes a small project to look at, and --config (or {ENVIRONMENT}) names one elsewhere."
    )


def find_store(named: Path | None = None) -> Path:
    """The store of a project. The rest of the configuration may be wrong: a user may query while editing it.

    Raises:
        NoProject: there is no configuration.
        ConfigError: it is no YAML mapping, or `store` is no text.
    """
    path = find_config(named)
    try:
        loader, node = composed(read_file(path).decode("utf-8"))
        folder = loader.construct_document(node).get("store", DEFAULT_STORE)
        return path.parent / Path(folder).expanduser()
    except (OSError, ValueError, AttributeError, TypeError, RecursionError, yaml.YAMLError):
        from pipelines.config.load import load_config  # says what is wrong; it takes a while to import

        return Path(load_config(path).store)
