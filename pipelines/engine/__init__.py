"""Where work on shards runs: in processes of this machine or of a Ray cluster. See `storage.shards`.

- `local`: a pool of processes, one for each core that this process may use.
- `ray`: actors of a Ray cluster, which `handshake` compares with this machine before they work.
- `choose`: which of them the configuration names; `models`: for work that loads a model.

Imports `context` and `errors` of pipelines and nothing else of it. A shard that a dead worker left is given to another.
"""

from pipelines.engine.choose import engine_for
from pipelines.engine.local import LocalEngine
from pipelines.engine.models import engine_for_models
from pipelines.engine.ray import RayEngine

__all__ = ["LocalEngine", "RayEngine", "engine_for", "engine_for_models"]
