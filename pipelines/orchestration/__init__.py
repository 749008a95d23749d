"""What Dagster sees of a project: assets with their checks, the nightly schedule, the sensors.

- `asset`: one Dagster asset around one stage.
- `assets`: an asset for each stage: the pool, an encoder's vectors and index, each recipe, the catalog.
- `labeling_assets`: the assets and the job of each labeling project.
- `schedule`: the nightly schedule.
- `sensors`: runs on new files and on new labels.
- `definitions`: all of them from one winnow.yaml.

Imports the stages and what lies below them. Nothing else in winnow imports Dagster.
"""
