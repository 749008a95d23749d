"""What can be wrong with a recipe once the pool is read: found before anything is encoded."""

from __future__ import annotations

from pipelines.config.schema import Recipe
from pipelines.messages import listed, nearest
from pipelines.pool_view import PoolView
from pipelines.recipes.spec import id_list
from selection import TokenBudget
from selection.registry import required
from storage.errors import BadInput
from storage.pool.condition import unknown_in
from storage.pool.content import TURN_COLUMNS
from storage.pool.snapshot import no_column


def check_recipe(pool: PoolView, recipe: Recipe) -> None:
    """Check the names that a recipe reads, and its lists of ids, against the pool.

    Raises:
        BadInput: a column or a function is not there, or a list names what is not.

    Cost: reads the lists of ids; no text and no column.
    """
    known = {"id", *TURN_COLUMNS, *pool.known_columns}
    expressions = frozenset().union(*(step.expressions for step in recipe.steps.parsed))
    written = [("where", recipe.where)] if recipe.where else []
    written += [("expression", expression) for expression in sorted(expressions - known)]
    for key, expression in written:
        unknown = unknown_in(expression, known)
        if unknown is not None:
            meant = nearest(unknown.split()[-1], known)
            columns = listed(sorted(known))
            raise BadInput(
                f"{key}: {expression!r} names {unknown}, which is not there{meant}\nknown columns: {columns}"
            )
    for column in sorted(_columns(recipe) - expressions - known):
        raise no_column(column, known)
    id_list(recipe.allow, pool.snapshot, strict=True)
    id_list(recipe.deny, pool.snapshot, strict=False)


def _columns(recipe: Recipe) -> frozenset[str]:
    """The columns that steps and constraints read, without the counts that winnow makes itself."""
    budget = recipe.constraints.budget
    counted = {budget.counted_in} if isinstance(budget, TokenBudget) and budget.tokenizer else set()
    return (required(recipe.steps.parsed)[1] | recipe.constraints.columns) - counted
