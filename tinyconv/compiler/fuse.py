"""Rewriting a record: chains of ops become one fused op, updates of parameters one call.

A chain may be fused where nothing outside of it sees what goes on inside: not another op, not the
result, and on the way back not another gradient.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import UnionType
from typing import Any

from tinyconv.backend import xp
from tinyconv.compiler.record import Call, Record, Value
from tinyconv.kernels.fused import (
    ConvNormReLU,
    NormReLUPool,
    PaddedConv2d,
    ReLUPool,
    Together,
)
from tinyconv.op import Op, choose
from tinyconv.ops.activation import ReLU, ReLU6
from tinyconv.ops.conv import Conv2d
from tinyconv.ops.elementwise import Add
from tinyconv.ops.norm import BatchNorm
from tinyconv.ops.pool import MaxPool2d
from tinyconv.ops.shape import Pad
from tinyconv.ops.update import CountStep, Scaled, Update


@dataclass(frozen=True)
class Rule:
    """Ops that follow one another, the op they become, and what that one saves of theirs.

    `fused` takes the ops and gives None where their settings do not fit; `saved` takes the calls.
    """

    chain: tuple[type[Op] | UnionType, ...]
    fused: Callable[..., Op | None]
    saved: Callable[..., tuple[Any, ...]]


def _save_norm(*chain: Call) -> tuple[Any, ...]:
    """x, weight, mean, inverse_std, y, winner of NormReLUPool."""
    norm = next(call for call in chain if isinstance(call.op, BatchNorm))
    winner = chain[-1].saved[0] if isinstance(chain[-1].op, MaxPool2d) else None
    return chain[0].inputs[0], *norm.saved[1:], chain[-1].outputs[0], winner


def _padded(pad: Any, conv: Any) -> Op | None:
    """The convolution `conv` that adds the zeros of `pad` around images by itself."""
    fits = pad.value == 0 and (*pad.before[:2], *pad.after[:2]) == (0, 0, 0, 0)
    if not fits or min(*pad.before, *pad.after) < 0 or type(conv) is not Conv2d:
        return None
    before, after = pad.before[2:], pad.after[2:]
    if before == after:
        padding = tuple(p + more for p, more in zip(conv.padding, before, strict=True))
        return replace(conv, padding=padding)
    return PaddedConv2d(**vars(conv), before=before, after=after)


def _conv_norm_relu(conv: Any, norm: Any, *rest: Any) -> Op | None:
    if norm.training:  # the statistics are there only when the convolution is done
        return None
    relu = rest[-1] if rest and not isinstance(rest[-1], Add) else None
    return ConvNormReLU(conv, norm, relu)


# Longer chains come first: the first rule that fits is taken.
RULES = (
    Rule((Pad, Conv2d), _padded, lambda p, c: (p.inputs[0], *c.saved[1:])),
    Rule((BatchNorm, ReLU, MaxPool2d), lambda n, r, p: NormReLUPool(n, p, False), _save_norm),
    Rule((ReLU, BatchNorm, MaxPool2d), lambda r, n, p: NormReLUPool(n, p, True), _save_norm),
    *(
        Rule((Conv2d, BatchNorm, *rest), _conv_norm_relu, lambda *chain: ())
        for rest in ((Add, ReLU | ReLU6), (Add,), (ReLU | ReLU6,), ())
    ),
    Rule(
        (BatchNorm, ReLU | ReLU6),
        lambda n, r: NormReLUPool(n, None, False, isinstance(r, ReLU6)),
        _save_norm,
    ),
    Rule((ReLU, BatchNorm), lambda r, n: NormReLUPool(n, None, True), _save_norm),
    Rule(
        (ReLU, MaxPool2d),
        lambda r, p: ReLUPool(p),
        lambda r, p: (p.outputs[0], p.saved[0], p.inputs[0].shape),
    ),
)


def rewrite(record: Record, kept: Sequence[Value]) -> list[Call]:
    """The calls of a record without those that nobody needs, fused where a rule fits.

    `kept` are the values that must be there in the end.
    """
    calls = _without_unread(record.calls, kept)
    calls = _fuse_chains(calls, set(kept))
    return _join_updates(calls)


def _without_unread(calls: list[Call], kept: Sequence[Value]) -> list[Call]:
    """Without the calls that change nothing and make nothing that is read later."""
    wanted, needed = set(kept), []
    for call in reversed(calls):
        if call.mutated() or any(value in wanted for value in call.makes()):
            wanted.update(call.reads())
            needed.append(call)
    return needed[::-1]


def _fuse_chains(calls: list[Call], kept: set[Value]) -> list[Call]:
    for rule in RULES:
        start = 0
        while start < len(calls):
            found = _chain(calls, start, rule, kept)
            if found:
                calls = _replace(calls, rule, *found)
            start += 1
    return calls


def _chain(
    calls: list[Call], start: int, rule: Rule, kept: set[Value]
) -> tuple[list[Call], list[Call]] | None:
    """The chain that begins with call `start`, and its backward calls in the order of forward."""
    chain = [calls[start]] if isinstance(calls[start].op, rule.chain[0]) else []
    if not chain or chain[0].direction != "forward":
        return None
    for call in calls[start + 1 :]:
        if len(chain) == len(rule.chain):
            break
        if isinstance(call.op, CountStep):  # batch norm's count of batches, which is its own
            continue
        fits = isinstance(call.op, rule.chain[len(chain)]) and call.direction == "forward"
        if not fits or not _goes_on(chain[-1], call):
            return None
        chain.append(call)
    if len(chain) < len(rule.chain) or rule.fused(*(call.op for call in chain)) is None:
        return None
    backwards = [[c for c in calls if c.forward is call] for call in chain]
    if not backwards[0] and len(chain[0].inputs) == 1:  # no gradient is asked of its input
        backwards = backwards[1:]
    counts = {len(found) for found in backwards}
    if counts not in ({0}, {1}):
        return None
    back = [found[0] for found in backwards if found]
    if not _is_closed(calls, chain, back, kept):
        return None
    return (chain, back) if _has_kernels(rule, chain, back) else None


def _goes_on(before: Call, call: Call) -> bool:
    """Whether `call` works on the output of the call before, and on that once."""
    places = call.inputs if isinstance(call.op, Add) else call.inputs[:1]
    return sum(x is before.outputs[0] for x in places) == 1


def _is_closed(calls: list[Call], chain: list[Call], back: list[Call], kept: set[Value]) -> bool:
    """Whether nobody else reads what lies between the calls of a chain."""
    between = {call.outputs[0] for call in chain[:-1]} | {call.outputs[0] for call in back[1:]}
    if between & kept:
        return False
    # norm(x) + x: what comes from the side must not be made inside.
    if any(x is value for x in _extra_inputs(chain) for value in between):
        return False
    # Backward is done as one where the first of its calls was: what it reads is there by then.
    if any(after.inputs[0] is not before.outputs[0] for before, after in pairwise(back[::-1])):
        return False
    inside = {*chain, *back}
    return not any(between.intersection(c.reads()) for c in calls if c not in inside)


def _replace(calls: list[Call], rule: Rule, chain: list[Call], back: list[Call]) -> list[Call]:
    forward = _fused_forward(rule, chain)
    replaced: dict[Call, Call | None] = dict.fromkeys([*chain, *back])
    replaced[chain[-1]] = forward
    if back:
        replaced[back[-1]] = _fused_backward(forward, chain, back)
    return [new for call in calls if (new := replaced.get(call, call)) is not None]


def _extra_inputs(chain: list[Call]) -> tuple[Any, ...]:
    """The inputs of the chain's ops besides the value that goes through it."""
    extra = [
        x for before, call in pairwise(chain) for x in call.inputs if x is not before.outputs[0]
    ]
    return *chain[0].inputs[1:], *extra


def _fused_forward(rule: Rule, chain: list[Call]) -> Call:
    inputs = (chain[0].inputs[0], *_extra_inputs(chain))
    op = rule.fused(*(call.op for call in chain))
    assert op is not None
    return Call(op, "forward", inputs, chain[-1].outputs, rule.saved(*chain))


def _fused_backward(forward: Call, chain: list[Call], back: list[Call]) -> Call:
    gradients = (back[0].outputs[0], *(g for call in back for g in call.outputs[1:]))
    needs = (back[0].needs[0], *(n for call in back for n in call.needs[1:]))
    gy = back[-1].inputs
    return Call(forward.op, "backward", gy, gradients, forward.saved, needs, forward)


def _has_kernels(rule: Rule, chain: list[Call], back: list[Call]) -> bool:
    """Whether kernels are there for the fused op: its reference would bring nothing."""
    forward = _fused_forward(rule, chain)
    if choose(forward.op, "forward", xp(), tuple(map(stand_in, forward.inputs))) is None:
        return False
    if not back:
        return True
    backward = _fused_backward(forward, chain, back)
    saved = tuple(map(stand_in, backward.saved))
    arguments = (stand_in(backward.inputs[0]), saved, backward.needs)
    return choose(forward.op, "backward", xp(), arguments) is not None


def stand_in(thing: Any) -> Any:
    """An array of a value's shape and dtype, without memory if it is large; other things as are."""
    if not isinstance(thing, Value):
        return thing
    if thing.given is not None:
        return thing.given
    if math.prod(thing.shape) <= _SMALL:  # kernels look at how vectors lie
        return xp().zeros(thing.shape, thing.dtype)
    return xp().broadcast_to(xp().zeros((), thing.dtype), thing.shape)


_SMALL = 4096  # numbers


def _join_updates(calls: list[Call]) -> list[Call]:
    """All counts in one call, and each run of updates with equal settings in one call."""
    updated = [v for c in calls if isinstance(_unscaled(c), Update) for v in c.mutated()]
    if len(set(updated)) < len(updated):  # two steps in one: their order matters
        return calls
    times = Counter(c.inputs[-1] for c in calls if isinstance(_unscaled(c), CountStep))
    counts = [c for c in calls if isinstance(_unscaled(c), CountStep) and times[c.inputs[-1]] == 1]
    joined: list[Call] = []
    waiting: dict[Op, list[Call]] = {}
    for call in calls:
        if isinstance(_unscaled(call), Update):
            waiting.setdefault(call.op, []).append(call)
        elif call not in counts:
            joined += _together(waiting)
            waiting = {}
            joined.append(call)
    joined += _together(waiting)
    # Updates read some of the counts; nobody reads the others.
    first = next((i for i, call in enumerate(joined) if _updates(call)), len(joined))
    by_op: dict[Op, list[Call]] = {}
    for call in counts:
        by_op.setdefault(call.op, []).append(call)
    return joined[:first] + _together(by_op) + joined[first:]


def _unscaled(call: Call) -> Op:
    """The call's op, or what it does where gradients are scaled (mixed precision)."""
    return call.op.op if isinstance(call.op, Scaled) else call.op


def _updates(call: Call) -> bool:
    if not isinstance(call.op, Together):
        return False
    op = call.op.op
    return isinstance(op.op if isinstance(op, Scaled) else op, Update)


def _together(groups: dict[Op, list[Call]]) -> list[Call]:
    joined = []
    for op, calls in groups.items():
        inputs = tuple(x for call in calls for x in call.inputs)
        joined.append(Call(Together(op, len(calls[0].inputs)), "forward", inputs, (None,)))
    return joined
