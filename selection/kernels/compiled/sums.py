"""The exact sums of two rows: float64, eight interleaved sums in one fixed order, in vector registers.

Feature f belongs to sum f % 8; the eight are folded as ((a0 + a4) + (a2 + a6)) + ((a1 + a5) + (a3 + a7)), then come the
features left over, one by one. Products and sums are never contracted, so all machines give the same bits. The compiler
does not find the eight lanes of a register by itself, so it is told in its own language.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

LANES = 8

NUMBERS = (types.float32, types.float64)

# What two numbers add to a sum, given the builder: the same for a register of them.
Term = Callable[[Any, Any, Any], Any]


def _sum_of(term: Term) -> Callable[..., Any]:
    """An intrinsic (x, y) -> float64 for 1-D contiguous arrays of the same length, float32 or float64."""

    def typed(typing_context, x, y):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        if not all(
            isinstance(a, types.Array) and (a.ndim, a.layout) == (1, "C") and a.dtype in NUMBERS for a in (x, y)
        ):
            raise TypingError(f"exact sums take contiguous rows of float32 or float64, got {x} and {y}")

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = [
                context.make_array(kind)(context, builder, value)
                for kind, value in zip(signature.args, args, strict=True)
            ]
            integer, double = context.get_value_type(types.intp), ir.DoubleType()
            d = builder.extract_value(arrays[0].shape, 0)
            whole = builder.and_(d, integer(-LANES))
            wide = cgutils.alloca_once_value(  # type: ignore[no-untyped-call]
                builder, ir.Constant(ir.VectorType(double, LANES), [0.0] * LANES)
            )
            with cgutils.for_range_slice(builder, integer(0), whole, integer(LANES), integer) as (f, _):
                a, b = (_load(builder, array.data, f, LANES) for array in arrays)
                builder.store(builder.fadd(builder.load(wide), term(builder, a, b)), wide)
            total = cgutils.alloca_once_value(builder, _folded(builder, builder.load(wide)))  # type: ignore[no-untyped-call]
            with cgutils.for_range_slice(builder, whole, d, integer(1), integer) as (f, _):
                a, b = (_load(builder, array.data, f, 1) for array in arrays)
                builder.store(builder.fadd(builder.load(total), term(builder, a, b)), total)
            return builder.load(total)

        return types.float64(x, y), emit

    made: Callable[..., Any] = intrinsic(typed)
    return made


def _load(builder: Any, data: Any, at: Any, count: int) -> Any:
    """`count` numbers from there on, as float64: a vector of them, or one alone."""
    pointer, kind, double = builder.gep(data, [at]), data.type.pointee, ir.DoubleType()
    align = 4 if isinstance(kind, ir.FloatType) else 8
    if count > 1:
        pointer = builder.bitcast(pointer, ir.VectorType(kind, count).as_pointer())
        double = ir.VectorType(double, count)
    value = builder.load(pointer, align=align)
    return builder.fpext(value, double) if align == 4 else value


def _folded(builder: Any, wide: Any) -> Any:
    """The sum of all lanes, by halves."""
    size = LANES
    while size > 1:
        size //= 2
        low, high = (
            builder.shuffle_vector(wide, wide, ir.Constant(ir.VectorType(ir.IntType(32), size), list(lanes)))
            for lanes in (range(size), range(size, 2 * size))
        )
        wide = builder.fadd(low, high)
    return builder.extract_element(wide, ir.IntType(32)(0))


def _square_of_difference(builder: Any, a: Any, b: Any) -> Any:
    difference = builder.fsub(a, b)
    return builder.fmul(difference, difference)


# The exact similarity: the inner product.
dot: Any = _sum_of(lambda builder, a, b: builder.fmul(a, b))
# The exact squared Euclidean distance.
square_distance: Any = _sum_of(_square_of_difference)
