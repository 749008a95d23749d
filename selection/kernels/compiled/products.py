"""Inner products of rows and packed vectors in float32, summed in vector registers.

Sixteen vectors are packed feature by feature, so that one register holds the same feature of all of them, and the value
of a row is spread over another. Four rows keep the arithmetic units busy, without the sums across a register that end
an ordinary inner product. The compiler does not find this by itself, so it is told in its own language; where registers
are narrower, it takes several.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from selection.types import Floats

# Vectors packed together, and rows multiplied with them at once.
LANES = 16
ROWS = 4


def packed(vectors: Floats) -> Floats:
    """(groups, d, LANES) of (m, d) vectors; those missing in the last group are 0."""
    m, d = vectors.shape
    out = np.zeros((-(-m // LANES), d, LANES), np.float32)
    for lane in range(LANES):
        part = vectors[lane::LANES]
        out[: len(part), :, lane] = part
    return out


def _write_products(  # type: ignore[no-untyped-def]  # noqa: ANN202
    typing_context, X, rows, packed, group, start, stop, out,  # noqa: ANN001, ARG001
):  # fmt: skip
    """out[e] = the inner products of X[rows[e]] and the vectors of packed[group] over features start .. stop-1.

    Args:
        X: (b, d) float32; `rows`: (ROWS,) int64, places in it.
        packed: (groups, d, LANES) float32; `out`: (rows or more, LANES) float32.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.VectorType(ir.FloatType(), LANES)
        integer = context.get_value_type(types.intp)

        def array(which: int) -> Any:
            return context.make_array(signature.args[which])(context, builder, args[which])

        def vector_at(pointer: Any, offset: Any) -> Any:
            return builder.bitcast(builder.gep(pointer, [offset]), wide.as_pointer())

        x, vectors, result = array(0).data, array(2).data, array(6).data
        d = builder.extract_value(array(0).shape, 1)
        group_at = builder.mul(builder.mul(args[3], d), integer(LANES))
        places = array(1).data
        row_at = [builder.mul(builder.load(builder.gep(places, [integer(e)])), d) for e in range(ROWS)]
        zeros = ir.Constant(wide, [0.0] * LANES)
        sums = [cgutils.alloca_once_value(builder, zeros) for _ in row_at]  # type: ignore[no-untyped-call]
        with cgutils.for_range_slice(builder, args[4], args[5], integer(1), integer) as (f, _):
            features = builder.load(vector_at(vectors, builder.add(group_at, builder.mul(f, integer(LANES)))), align=4)
            for at, total in zip(row_at, sums, strict=True):
                value = builder.load(builder.gep(x, [builder.add(at, f)]))
                product = builder.fmul(features, everywhere(builder, value), flags=["contract"])
                builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
        for e, total in enumerate(sums):
            builder.store(builder.load(total), vector_at(result, integer(e * LANES)), align=4)
        return context.get_dummy_value()

    return types.void(X, rows, packed, types.intp, types.intp, types.intp, out), emit


def _below(typing_context, low, group, products, row, cut):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    """Bit b tells whether low[group * LANES + b] - 2 * products[row, b] <= cut (or is no number).

    Args:
        low: (groups * LANES,) float32; `products`: (rows, LANES) float32; `cut`: float64.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide, double = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.DoubleType(), LANES)
        integer = context.get_value_type(types.intp)

        def load(which: int, place: Any) -> Any:
            data = context.make_array(signature.args[which])(context, builder, args[which]).data
            at = builder.gep(data, [builder.mul(place, integer(LANES))])
            return builder.load(builder.bitcast(at, wide.as_pointer()), align=4)

        twice = builder.fmul(load(2, args[3]), ir.Constant(wide, [2.0] * LANES))
        left = builder.fpext(builder.fsub(load(0, args[1]), twice), double)
        bits = builder.fcmp_unordered("<=", left, everywhere(builder, args[4]))
        return builder.zext(builder.bitcast(bits, ir.IntType(LANES)), integer)

    return types.intp(low, types.intp, products, types.intp, types.float64), emit


def everywhere(builder: Any, value: Any, lanes: int = LANES) -> Any:
    """A vector of so many times the same value."""
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


write_products: Any = intrinsic(_write_products)
below: Any = intrinsic(_below)
