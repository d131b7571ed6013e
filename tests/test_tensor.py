"""Tensor: reverse-mode gradients, their life, and what a tensor takes and gives."""

import weakref

import numpy
import pytest

import tinyconv
import tinyconv.functional as F
from tinyconv import Tensor, no_grad

A = numpy.array([1.0, 2.0, 3.0])


def leaf(values=A):
    return Tensor(numpy.array(values), requires_grad=True)


# Gradients ----------------------------------------------------------------------------------------


def test_a_tensor_used_twice_collects_both_gradients(backend):
    x = leaf()
    (x * x + x).sum().backward()
    assert x.grad.numpy().tolist() == [3, 5, 7]


def test_paths_of_different_length(backend):
    x = leaf()
    y = x * 2
    z = y * y  # 4 x^2
    (z * y + z + y).sum().backward()  # 8 x^3 + 4 x^2 + 2 x
    assert x.grad.numpy().tolist() == [24 * v * v + 8 * v + 2 for v in A]


def test_a_diamond_of_many_layers_takes_linear_time():
    x = leaf([1.0])
    y = x
    for _ in range(60):  # 2**60 paths
        y = (y + y) * 0.5
    y.backward()
    assert x.grad.item() == 1


def test_a_long_chain_needs_no_recursion():
    x = leaf([1.0])
    y = x
    for _ in range(20_000):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1
    del y  # nor does freeing it


def test_gradients_of_several_backwards_add_up():
    x = leaf()
    for _ in range(3):
        (x * 2).sum().backward()
    assert x.grad.numpy().tolist() == [6, 6, 6]
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad.numpy().tolist() == [2, 2, 2]


def test_a_shared_weight_collects_from_every_use():
    w = leaf([[2.0]])
    x = Tensor(numpy.array([[3.0]]))
    F.linear(F.linear(x, w), w).backward()  # w^2 x
    assert w.grad.item() == 12


def test_backward_of_several_values_needs_a_gradient():
    y = leaf() * 2
    with pytest.raises(RuntimeError, match=r"shape \(3,\) has no single value: pass `gradient`"):
        y.backward()
    y.backward(numpy.array([1.0, 10, 100]))


def test_backward_with_a_gradient():
    x = leaf()
    (x * 2).backward(Tensor(numpy.array([1.0, 10, 100])))
    assert x.grad.numpy().tolist() == [2, 20, 200]
    with pytest.raises(tinyconv.ShapeError, match=r"gradient has shape \(2,\), expected \(3,\)"):
        (x * 2).backward(numpy.ones(2))
    x = leaf([[5.0]])
    x.backward()
    assert x.grad.numpy().tolist() == [[1]]


def test_backward_without_a_graph():
    with pytest.raises(RuntimeError, match="not computed from one that requires_grad"):
        Tensor(A).sum().backward()
    with pytest.raises(RuntimeError, match="requires_grad"):
        leaf().detach().sum().backward()


def test_a_graph_is_freed_by_backward():
    y = (leaf() * 2).sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"used and freed.*retain_graph=True"):
        y.backward()


def test_retain_graph():
    x = leaf()
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.numpy().tolist() == [4, 8, 12]
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()


def test_a_part_that_two_losses_share():
    x = leaf()
    shared = x * x
    first, second = shared.sum(), (shared * 2).sum()
    first.backward(retain_graph=True)
    second.backward()
    assert x.grad.numpy().tolist() == [6, 12, 18]


def test_no_grad():
    x = leaf()
    with no_grad():
        y = x * 2
        with no_grad():
            pass
        z = x * 3  # leaving the inner one does not switch it on
    assert not y.requires_grad
    assert not z.requires_grad
    assert y.node is None
    assert (x * 2).requires_grad


def test_no_grad_ends_with_an_error_and_decorates():
    with pytest.raises(ZeroDivisionError), no_grad():
        1 / 0  # noqa: B018

    @no_grad()
    def double(x):
        return x * 2

    x = leaf()
    assert not double(x).requires_grad
    assert not double(x).requires_grad
    assert (x * 2).requires_grad


def test_retain_grad():
    x = leaf()
    y = x * 2
    y.retain_grad()
    z = (y * y).sum()
    z.backward()
    assert y.grad.numpy().tolist() == [4, 8, 12]
    assert x.grad.numpy().tolist() == [8, 16, 24]


def test_intermediate_tensors_keep_no_gradient_unasked():
    y = leaf() * 2
    y.sum().backward()
    assert y.grad is None


def test_retain_grad_of_the_output_and_of_a_leaf():
    x = leaf([2.0])
    x.retain_grad()
    y = x * 3
    y.retain_grad()
    y.backward()
    assert (x.grad.item(), y.grad.item()) == (3, 1)


def test_detach():
    x = leaf()
    d = (x * 2).detach()
    assert not d.requires_grad
    (x * d).sum().backward()
    assert x.grad.numpy().tolist() == [2, 4, 6]


def test_only_what_requires_a_gradient_gets_one():
    x, y = leaf(), Tensor(A)
    (x * y).sum().backward()
    assert y.grad is None
    assert not (y * y).requires_grad


# Gradients are arrays of their own ----------------------------------------------------------------


def with_gradients():
    """Tensors right after a backward whose ops hand arrays or views of them through."""
    a, b = leaf(), leaf()
    (a + b).sum().backward()
    yield a, b
    a, b = leaf(), leaf()
    seed = numpy.ones(3)
    (a + b).backward(seed)
    yield a, b, Tensor(seed)
    a, b = leaf(), leaf()
    F.cat([a, b]).sum().backward()
    yield a, b
    a = leaf()
    y = a.reshape(1, 3)
    y.retain_grad()
    z = y.transpose(0, 1)
    z.retain_grad()
    z.sum().backward()
    yield a, y, z
    a, seed = leaf(), numpy.ones(3)
    a.backward(seed)
    yield a, Tensor(seed)


def test_gradients_are_not_aliased():
    for tensors in with_gradients():
        arrays = [(t if t.grad is None else t.grad).data for t in tensors]
        for i, array in enumerate(arrays):
            array[...] = i + 10  # must be writable, each value at a place of its own
        for i, array in enumerate(arrays):
            assert (array == i + 10).all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_gradient_of_a_reduction_has_memory_of_its_own(reduction):
    x = leaf(numpy.ones((2, 3)))
    getattr(x, reduction)().backward()
    x.grad.data[0, 0] = 7
    assert (x.grad.numpy() == 7).sum() == 1


def test_adding_to_a_gradient_does_not_change_what_was_taken_from_it():
    x = leaf()
    (x * 2).sum().backward()
    taken = x.grad
    (x * 2).sum().backward()
    assert taken.numpy().tolist() == [2, 2, 2]


# Memory -------------------------------------------------------------------------------------------


def test_backward_frees_what_was_saved():
    x = leaf()
    y = F.relu(x * 2)
    saved = weakref.ref(y.node.saved[0])
    loss = (y * y).sum()
    del y
    assert saved() is not None
    loss.backward()
    assert saved() is None


def test_what_no_op_saved_is_freed_at_once():
    x = leaf()
    y = x * 2
    values = weakref.ref(y.data)
    z = y + 1  # needs y's shape only
    del y
    assert values() is None
    z.sum().backward()
    assert x.grad.numpy().tolist() == [2, 2, 2]


def test_nothing_is_kept_under_no_grad():
    x = leaf()
    with no_grad():
        y = x * 2
        values = weakref.ref(y.data)
        y = F.relu(y)
    assert values() is None


def test_a_dropped_graph_is_freed_without_the_garbage_collector():
    x = leaf()
    y = (x * x).sum()
    node = weakref.ref(y.node)
    del y
    assert node() is None


# What goes in and out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, "float32"), ([1.0, 2.0], "float32"), ([[1.0], [2.0]], "float32"), (1, "int64"),
        ([1, 2], "int64"), (True, "bool"), (numpy.float64(1), "float64"),
        (numpy.ones(2, numpy.float64), "float64"), (numpy.ones(2, numpy.float32), "float32"),
        (numpy.ones(2, numpy.uint8), "uint8"),
    ],
)  # fmt: skip
def test_dtype_of_a_new_tensor(data, dtype, backend):
    tensor = Tensor(data)
    assert tensor.dtype == dtype
    assert tensor.shape == numpy.shape(data)
    assert numpy.array_equal(tensor.numpy(), data)


def test_only_floats_have_gradients():
    with pytest.raises(TypeError, match="only floats have gradients, found int64"):
        Tensor([1, 2], requires_grad=True)


def test_gradients_have_the_dtype_of_their_tensor(backend):
    x = Tensor(A.astype(numpy.float32), requires_grad=True)
    w = Tensor(A, requires_grad=True)
    y = x * w  # float64, as NumPy and PyTorch promote
    assert y.dtype == numpy.float64
    y.backward(numpy.ones(3, numpy.float32))
    assert x.grad.dtype == numpy.float32
    assert w.grad.dtype == numpy.float64
    x = Tensor(A.astype(numpy.float32), requires_grad=True)
    (x * 2).backward(numpy.ones(3))
    assert x.grad.dtype == numpy.float32
    x.backward(numpy.ones(3))
    assert x.grad.dtype == numpy.float32


def test_array_times_tensor(backend):
    x = leaf()
    y = numpy.array([2.0, 3, 4]) * x
    assert isinstance(y, Tensor)
    y.sum().backward()
    assert x.grad.numpy().tolist() == [2, 3, 4]
    assert isinstance(numpy.float64(2) * x, Tensor)


def test_numpy_functions_do_not_take_tensors_silently():
    with pytest.raises(TypeError):
        numpy.exp(leaf())


def test_numpy_sees_the_values():
    x = Tensor(numpy.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
    assert numpy.asarray(x) is x.data
    assert numpy.array(x) is not x.data
    assert numpy.asarray(x, numpy.float32).dtype == numpy.float32
    assert numpy.asarray([x[0], x[1]]).tolist() == [[1, 2], [3, 4]]


def test_item_len_ndim():
    x = Tensor(numpy.ones((2, 3)))
    assert (len(x), x.ndim, x.shape, x.dtype) == (2, 2, (2, 3), numpy.float64)
    assert isinstance(x.sum().item(), float)
    with pytest.raises(ValueError, match="size 1"):
        x.item()
    with pytest.raises(TypeError):
        len(x.sum())


def test_full_reductions_are_arrays(backend):
    for y in (leaf().sum(), leaf().mean(), (leaf() * 2).amax()):
        assert type(y.data).__name__ == "ndarray"
        assert y.shape == ()


def test_repr():
    assert repr(Tensor([1.0, 2.0])) == "Tensor([1., 2.], dtype=float32)"
    assert repr(leaf([1.5])) == "Tensor([1.5], dtype=float64, requires_grad=True)"
    assert repr(Tensor(numpy.array([[1, 2], [3, 4]]))) == (
        "Tensor([[1, 2],\n        [3, 4]], dtype=int64)"
    )
    assert len(repr(Tensor(numpy.zeros(10_000)))) < 200


def test_tensors_are_told_apart_by_identity():
    a, b = leaf(), leaf()
    assert len({a, b, a}) == 2
    assert a != b
