"""Optimisers: storage, pieces, groups, saved states, the guard, and every message. Their numbers are in tests/parity."""

import copy

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.backend import threads
from minidl.backend.cpu import optim as cpu_optim
from minidl.backend.layout import is_stored_right
from minidl.nn import utils
from minidl.optim import SGD, Adagrad, Adam, AdamW, RMSprop

BUILD = {
    "SGD": lambda params: SGD(params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda params: Adam(params, lr=0.1, amsgrad=True),
    "AdamW": lambda params: AdamW(params, lr=0.1),
    "RMSprop": lambda params: RMSprop(params, lr=0.01, centered=True, momentum=0.9),
    "Adagrad": lambda params: Adagrad(params, lr=0.5),
}


def params_with_gradients(*shapes, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    params = [nn.Parameter(minidl.tensor(rng.standard_normal(shape).astype(dtype))) for shape in shapes]
    for param in params:
        param.grad = minidl.tensor(rng.standard_normal(param.shape).astype(dtype))
    return params


@pytest.mark.parametrize("name", BUILD)
def test_it_goes_downhill(name):
    target = minidl.tensor([1.0, -2.0, 3.0])
    x = nn.Parameter(minidl.zeros(3))
    rule = BUILD[name]([x])

    def closure():
        rule.zero_grad()
        loss = ((x - target) ** 2).sum()
        loss.backward()
        return loss

    first = rule.step(closure).item()
    for _ in range(300):
        last = rule.step(closure).item()
    assert first == 14 and last < 1e-2


@pytest.mark.parametrize("name", BUILD)
def test_pieces_change_nothing(name, monkeypatch):
    """A parameter of many pieces, one of one piece, and one in an order of its own come to the same numbers."""
    results = []
    for size, order in ((7, None), (1 << 14, None), (7, "gradient"), (7, "parameter")):
        monkeypatch.setattr(cpu_optim, "PIECE", size)
        params = params_with_gradients((3, 4, 5, 2), (40,), (), (0, 3))
        if order == "gradient":
            params[0].grad = minidl.Tensor(np.ascontiguousarray(params[0].grad.array))
        elif order == "parameter":
            params[0].data = minidl.Tensor(np.asfortranarray(params[0].array))
        rule = BUILD[name](params)
        for _ in range(3):
            rule.step()
        results.append([param.array for param in params])
        assert all(is_stored_right(array) for array in results[-1][1:])
    for other in results[1:]:
        assert all(np.abs(a - b).max(initial=0) <= 1e-15 for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("name", BUILD)
def test_threads_and_backends_change_nothing(name, monkeypatch):
    """Elementwise rules: the same bits with 1, 2 and 3 threads, and as with the plain loop over whole parameters."""
    monkeypatch.setattr(threads, "BIG", 0)
    monkeypatch.setattr(cpu_optim, "BIG", 0)
    monkeypatch.setattr(cpu_optim, "PIECE", 50)
    results = []
    for count, forced in ((1, None), (2, None), (3, None), (2, "generic"), (2, "reference")):
        monkeypatch.setattr(threads, "_wanted", count)
        params = params_with_gradients((3, 4, 5, 2), (40,), (), (0, 3), (400,), dtype="float32")
        rule = BUILD[name](params)
        with minidl.use_backend(forced):
            for _ in range(3):
                rule.step()
        results.append([param.array for param in params])
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arrays_are_written_in_place(name, dtype):
    params = params_with_gradients((3, 4, 5, 2), (4,), dtype=dtype)
    arrays, grads = [p.array for p in params], [p.grad.array.copy() for p in params]
    before = [array.copy() for array in arrays]
    BUILD[name](params).step()
    for param, array, old, grad in zip(params, arrays, before, grads, strict=True):
        assert param.array is array and array.dtype == dtype and is_stored_right(array) and np.any(array != old)
        assert np.array_equal(param.grad.array, grad), "the gradient must stay as it is"


@pytest.mark.parametrize("name", BUILD)
def test_a_saved_state_goes_on_the_same(name):
    params, twins = params_with_gradients((2, 3), (4,)), params_with_gradients((2, 3), (4,))
    ours, other = BUILD[name](params), BUILD[name](twins)
    for _ in range(2):
        ours.step()
    state = copy.deepcopy(ours.state_dict())
    for param, twin in zip(params, twins, strict=True):
        twin.data = minidl.tensor(param.array)
    other.param_groups[0]["lr"] = 77
    other.load_state_dict(state)
    for rule in (ours, other):
        rule.step()
    assert all(np.array_equal(a.array, b.array) for a, b in zip(params, twins, strict=True))
    assert state["param_groups"][0]["params"] == [0, 1] and other.param_groups[0]["lr"] != 77
    assert all(not np.shares_memory(state["state"][0][key].array, value.array) for key,
               value in other.state[twins[0]].items() if key != "step")


def test_a_parameter_without_a_gradient_waits():
    params = params_with_gradients((2,), (2,))
    params[1].grad, before = None, params[1].array.copy()
    rule = Adam(params)
    rule.step()
    assert np.array_equal(params[1].array, before) and params[1] not in rule.state


def test_groups_have_settings_of_their_own():
    first, second, third = params_with_gradients((2,), (2,), (2,))
    rule = SGD([{"params": [first]}, {"params": second, "lr": 0.0}], lr=1.0)
    rule.add_param_group({"params": [third], "weight_decay": 1.0})
    before = [param.array.copy() for param in (first, second, third)]
    rule.step()
    assert np.allclose(first.array, before[0] - first.grad.array) and np.array_equal(second.array, before[1])
    assert np.allclose(third.array, -third.grad.array)
    rule.zero_grad()
    assert first.grad is second.grad is third.grad is None
    assert "Parameter Group 2\n    dampening: 0\n    lr: 1.0\n" in repr(rule)
    named = SGD(nn.Linear(2, 1).named_parameters())
    assert named.param_groups[0]["param_names"] == ["weight", "bias"]


def test_a_step_under_a_graph_is_noticed():
    """The weight that a backward still needs was overwritten: the walk must not use the new one."""
    layer = nn.Linear(2, 2)
    y = layer(layer(minidl.ones(1, 2))).sum()
    for param in layer.parameters():
        param.grad = minidl.ones(*param.shape)
    SGD(layer.parameters()).step()
    with pytest.raises(minidl.core.errors.GraphError, match=r"SGD\.step"):
        y.backward()


def test_steps_and_clips_lift_the_locks_of_debug():
    layer = nn.Linear(2, 2)
    with minidl.debug():
        y = layer(layer(minidl.ones(1, 2))).sum()
        assert not layer.weight.array.flags.writeable
        for param in layer.parameters():
            param.grad = minidl.ones(*param.shape)
            param.grad * nn.Parameter(minidl.ones(1))  # a graph that needs the gradient
        utils.clip_grad_norm_(layer.parameters(), 0.5)
        utils.clip_grad_value_(layer.parameters(), 0.1)
        SGD(layer.parameters()).step()
        assert not layer.weight.array.flags.writeable and y.requires_grad


def test_clipping_is_a_write():
    x = nn.Parameter(minidl.ones(3))
    x.grad = minidl.tensor([3.0, 0.0, 4.0])
    assert utils.clip_grad_norm_(x, 1.0).item() == 5 and np.allclose(x.grad.array, [0.6, 0, 0.8], atol=1e-6)
    assert utils.clip_grad_norm_([x], 10.0).item() == pytest.approx(1, abs=1e-6) and np.allclose(x.grad.array, [0.6, 0, 0.8], atol=1e-6)
    utils.clip_grad_value_([x], 0.7)
    assert x.grad.tolist() == pytest.approx([0.6, 0, 0.7], abs=1e-6)
    assert utils.clip_grad_norm_([], 1.0).item() == 0


def test_one_vector_and_back():
    params = params_with_gradients((2, 3), (2, 2, 2, 2), ())
    vector = utils.parameters_to_vector(params)
    assert vector.shape == (23,) and vector.requires_grad
    utils.vector_to_parameters((vector * 2).detach(), params)
    assert np.allclose(utils.parameters_to_vector(params).detach().array, vector.detach().array * 2)
    assert is_stored_right(params[1].array)


def leaf():
    return nn.Parameter(minidl.ones(2))


def shared():
    x = leaf()
    rule = SGD([x])
    rule.add_param_group({"params": [x]})


def infinite():
    x = leaf()
    x.grad = minidl.tensor([1.0, float("inf")])
    utils.clip_grad_norm_([x], 1.0, error_if_nonfinite=True)


MESSAGES = [
    (lambda: SGD(nn.Linear(2, 2)), TypeError, ["SGD: it takes a list of parameters.", "got a Linear", "Did you mean model.parameters()?"]),
    (lambda: SGD(leaf()), TypeError, ["got a Parameter", "Write [param]."]),
    (lambda: Adam([]), ValueError, ["Adam: there are no parameters to train.", "a generator that was used up is empty"]),
    (lambda: SGD([1.0]), TypeError, ["every parameter must be a Tensor.", "got float 1.0"]),
    (lambda: SGD([leaf() * 2]), ValueError, ["only a leaf can be trained.", "made by mul"]),
    (shared, ValueError, ["a parameter may be in one group only, once.", "1 in another group"]),
    (lambda: SGD([leaf()], lr=-1), ValueError, ["SGD: lr must not be negative.", "lr = -1"]),
    (lambda: Adam([leaf()], betas=(0.9, 1.0)), ValueError, ["betas must not be negative, and below 1."]),
    (lambda: Adagrad([leaf()], eps=float("nan")), ValueError, ["eps must not be negative."]),
    (lambda: SGD([leaf()], nesterov=True), ValueError, ["nesterov needs momentum and no dampening."]),
    (lambda: SGD([leaf()]).load_state_dict(SGD([leaf(), leaf()]).state_dict()), RuntimeError,
     ["the groups must hold as many parameters as the saved ones.", "parameters per group: [1]", "saved: [2]"]),
    (lambda: Adam([leaf()]).load_state_dict({"state": {0: {"exp_avg": minidl.ones(3)}}, "param_groups": [{"params": [0]}]}), RuntimeError,
     ["exp_avg must have the shape of its parameter.", "parameter: (2,)", "saved: (3,)"]),
    (infinite, RuntimeError, ["the norm of the gradients is not finite.", "minidl.detect_anomaly()"]),
    (lambda: utils.parameters_to_vector([]), ValueError, ["there are no parameters.", "a generator can be used once only"]),
    (lambda: utils.vector_to_parameters(minidl.ones(3), [leaf()]), ValueError,
     ["one number per parameter element.", "2 elements in 1 tensors"]),
]


@pytest.mark.parametrize("call, kind, parts", MESSAGES, ids=[parts[0][:40] for _, _, parts in MESSAGES])
def test_a_message(call, kind, parts):
    with pytest.raises(kind) as caught:
        call()
    assert [part for part in parts if part not in str(caught.value)] == [], caught.value
