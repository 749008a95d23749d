"""The compiled loop behind `float16`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from selection.kernels.compiled.jit import compiled

LANES = 16


@cache
def has_instruction() -> bool:
    """Whether numba compiles for a processor with the instruction.

    Of x86 processors those since 2013; for others numba might call a function that is not there.
    """
    chosen = numba.config.CPU_NAME or numba.config.CPU_FEATURES  # type: ignore[attr-defined]
    return not chosen and bool(get_host_cpu_features().get("f16c"))


def _write_lanes(typing_context, bits, out, at):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    """out[at : at + LANES] = the float16 numbers of these bits."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def pointer(which: int, kind: Any) -> Any:
            data = context.make_array(signature.args[which])(context, builder, args[which]).data
            return builder.bitcast(builder.gep(data, [args[2]]), ir.VectorType(kind, LANES).as_pointer())

        halves = builder.load(pointer(0, ir.HalfType()), align=2)
        wide = builder.fpext(halves, ir.VectorType(ir.FloatType(), LANES))
        builder.store(wide, pointer(1, ir.FloatType()), align=4)
        return context.get_dummy_value()

    return types.void(bits, out, types.intp), emit


write_lanes: Any = intrinsic(_write_lanes)


@compiled
def widen(bits, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the float16 numbers of these bits (n,) uint16 to (n,) float32."""
    whole = len(bits) - len(bits) % LANES
    for at in range(0, whole, LANES):
        write_lanes(bits, out, at)
    if whole < len(bits):
        few, wide = np.zeros(LANES, np.uint16), np.empty(LANES, np.float32)
        few[: len(bits) - whole] = bits[whole:]
        write_lanes(few, wide, 0)
        out[whole:] = wide[: len(bits) - whole]
