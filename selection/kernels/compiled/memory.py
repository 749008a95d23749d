"""Memory that is needed soon: a processor fetches it while it works on something else."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Bytes that a processor fetches at once.
LINE = 64


def _expect(typing_context, array, start, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    """Tell the processor that array[start:start + count] is needed soon; nothing else happens."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0])
        integer, number, byte = context.get_value_type(types.intp), ir.IntType(32), ir.IntType(8)
        fetch = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte.as_pointer(), number, number, number]),
            "llvm.prefetch.p0",
        )
        first = builder.bitcast(data.data, byte.as_pointer())
        begin = builder.mul(args[1], data.itemsize)
        end = builder.add(begin, builder.mul(args[2], data.itemsize))
        with cgutils.for_range_slice(builder, begin, end, integer(LINE), integer) as (at, _):
            builder.call(fetch, [builder.gep(first, [at]), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), emit


expect: Any = intrinsic(_expect)
