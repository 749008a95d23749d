"""Where work on shards runs: in processes of this machine. See `storage.shards`.

- `local`: a pool of processes, one for each core that this process may use.

Imports `errors` of pipelines and nothing else of it. A shard that a dead worker left is given to another one.
"""

from pipelines.engine.local import LocalEngine, engine_for
from pipelines.engine.models import engine_for_models

__all__ = ["LocalEngine", "engine_for", "engine_for_models"]
