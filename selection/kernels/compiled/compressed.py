"""Compressed similarities of a row: a bit for each reference, set where the row may still add to what it is covered
with; then, in the order of the references, a byte for each such one: how far its similarity lies above a base, in
steps, rounded up. Entries are of 64 bits. What references are covered with is known in the same steps, rounded down:
the difference is an upper bound on what the row adds, from few operations on 64 bytes at once.

Where similarities are estimates (see `estimates`), a row has a doubt besides: how far one of them may be off.

Processors with the instructions (x86 servers since 2020) take the bytes of 64 references apart at once. The compiler
does not find these, so it is told in its own language; others go through the bits one after the other.
"""

from __future__ import annotations

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

# References of one entry of bits, bytes of an entry, and the largest number of steps.
GROUP, BYTES, LARGEST = 64, 8, 255
# Steps are powers of 2**(1 / 4), from FIRST on: a row has the least that reaches to its largest similarity.
FIRST = 2.0**-29
STEPS = 128
# What is added to a similarity, more than all roundings on the way to its byte and back.
MARGIN = 2.0**-20
# The largest weight in a byte.
WEIGHT = 127


def has_instructions() -> bool:
    """Whether numba compiles for a processor that spreads and squeezes bytes by a mask, and multiplies and adds them."""
    chosen = numba.config.CPU_NAME or numba.config.CPU_FEATURES  # type: ignore[attr-defined]
    features = get_host_cpu_features()
    return not chosen and all(features.get(name) for name in ("avx512bw", "avx512vbmi2", "avx512vnni"))


FAST = has_instructions()


@compiled
def groups(r):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The entries of bits for r references."""
    return -(-r // GROUP)


@compiled
def size_of(r, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The entries for `count` of r references."""
    return groups(r) + -(-count // BYTES)


@compiled
def most_entries(r):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The entries that `pack` may write for r references: GROUP bytes at once."""
    return size_of(r, r) + GROUP // BYTES


@compiled
def bit_count(bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How many bits of a uint64 are set."""
    x = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@compiled
def lowest(bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The place of the lowest bit of a uint64 that is set."""
    return bit_count((bits & (~bits + np.uint64(1))) - np.uint64(1))


# Numbers in registers.
_BYTE, _SINGLE, _WHOLE = ir.IntType(8), ir.FloatType(), ir.IntType(32)
_BITS = ir.VectorType(ir.IntType(1), GROUP)


def _call(builder: Any, name: str, result: Any, *values: Any) -> Any:
    """An operation of the processor or the compiler, by its name."""
    kind = ir.FunctionType(result, [value.type for value in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)  # type: ignore[no-untyped-call]


class _Arguments:
    """The arguments of a compiled function, as the compiler's language has them."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.context, self.builder, self.kinds, self.args = context, builder, signature.args, args

    def array(self, which: int) -> Any:
        return self.context.make_array(self.kinds[which])(self.context, self.builder, self.args[which])

    def load(self, which: int, place: Any, kind: Any) -> Any:
        """A vector or number from a place in an array; the place counts the array's own numbers."""
        return self.builder.load(self._pointer(which, place, kind), align=1)

    def store(self, value: Any, which: int, place: Any) -> None:
        """The reverse of `load`."""
        self.builder.store(value, self._pointer(which, place, value.type), align=1)

    def _pointer(self, which: int, place: Any, kind: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(self.array(which).data, [place]), kind.as_pointer())


def _look_fast(typing_context, room, codes, at, limits, scale, weights, units, reach):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    """As `look_plain`, 64 references at once."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not FAST:  # then this is never called
            nothing = [context.get_constant(kind, 0) for kind in signature.return_type]
            return context.make_tuple(builder, signature.return_type, nothing)
        given, integer = _Arguments(context, builder, signature, args), context.get_value_type(types.intp)
        bytes_, wide = ir.VectorType(_BYTE, GROUP), ir.VectorType(_WHOLE, LANES)
        doubles = ir.VectorType(ir.DoubleType(), LANES)
        count_of = builder.extract_value(given.array(6).shape, 0)
        no_sum = ir.Constant(doubles, [0.0] * LANES)
        totals = [cgutils.alloca_once_value(builder, no_sum) for _ in range(2)]  # type: ignore[no-untyped-call]
        count = cgutils.alloca_once_value(builder, integer(0))  # type: ignore[no-untyped-call]
        place = cgutils.alloca_once_value(builder, builder.mul(builder.add(args[2], count_of), integer(BYTES)))  # type: ignore[no-untyped-call]
        limit_at = builder.mul(args[4], builder.extract_value(given.array(3).shape, 1))
        more = everywhere(builder, builder.trunc(args[7], _BYTE), GROUP)
        with cgutils.for_range_slice(builder, integer(0), count_of, integer(1), integer) as (g, _):
            bits = given.load(0, builder.add(args[2], g), integer)
            with builder.if_then(builder.icmp_unsigned("!=", bits, integer(0))):
                mask, first = builder.bitcast(bits, _BITS), builder.mul(g, integer(GROUP))
                zeros = ir.Constant(bytes_, [0] * GROUP)
                raw = given.load(1, builder.load(place), bytes_)
                code = _call(builder, "llvm.x86.avx512.mask.expand.v64i8", bytes_, raw, zeros, mask)
                limit = given.load(3, builder.add(limit_at, first), bytes_)
                above = _call(builder, "llvm.usub.sat.v64i8", bytes_, code, limit)
                opened = builder.and_(builder.icmp_unsigned(">", builder.add(code, more), limit), mask)
                ones = builder.zext(opened, bytes_)
                weight = builder.bitcast(given.load(5, first, bytes_), wide)
                unit = everywhere(builder, given.load(6, g, ir.DoubleType()), LANES)
                for total, factor in zip(totals, (above, ones), strict=True):
                    given_bytes = ir.Constant(wide, [0] * LANES), builder.bitcast(factor, wide), weight
                    sums = _call(builder, "llvm.x86.avx512.vpdpbusd.512", wide, *given_bytes)
                    product = builder.fmul(builder.sitofp(sums, doubles), unit, flags=["contract"])
                    builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
                opened = builder.bitcast(opened, integer)
                builder.store(builder.add(builder.load(count), builder.ctpop(opened)), count)
                builder.store(builder.add(builder.load(place), builder.ctpop(bits)), place)
        sums = [
            _call(builder, "llvm.vector.reduce.fadd.v16f64", ir.DoubleType(), ir.DoubleType()(0.0), builder.load(total))
            for total in totals
        ]
        return context.make_tuple(builder, signature.return_type, [*sums, builder.load(count)])

    result = types.Tuple([types.float64, types.float64, types.intp])  # type: ignore[no-untyped-call]
    return result(room, codes, types.intp, limits, types.intp, weights, units, types.intp), emit


look_fast: Any = intrinsic(_look_fast)


@compiled
def look_plain(room, codes, at, limits, scale, weights, units, reach):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """What the references that may count add at most, in steps times weights; their weights together; how many there
    are.

    Args:
        room: uint64; the compressed similarities begin at entry `at`. `codes`: the same as bytes.
        limits: (scales, groups * GROUP) uint8, of which row `scale` counts.
        weights: (groups * GROUP,) int8, multiples of `units` (groups,).
        reach: what is added to a byte before it is compared, to count.
    """
    gain, open_weight, count = 0.0, 0.0, np.int64(0)
    place = BYTES * (at + len(units))
    limit = limits[scale]
    for g in range(len(units)):
        bits, total, opened = room[at + g], np.int64(0), np.int64(0)
        while bits:
            i = g * GROUP + lowest(bits)
            bits &= bits - np.uint64(1)
            more, weight = np.int64(codes[place]) - np.int64(limit[i]), np.int64(weights[i])
            place += 1
            counts = np.int64(more + reach > 0)
            count += counts
            opened += weight * counts
            total += weight * max(more, np.int64(0))
        gain += units[g] * total
        open_weight += units[g] * opened
    return gain, open_weight, count


@compiled
def look(room, codes, at, limits, scale, weights, units, reach):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """See `look_plain`."""
    if FAST:
        return look_fast(room, codes, at, limits, scale, weights, units, reach)
    return look_plain(room, codes, at, limits, scale, weights, units, reach)


def _pack_group_fast(typing_context, s, low, base, g, doubt, inverse, room, codes, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    """As `pack_group`, all at once; writes GROUP bytes, of which the last may mean nothing."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not FAST:
            return args[8]
        given, integer = _Arguments(context, builder, signature, args), context.get_value_type(types.intp)
        singles, bytes_ = ir.VectorType(_SINGLE, GROUP), ir.VectorType(_BYTE, GROUP)
        wide = ir.VectorType(_WHOLE, GROUP)
        first = builder.mul(args[3], integer(GROUP))
        s_of, low_of, base_of = (given.load(which, first, singles) for which in range(3))
        mask = builder.fcmp_ordered(">", builder.fadd(s_of, everywhere(builder, args[4], GROUP)), low_of)
        margin = ir.Constant(singles, [MARGIN] * GROUP)
        steps = builder.fmul(builder.fadd(builder.fsub(s_of, base_of), margin), everywhere(builder, args[5], GROUP))
        zeros, ones = ir.Constant(wide, [0] * GROUP), ir.Constant(wide, [1] * GROUP)
        rounded = builder.add(builder.fptosi(steps, wide), ones)
        positive = builder.fcmp_ordered(">", steps, ir.Constant(singles, [0.0] * GROUP))
        code = builder.trunc(builder.select(positive, rounded, zeros), bytes_)
        nothing = ir.Constant(bytes_, [0] * GROUP)
        code = _call(builder, "llvm.x86.avx512.mask.compress.v64i8", bytes_, code, nothing, mask)
        bits = builder.bitcast(mask, integer)
        given.store(bits, 6, args[3])
        given.store(code, 7, args[8])
        return builder.add(args[8], builder.ctpop(bits))

    kinds = s, low, base, types.intp, types.float32, types.float32, room, codes, types.intp
    return types.intp(*kinds), emit


pack_group_fast: Any = intrinsic(_pack_group_fast)


@compiled
def pack_group(s, low, base, g, doubt, inverse, room, codes, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the bits of the references of group g to room[g], and their bytes to `codes` from `place` on; the next
    place.
    """
    bits = np.uint64(0)
    for i in range(g * GROUP, min((g + 1) * GROUP, len(s))):
        if s[i] + doubt > low[i]:
            bits |= np.uint64(1) << np.uint64(i - g * GROUP)
            steps = (s[i] - base[i] + np.float32(MARGIN)) * inverse
            codes[place] = np.uint8(np.int32(steps) + 1 if steps > 0 else 0)
            place += 1
    room[g] = bits
    return place


@compiled
def pack(s, low, base, doubt, step, room, codes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Compress the similarities of a row; the entries that it takes.

    Args:
        s, low, base: (r,) float32; `doubt`: float32. A similarity counts where s + doubt > low.
        step: float64, of `step_for` at least.
        room: (`most_entries`,) uint64; `codes`: the same as bytes.
    """
    r = len(s)
    inverse, start = np.float32(1.0 / step), BYTES * groups(r)
    place, whole = start, r // GROUP if FAST else 0
    for g in range(whole):
        place = pack_group_fast(s, low, base, g, doubt, inverse, room, codes, place)
    for g in range(whole, groups(r)):
        place = pack_group(s, low, base, g, doubt, inverse, room, codes, place)
    return size_of(r, place - start)


@compiled
def step_for(top, doubt, steps):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Which of the steps to take for similarities that lie up to `top` above their base: bytes and reach fit together."""
    return min(np.searchsorted(steps, (max(top, 0.0) + doubt + MARGIN) / (LARGEST - 2)), len(steps) - 1)


@compiled
def reach_of(doubt, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The doubt in steps, rounded up."""
    return np.int64(doubt / step) + 1 if doubt > 0 else np.int64(0)


def _shorten_group_fast(  # type: ignore[no-untyped-def]  # noqa: ANN202
    typing_context, codes, place, bits, limits, scale, g, reach, out, out_place,  # noqa: ANN001, ARG001
):  # fmt: skip
    """As `shorten_group`, all at once; writes GROUP bytes, of which the last may mean nothing."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not FAST:
            return args[2]
        given, integer = _Arguments(context, builder, signature, args), context.get_value_type(types.intp)
        bytes_ = ir.VectorType(_BYTE, GROUP)
        nothing = ir.Constant(bytes_, [0] * GROUP)
        mask = builder.bitcast(args[2], _BITS)
        raw = given.load(0, args[1], bytes_)
        code = _call(builder, "llvm.x86.avx512.mask.expand.v64i8", bytes_, raw, nothing, mask)
        limit_at = builder.mul(args[4], builder.extract_value(given.array(3).shape, 1))
        limit = given.load(3, builder.add(limit_at, builder.mul(args[5], integer(GROUP))), bytes_)
        more = everywhere(builder, builder.trunc(args[6], _BYTE), GROUP)
        stays = builder.and_(builder.icmp_unsigned(">", builder.add(code, more), limit), mask)
        code = _call(builder, "llvm.x86.avx512.mask.compress.v64i8", bytes_, code, nothing, stays)
        given.store(code, 7, args[8])
        return builder.bitcast(stays, integer)

    kinds = codes, types.intp, types.uint64, limits, types.intp, types.intp, types.intp, out, types.intp
    return types.uint64(*kinds), emit


shorten_group_fast: Any = intrinsic(_shorten_group_fast)


@compiled
def shorten_group(codes, place, bits, limits, scale, g, reach, out, out_place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the bytes of a group that may still count to `out`; their bits."""
    left, limit = np.uint64(0), limits[scale]
    while bits:
        place_of = lowest(bits)
        bits &= bits - np.uint64(1)
        if np.int64(codes[place]) + reach > np.int64(limit[g * GROUP + place_of]):
            left |= np.uint64(1) << np.uint64(place_of)
            out[out_place] = codes[place]
            out_place += 1
        place += 1
    return left


@compiled
def shorten(room, codes, at, limits, scale, reach, to, scratch, bytes_of_scratch):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Move compressed similarities to the place `to`, not behind their own, without what no longer counts; their new
    size.

    Args:
        scratch: (`most_entries`,) uint64; `bytes_of_scratch`: the same as bytes.
    """
    k = groups(limits.shape[1])
    place, out_place = BYTES * (at + k), BYTES * k
    for g in range(k):
        bits = room[at + g]
        if FAST:
            left = shorten_group_fast(codes, place, bits, limits, scale, g, reach, bytes_of_scratch, out_place)
        else:
            left = shorten_group(codes, place, bits, limits, scale, g, reach, bytes_of_scratch, out_place)
        scratch[g] = left
        place += bit_count(bits)
        out_place += bit_count(left)
    size = -(-out_place // BYTES)
    for e in range(size):
        room[to + e] = scratch[e]
    return size


@compiled
def unpack(room, codes, at, limits, scale, reach, base, step, which, most):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write which references may count, and their similarities at most; how many.

    Args:
        which: int32, `most`: float32, with room for one more.
    """
    count, k, limit = 0, groups(limits.shape[1]), limits[scale]
    place = BYTES * (at + k)
    for g in range(k):
        bits = room[at + g]
        while bits:
            i = g * GROUP + lowest(bits)
            bits &= bits - np.uint64(1)
            code = np.int64(codes[place])
            place += 1
            which[count] = i
            most[count] = np.float32(base[i] + code * step) + np.float32(MARGIN)
            count += code + reach > np.int64(limit[i])
    return count


@compiled
def limit_of(low, base, step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """What a reference is covered with, in steps above a base, rounded down."""
    return np.uint8(min(max((np.float64(low) - np.float64(base)) / step, 0.0), 1.0 * LARGEST))
