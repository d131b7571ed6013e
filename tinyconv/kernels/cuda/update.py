"""The optimisers' updates: all parameters in one launch, each number read and written once.

Where there are more parameters than a launch can take the addresses of, there are several launches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinyconv.backend import Array
from tinyconv.kernels.cuda.elementwise import like
from tinyconv.kernels.cuda.launch import PROCESSORS, ceil_div, launch
from tinyconv.kernels.cuda.strides import lies_in, order_of
from tinyconv.kernels.cuda.when import float32
from tinyconv.kernels.fused import Together
from tinyconv.op import register
from tinyconv.ops.update import (
    AdamUpdate,
    AdjustScale,
    CheckGradients,
    CountStep,
    RMSpropUpdate,
    Scaled,
    SGDUpdate,
)

# As in update.cu: numbers in a piece, rows of a table of parameters and of one of single arrays.
_PIECE = 128
_PARAMETERS, _ARRAYS = 60, 240

_THREADS = 256
_BLOCKS = 4 * PROCESSORS  # that run at the same time

# Of each update: its kernel, and those of its settings that no other update has.
_KERNELS: dict[type, tuple[str, Any]] = {
    SGDUpdate: ("sgd", lambda op: (op.momentum, op.dampening, op.nesterov)),
    AdamUpdate: ("adam", lambda op: (*op.betas, op.eps, op.shrink, op.amsgrad)),
    RMSpropUpdate: ("rmsprop", lambda op: (op.alpha, op.eps, op.momentum, op.centered)),
}

_settings = np.dtype(
    [("own", np.float64, 5), ("weight_decay", np.float32), ("l1", np.float32),
     ("maximize", np.int32)], align=True
)  # fmt: skip


# When ---------------------------------------------------------------------------------------------


def _slots(op, given):
    """The optimiser's arrays, None for those that the settings make no use of."""
    wanted: tuple[Any, ...] = (op.momentum,) if isinstance(op, SGDUpdate) else ()
    if isinstance(op, AdamUpdate):
        wanted = (True, True, op.amsgrad)
    if isinstance(op, RMSpropUpdate):
        wanted = (True, op.centered, op.momentum)
    return [(slot if w else None, bool(w)) for slot, w in zip(given, wanted, strict=True)]


def _is_number(x, *dtypes):
    return hasattr(x, "dtype") and x.shape == () and x.dtype in dtypes


def _update(op, xp, p, g, lr, t, *slots):
    if not float32(xp, p, g) or g.shape != p.shape or p.size >= 2**31:
        return False
    if not (_is_number(lr, np.float64) and _is_number(t, np.float64)):
        return False
    order = order_of(p)
    kept = [slot for slot, wanted in _slots(op, slots) if wanted]
    return order is not None and all(
        slot is not None and slot.dtype == np.float32 and slot.shape == p.shape
        and lies_in(slot, order)
        for slot in kept
    )  # fmt: skip


def _count(op, xp, t):
    return xp.__name__ == "cupy" and _is_number(t, np.float64, np.int64)


def _is_scaling(x):
    return x.dtype == np.float32 and x.shape == (3,) and x.flags.c_contiguous


def _plain(op, xp, *inputs):
    if type(op) is CountStep:
        return _count(op, xp, *inputs)
    return type(op) in _KERNELS and _update(op, xp, *inputs)


def _scaled(op, xp, scaling, *inputs):
    return _is_scaling(scaling) and _plain(op.op, xp, *inputs)


def _together(op, xp, *inputs):
    each = _split(inputs, op.width)
    if isinstance(op.op, Scaled):
        one = all(scaling is inputs[0] for scaling, *_ in each)
        return one and all(_scaled(op.op, xp, *given) for given in each)
    return all(_plain(op.op, xp, *given) for given in each)


def _check(op, xp, scaling, *gradients):
    return bool(gradients) and _is_scaling(scaling) and float32(xp, *gradients)


def _adjust(op, xp, scaling):
    return xp.__name__ == "cupy" and _is_scaling(scaling)


def _split(inputs, width):
    return [inputs[i : i + width] for i in range(0, len(inputs), width)]


# The ways -----------------------------------------------------------------------------------------


@register(SGDUpdate, "forward", _update)
@register(AdamUpdate, "forward", _update)
@register(RMSpropUpdate, "forward", _update)
@register(CountStep, "forward", _count)
def update_in_place(op, xp, *inputs):
    """One parameter's update, or one count."""
    return _run(op, [inputs], None)


@register(Scaled, "forward", _scaled)
def scaled_update_in_place(op, xp, scaling, *inputs):
    """One parameter's update, or one count, unless a gradient overflowed."""
    return _run(op.op, [inputs], scaling)


@register(Together, "forward", _together)
def updates_in_one_launch(op, xp, *inputs):
    """The updates, or counts, of all parameters."""
    each = _split(inputs, op.width)
    if isinstance(op.op, Scaled):
        return _run(op.op.op, [given[1:] for given in each], inputs[0])
    return _run(op.op, each, None)


@register(CheckGradients, "forward", _check)
def check_in_one_launch(op, xp, scaling, *gradients):
    """Whether any gradient overflowed, told by the last block that has looked."""
    dense = [g if order_of(g) else xp.ascontiguousarray(g) for g in gradients]
    tables = _tables([[g] for g in dense], [g.size for g in dense], _ARRAYS)
    for number, table in enumerate(tables):
        launch(
            "update.cu", "check_gradients", _blocks(table), _THREADS, table, scaling, number == 0
        )  # fmt: skip
    return None, ()


@register(AdjustScale, "forward", _adjust)
def adjust_on_the_device(op, xp, scaling):
    """The scale after an overflow, or after enough steps without one."""
    numbers = float(op.growth), float(op.backoff), float(op.interval)
    launch("update.cu", "adjust_scale", 1, 32, scaling, *numbers)
    return None, ()


def _run(op, parameters, scaling):
    if isinstance(op, CountStep):
        whole = [int(t.dtype == np.int64) for (t,) in parameters]
        for table in _tables(parameters, whole, _ARRAYS):
            launch("update.cu", "count_steps", 1, _THREADS, table, scaling)
        return None, ()
    rows = []
    for p, g, lr, t, *slots in parameters:
        kept = [slot for slot, _ in _slots(op, slots)]
        rows.append([p, like(g, p), lr, t, *kept, None, None][:7])
    kernel, own = _KERNELS[type(op)]
    settings = np.zeros(1, _settings)
    settings["own"][0, : len(own(op))] = own(op)
    settings["weight_decay"], settings["l1"] = op.weight_decay, op.l1
    settings["maximize"] = op.maximize
    for table in _tables(rows, [p.size for p, *_ in rows], _PARAMETERS):
        launch("update.cu", kernel, _blocks(table), _THREADS, table, settings, scaling)
    return None, ()


def _tables(
    rows: Sequence[Sequence[Array | None]], sizes: Sequence[int], most: int
) -> Iterator[np.ndarray]:
    """Struct Table of update.cu, filled with the addresses of `rows`; as many as it takes."""
    width = len(rows[0])
    layout = np.dtype(
        [("row", np.uint64, (most, width)), ("size", np.int32, most),
         ("first", np.int32, most + 1), ("rows", np.int32)], align=True
    )  # fmt: skip
    for start in range(0, len(rows), most):
        here = range(start, min(start + most, len(rows)))
        table = np.zeros(1, layout)
        table["rows"] = len(here)
        for i, number in enumerate(here):
            table["row"][0, i] = [0 if a is None else a.data.ptr for a in rows[number]]
            table["size"][0, i] = sizes[number]
            table["first"][0, i + 1] = table["first"][0, i] + ceil_div(sizes[number], _PIECE)
        yield table


def _blocks(table):
    pieces = int(table["first"][0, int(table["rows"][0])])
    return min(ceil_div(pieces, _THREADS // 32), _BLOCKS)
