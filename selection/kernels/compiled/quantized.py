"""Vectors in eight bits: inner products in whole numbers, four times as fast as in float32.

A vector x is s q + e, with q whole numbers of -127 .. 127 and s the scale of the vector. Sixteen vectors are packed
four features at a time, as bytes q + 128; a row has its own four features spread over a register. One instruction
multiplies and adds them: 64 products. The compiler does not find it, so it is told in its own language.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.products import LANES, everywhere
from selection.kernels.compiled.sums import dot

# Features multiplied at once, rows that meet sixteen vectors at once, and the largest number of a feature.
FEATURES = 4
ROWS = 8
LARGEST = 127

# Vectors shorter than this in every feature are kept as what is left: a scale would lose its digits.
SMALLEST = 1e-30

# Numbers that go with a row: its scale; the length of what the bytes leave; and the row's own length more than that.
# A centre has twice its scale, its length and the length of what is left, in this order.
SCALE, REST, REACH = 0, 1, 2
TERMS = 3

_ANY_ORDER = {"reassoc", "contract", "nsz"}


@cache
def has_instruction() -> bool:
    """Whether numba compiles for a processor with the instruction (x86 servers since 2019)."""
    chosen = numba.config.CPU_NAME or numba.config.CPU_FEATURES  # type: ignore[attr-defined]
    return not chosen and bool(get_host_cpu_features().get("avx512vnni"))


def _write_sums(  # type: ignore[no-untyped-def]  # noqa: ANN202
    typing_context, Q, offset, rows, packed, group, out,  # noqa: ANN001, ARG001
):  # fmt: skip
    """out[e] = the inner products of Q[rows[e]] and the vectors of packed[group], whole numbers.

    Args:
        Q: (b, width) int8, width a multiple of FEATURES; `offset`: (b,) int32, 128 times the sum of each row.
        rows: (ROWS,) int64, places in them.
        packed: (groups, width / FEATURES, LANES, FEATURES) uint8; `out`: (ROWS, LANES) int32.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not has_instruction():  # then nothing is quantized, and this is never called
            return context.get_dummy_value()
        number, integer = ir.IntType(32), context.get_value_type(types.intp)
        wide = ir.VectorType(number, LANES)
        multiply_add = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module, ir.FunctionType(wide, [wide] * 3), "llvm.x86.avx512.vpdpbusd.512"
        )

        def array(which: int) -> Any:
            return context.make_array(signature.args[which])(context, builder, args[which])

        def pointer(which: int, kind: Any) -> Any:
            return builder.bitcast(array(which).data, kind.as_pointer())

        x, offsets, places, vectors, result = (
            pointer(0, number), array(1).data, array(2).data, pointer(3, wide), pointer(5, wide)
        )  # fmt: skip
        steps = builder.extract_value(array(3).shape, 1)
        group_at = builder.mul(args[4], steps)
        row = [builder.load(builder.gep(places, [integer(e)])) for e in range(ROWS)]
        row_at = [builder.mul(place, steps) for place in row]
        first = [everywhere(builder, builder.neg(builder.load(builder.gep(offsets, [place])))) for place in row]
        sums = [cgutils.alloca_once_value(builder, value) for value in first]  # type: ignore[no-untyped-call]
        with cgutils.for_range_slice(builder, integer(0), steps, integer(1), integer) as (f, _):
            features = builder.load(builder.gep(vectors, [builder.add(group_at, f)]), align=4)
            for at, total in zip(row_at, sums, strict=True):
                value = builder.load(builder.gep(x, [builder.add(at, f)]), align=1)
                added = builder.call(multiply_add, [builder.load(total), features, everywhere(builder, value)])
                builder.store(added, total)
        for e, total in enumerate(sums):
            builder.store(builder.load(total), builder.gep(result, [integer(e)]), align=4)
        return context.get_dummy_value()

    return types.void(Q, offset, rows, packed, types.intp, out), emit


def _below(typing_context, low, centres, group, sums, row, own, place, cut):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    """Bit b tells whether a vector of the group may be as near as `cut` says: low - 2 (an upper bound of x.c) <= cut.

    Args:
        low: (groups * LANES,) float32; `centres`: (groups, TERMS, LANES) float32, what goes with them.
        sums: (ROWS, LANES) int32; `own`: (b, TERMS) float32, of which `place` goes with the row; `cut`: float64.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide, double = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.DoubleType(), LANES)
        integer = context.get_value_type(types.intp)

        def load(which: int, place: Any, kind: Any) -> Any:
            data = context.make_array(signature.args[which])(context, builder, args[which]).data
            return builder.load(builder.gep(builder.bitcast(data, kind.as_pointer()), [place]), align=4)

        def term(which: int, place: Any, kind: Any) -> list[Any]:
            first = builder.mul(place, integer(TERMS))
            return [load(which, builder.add(first, integer(t)), kind) for t in range(TERMS)]

        def times(left: Any, right: Any) -> Any:
            return builder.fmul(left, right, flags=["contract"])

        def plus(left: Any, right: Any) -> Any:
            return builder.fadd(left, right, flags=["contract"])

        scale, length, rest = term(1, args[2], wide)
        own_scale, own_rest, own_reach = (everywhere(builder, value) for value in term(5, args[6], ir.FloatType()))
        whole = builder.sitofp(load(3, args[4], ir.VectorType(ir.IntType(32), LANES)), wide)
        product = times(times(own_scale, scale), whole)
        most = plus(product, plus(times(own_rest, length), times(own_reach, rest)))
        left = builder.fpext(builder.fsub(load(0, args[2], wide), most), double)
        bits = builder.fcmp_unordered("<=", left, everywhere(builder, args[7]))
        return builder.zext(builder.bitcast(bits, ir.IntType(LANES)), integer)

    return types.intp(low, centres, types.intp, sums, types.intp, own, types.intp, types.float64), emit


write_sums: Any = intrinsic(_write_sums)
below: Any = intrinsic(_below)


@compiled
def quantize(x, square, q, terms):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the numbers of a vector x to q (int8, as long) and what goes with them to `terms`; the sum of q."""
    largest_size(x, terms)
    top = terms[0]
    if top < SMALLEST:
        q[:] = 0
        terms[SCALE] = 0
        total, left = np.int32(0), square
    else:
        inverse = np.float32(LARGEST / top)
        for f in range(len(x)):
            q[f] = np.int8(np.rint(x[f] * inverse))
        terms[SCALE] = top / LARGEST
        total, left = what_is_left(x, q, np.float64(terms[SCALE]))
    # Rounded up: the sums err by less than 2**-40, a float32 by 2**-24.
    length = np.sqrt(square)
    rest = (np.sqrt(left) + length * 2.0**-50) * (1.0 + 2.0**-20)
    terms[REST] = rest
    terms[REACH] = (rest + length) * (1.0 + 2.0**-20)
    return total


@compiled
def largest_size(x, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the largest |x_f| to out[0]. The bits of floats are in the same order, and compared in registers."""
    bits = x.view(np.int32)
    top = np.int32(0)
    for f in range(len(bits)):
        top = max(top, bits[f] & np.int32(0x7FFFFFFF))
    out.view(np.int32)[0] = top


@compiled(fastmath=_ANY_ORDER)
def what_is_left(x, q, scale):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The sum of q, and the squared length of x - scale * q."""
    total, left = np.int32(0), 0.0
    for f in range(len(x)):
        total += np.int32(q[f])
    for f in range(len(x)):
        difference = np.float64(x[f]) - scale * np.float64(q[f])
        left += difference * difference
    return total, left


@compiled
def quantize_rows(X, state, places, Q, offset, own):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Quantize some rows of X, whose |x|^2 is in `state`, to the first rows of Q, `offset` and `own`."""
    for p in range(len(places)):
        i = places[p]
        offset[p] = 128 * quantize(X[i], state[i].square, Q[p, : X.shape[1]], own[p])


@compiled
def add(centres, start, stop, packed, terms):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Quantize and pack centres start .. stop-1."""
    d = centres.shape[1]
    q = np.zeros(packed.shape[1] * FEATURES, np.int8)
    own = np.empty(TERMS, np.float32)
    for j in range(start, stop):
        square = dot(centres[j], centres[j])
        quantize(centres[j], square, q[:d], own)
        for f in range(len(q)):
            packed[j // LANES, f // FEATURES, j % LANES, f % FEATURES] = np.uint8(np.int64(q[f]) + 128)
        terms[j // LANES, 0, j % LANES] = 2.0 * own[SCALE]
        terms[j // LANES, 1, j % LANES] = 2.0 * np.sqrt(square) * (1.0 + 2.0**-20)
        terms[j // LANES, 2, j % LANES] = 2.0 * own[REST]
