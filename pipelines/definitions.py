"""The Dagster code location: `dagster dev -w workspace.yaml` loads `defs` from here.

The project is the `winnow.yaml` that the environment variable WINNOW_CONFIG names, else the one in the working
directory or a folder above it, else the demo's.
"""

from pipelines.config.locate import find_config
from pipelines.orchestration.definitions import build_definitions

defs = build_definitions(find_config())
