"""Rows are asked for before they are needed, so that the wait for memory overlaps with work."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.policy import config, part

_LINE_BYTES = 64
_FOR_WRITING, _KEEP, _DATA = 1, 3, 1  # the LLVM language reference, llvm.prefetch


@intrinsic
def _prefetch(typing_context, array, index):
    def generate(context, builder, signature, arguments):
        array_type = signature.args[0]
        held = context.make_array(array_type)(context, builder, arguments[0])
        place = cgutils.get_item_pointer(context, builder, array_type, held, [arguments[1]])
        word = ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word])
        prefetch = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        hints = [ir.Constant(word, hint) for hint in (_FOR_WRITING, _KEEP, _DATA)]
        builder.call(prefetch, [builder.bitcast(place, cgutils.voidptr_t), *hints])
        return context.get_dummy_value()

    return types.void(array, index), generate


def _prefetch_row(vectors, row):
    """Ask for a row of a (n_rows, columns) array, to be read and written soon."""
    for column in range(0, vectors.shape[1], _LINE_BYTES // vectors.itemsize):
        _prefetch(vectors[row], column)


def _nothing(vectors, row):
    """Do nothing: plain Python has no such thing."""


prefetch_row = part(_nothing if config.DISABLE_JIT else _prefetch_row)
