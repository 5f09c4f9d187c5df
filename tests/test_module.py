"""Modules: what they own, saved states, hooks, where an op was called from, and every message."""

import copy
import pickle
import threading

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.backend.layout import is_stored_right
from minidl.core.op import OBSERVERS, resolve


class Block(nn.Module):
    """Two layers and a shortcut."""

    def __init__(self, width=3):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.last = nn.Linear(width, width)

    def forward(self, x):
        return self.last(self.inner(x)) + x


# --- what a module owns ---------------------------------------------------------------------------------------------

def test_assignment_finds_the_owner():
    block = Block()
    assert [name for name, _ in block.named_parameters()] == ["inner.0.weight", "inner.0.bias", "last.weight", "last.bias"]
    block.inner = None
    assert [name for name, _ in block.named_parameters()] == ["last.weight", "last.bias"]
    block.extra = nn.Parameter(minidl.ones(2))
    assert "extra" in dict(block.named_parameters()) and block.extra is block.get_parameter("extra") and "extra" in dir(block)
    block.extra = None
    assert dict(block.named_parameters()).keys() == {"last.weight", "last.bias"} and block.extra is None
    del block.last
    assert list(block.parameters()) == [] and not hasattr(block, "last")


def test_a_name_changes_hands():
    block = Block()
    block.plain = 3
    block.plain = nn.ReLU()  # an ordinary attribute gives way to a module
    assert block.plain is block._modules["plain"]
    block.plain = nn.Parameter(minidl.ones(2))
    assert "plain" not in block._modules and "plain" in block._parameters


def test_buffers_move_and_stay_out_of_the_state():
    block = Block()
    block.register_buffer("seen", minidl.zeros(2))
    block.register_buffer("scratch", minidl.tensor([1, 2]), persistent=False)
    assert "seen" in block.state_dict() and "scratch" not in block.state_dict()
    block.double()
    assert block.seen.dtype == minidl.float64 and block.scratch.dtype == minidl.int64
    block.seen = minidl.ones(2)
    assert block.state_dict()["seen"].tolist() == [1, 1]


def test_conversion_keeps_the_parameters():
    block = Block()
    before = list(block.parameters())
    block(minidl.ones(2, 3)).sum().backward()
    assert block.to("cpu", minidl.float64) is block
    assert all(a is b and a.dtype == a.grad.dtype == minidl.float64 and a.is_leaf for a, b in zip(before, block.parameters(), strict=True))
    assert next(block.half().parameters()).dtype == minidl.float16
    assert next(block.float().parameters()).dtype == minidl.float32


def test_train_eval_apply_freeze():
    block, seen = Block(), []
    assert block.eval() is block and not any(module.training for module in block.modules())
    assert all(module.training for module in block.train().modules())
    assert block.apply(seen.append) is block and seen == [*block.inner, block.inner, block.last, block]
    block.requires_grad_(False)
    assert not block(minidl.ones(2, 3)).requires_grad


def test_zero_grad():
    block = Block()
    block(minidl.ones(2, 3)).sum().backward()
    block.zero_grad(set_to_none=False)
    assert all(np.all(param.grad.array == 0) for param in block.parameters())
    block.zero_grad()
    assert all(param.grad is None for param in block.parameters())


def test_weights_are_stored_channels_last():
    conv = nn.Conv2d(3, 4, 5)
    assert is_stored_right(conv.weight.array) and not conv.weight.array.flags.c_contiguous
    conv.double()
    assert is_stored_right(conv.weight.array)
    conv.load_state_dict({"weight": np.ones((4, 3, 5, 5)), "bias": np.zeros(4)})
    assert is_stored_right(conv.weight.array) and conv.weight.dtype == minidl.float64
    assert is_stored_right(nn.Parameter(minidl.tensor(np.ones((2, 3, 4, 5)))).array)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"])
def test_copies_are_whole_and_independent(again):
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
    twin = again(model)
    assert repr(twin) == repr(model)
    for (name, a), (other, b) in zip(model.state_dict().items(), twin.state_dict().items(), strict=True):
        assert name == other and np.array_equal(a.array, b.array) and not np.shares_memory(a.array, b.array)
        assert is_stored_right(b.array)
    assert all(isinstance(param, nn.Parameter) and param.requires_grad for param in twin.parameters())


def test_containers():
    layers = [nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3)]
    model = nn.Sequential(*layers)
    assert len(model) == 3 and model[-1] is layers[2] and list(model[1:]) == layers[1:] and list(model) == layers
    assert [name for name, _ in model[1:].named_children()] == ["1", "2"]  # as PyTorch's: a slice keeps the names
    model.insert(1, nn.Tanh())
    assert [name for name, _ in model.named_children()] == ["0", "1", "2", "3"] and isinstance(model[1], nn.Tanh) and model[2] is layers[1]
    del model[1]
    model[1] = nn.Sigmoid()
    assert isinstance(model[1], nn.Sigmoid) and len(model) == 3 and model.pop() is layers[2]
    assert len(model + nn.Sequential(nn.ReLU())) == 3
    named = nn.Sequential({"a": layers[0], "b": layers[1]})
    assert named.a is layers[0] and named(minidl.ones(1, 2)).shape == (1, 2)
    listed = nn.ModuleList(layers[:1])
    listed += [layers[1]]
    assert len(listed.append(layers[2])) == 3 and listed[1] is layers[1] and len(listed + [nn.ReLU()]) == 4
    both = nn.ModuleDict({"x": layers[0]})
    both["y"] = layers[1]
    both.update({"z": nn.ReLU()})
    assert list(both) == ["x", "y", "z"] and "y" in both and both.pop("x") is layers[0] and len(both) == 2
    some = nn.ParameterList([nn.Parameter(minidl.ones(2))])
    assert list(dict(some.append(nn.Parameter(minidl.ones(3))).named_parameters())) == ["0", "1"] and some[1].shape == (3,)


# --- states ------------------------------------------------------------------------------------------------------------

def test_a_state_shares_memory_and_loads_in_place():
    block = Block()
    state = block.state_dict()
    assert np.shares_memory(state["last.bias"].array, block.last.bias.array) and not state["last.bias"].requires_grad
    owner = block.last.weight
    new = {name: np.full(value.shape, k, np.float64) for k, (name, value) in enumerate(state.items())}
    assert repr(block.load_state_dict(new)) == "<All keys matched successfully>"
    assert block.last.weight is owner and owner.dtype == minidl.float32 and np.all(owner.array == 2)
    assert block.state_dict(keep_vars=True)["last.weight"] is owner


def test_a_load_that_fails_writes_nothing():
    block = Block()
    before = {name: value.numpy().copy() for name, value in block.state_dict().items()}
    with pytest.raises(minidl.core.errors.StateError):
        block.load_state_dict({name: np.ones(value.shape if name != "last.bias" else 7) for name, value in before.items()})
    assert all(np.array_equal(value.array, before[name]) for name, value in block.state_dict().items())


BAD = {  # what no parameter or counter can hold -> whether it is the counter's
    "text": (np.array(["a", "b"]), False), "objects": (np.array([None, 1], object), False), "complex": (np.ones(2, np.complex64), False),
    "too large": (np.array([1, 1e300]), False), "a counter of nan": (np.array(np.nan), True), "a counter of 1.5": (np.array(1.5), True),
}


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("value, counter", BAD.values(), ids=BAD)
def test_one_bad_value_and_nothing_is_loaded(value, counter, assign):
    norm = nn.BatchNorm2d(2)
    before = {name: tensor.numpy().copy() for name, tensor in norm.state_dict().items()}
    state = {name: array + 1 for name, array in before.items()} | {"num_batches_tracked" if counter else "running_var": value}
    if assign and value.dtype == np.float64 and not counter:
        norm.load_state_dict(state, assign=True)  # it takes over float64, which holds it
        return
    with pytest.raises(minidl.core.errors.DTypeError):
        norm.load_state_dict(state, assign=assign)
    assert all(np.array_equal(tensor.numpy(), before[name]) for name, tensor in norm.state_dict().items())


def test_values_are_converted_where_they_fit():
    norm = nn.BatchNorm2d(2)
    state = {**norm.state_dict(), "num_batches_tracked": np.array(7.0), "weight": np.array([1, 2]), "bias": np.array([np.inf, 0.1])}
    norm.load_state_dict(state)
    assert norm.num_batches_tracked.dtype == minidl.int64 and norm.num_batches_tracked.item() == 7
    assert norm.weight.tolist() == [1, 2] and norm.weight.dtype == minidl.float32 and norm.bias.array[0] == np.inf
    with pytest.raises(TypeError, match="of the model's kind"):
        norm.load_state_dict(state, assign=True)


def test_pytorch_parameters_and_bfloat16_load():
    torch = pytest.importorskip("torch")
    linear = nn.Linear(2, 1)
    linear.load_state_dict({"weight": torch.nn.Parameter(torch.tensor([[1.0, 2.0]])), "bias": torch.ones(1, dtype=torch.bfloat16)})
    assert linear.weight.tolist() == [[1, 2]] and linear.bias.tolist() == [1]
    with pytest.raises(TypeError, match=r"value\.cpu\(\)\.float\(\)"):
        linear.load_state_dict({"weight": torch.ones(1, 2, device="meta"), "bias": torch.ones(1)})


def test_names_from_files_cannot_steer_a_terminal():
    with pytest.raises(minidl.core.errors.StateError) as caught:
        Block().load_state_dict({"\x1b[2Ja\u202e": np.ones(2)})
    assert r"\x1b[2Ja\u202e (2,)" in str(caught.value) and "\x1b" not in str(caught.value)


def test_a_load_that_is_not_strict():
    block = Block()
    result = block.load_state_dict({"last.bias": np.ones(3), "elsewhere": np.ones(3)}, strict=False)
    assert result.missing_keys == ["inner.0.weight", "inner.0.bias", "last.weight"] and result.unexpected_keys == ["elsewhere"]
    assert np.all(block.last.bias.array == 1)


def test_a_load_may_assign():
    block, array = Block(), np.ones(3)
    block.load_state_dict({"last.bias": minidl.from_numpy(array)}, strict=False, assign=True)
    assert np.shares_memory(block.last.bias.array, array) and block.last.bias.requires_grad and isinstance(block.last.bias, nn.Parameter)


def test_a_missing_counter_is_forgiven():
    norm = nn.BatchNorm2d(2)
    state = {name: value for name, value in norm.state_dict().items() if name != "num_batches_tracked"}
    assert norm.load_state_dict(state).missing_keys == []


# --- calls -----------------------------------------------------------------------------------------------------------------

class Watch:
    """What an observer sees of every op: its name, the path of the running module, and the line of the model."""

    def __enter__(self):
        self.calls = []
        OBSERVERS.append(self.see)
        return self

    def __exit__(self, *_):
        OBSERVERS.remove(self.see)

    def see(self, call):
        self.calls.append((call.op.name, nn.current_path(), *resolve(call.site)))


def test_an_op_knows_its_place():
    model, x = nn.Sequential(Block(), nn.ReLU()), minidl.ones(2, 3)
    with Watch() as watch:
        model(x)
    here = Block.forward.__code__.co_firstlineno + 1
    outside = test_an_op_knows_its_place.__code__.co_firstlineno + 3
    assert [(name, path) for name, path, _, _ in watch.calls] == [
        ("linear", "0.inner.0"), ("tanh", "0.inner.1"), ("linear", "0.last"), ("add", "0"), ("relu", "1")]
    assert {file for _, _, file, _ in watch.calls} == {__file__}
    assert [line for _, _, _, line in watch.calls] == [here, here, here, here, outside]
    assert nn.current_path() is None


def test_the_place_belongs_to_the_thread_and_survives_an_exception():
    found = []

    class Broken(nn.Module):
        def forward(self, x):
            thread = threading.Thread(target=lambda: found.append(nn.current_path()))
            thread.start()
            thread.join()
            found.append(nn.current_path())
            raise KeyError

    with pytest.raises(KeyError):
        nn.Sequential(Broken())(1)
    assert found == [None, "0"] and nn.current_path() is None


def test_hooks_come_and_go():
    layer, seen = nn.ReLU(), []
    with layer.register_forward_hook(lambda *_: seen.append("second")):
        first = layer.register_forward_hook(lambda *_: seen.append("first"), prepend=True)
        layer(minidl.ones(2))
        first.remove()
        layer(minidl.ones(2))
    layer(minidl.ones(2))
    assert seen == ["first", "second", "second"]


def test_hooks_with_keywords():
    class Scaled(nn.Module):
        def forward(self, x, by=1):
            return x * by

    layer, seen = Scaled(), []
    layer.register_forward_pre_hook(lambda module, args, kwargs: (args, {"by": kwargs["by"] + 1}), with_kwargs=True)
    layer.register_forward_hook(lambda module, args, kwargs, y: seen.append(kwargs), with_kwargs=True)
    assert layer(minidl.ones(1), by=2).item() == 3 and seen == [{"by": 3}]


def test_a_backward_hook_hears_only_its_module():
    """The input is used elsewhere too: the hook must not see that part of its gradient."""
    layer, seen = nn.Tanh(), []
    layer.register_full_backward_hook(lambda module, given, got: seen.append((given[0].numpy().copy(), got[0].numpy().copy())))
    x = minidl.zeros(2, dtype=minidl.float64).requires_grad_()
    (layer(x) * 3 + x * 100).sum().backward()
    assert np.array_equal(seen[0][0], [3, 3]) and np.array_equal(seen[0][1], [3, 3]) and np.array_equal(x.grad.array, [103, 103])


def test_a_backward_hook_leaves_second_derivatives_whole():
    layer = nn.Tanh()
    layer.register_full_backward_hook(lambda module, given, got: None)
    x = minidl.tensor(np.linspace(-1, 1, 5)).requires_grad_()
    assert minidl.autograd.gradgradcheck(layer, (x,))


# --- messages -------------------------------------------------------------------------------------------------------------------

def unready():
    class Unready(nn.Module):
        def __init__(self):
            self.layer = nn.ReLU()

    Unready()


def backward_hook_on_a_dict():
    class Dict(nn.Module):
        def forward(self, x):
            return {"y": x}

    layer = Dict()
    layer.register_full_backward_hook(lambda *_: None)
    layer(minidl.ones(1))


def block_state(rename=lambda name: name, **changes):
    return {rename(name): changes.get(name.replace(".", "_"), value) for name, value in Block().state_dict().items()}


MESSAGES = [
    (unready, AttributeError, ["Unready.layer = ...: a module needs Module.__init__() first.", "Call super().__init__()"]),
    (lambda: setattr(Block(), "last", 3), TypeError, ["'last' is a module, so it takes a Module or None.", "assigned: int 3"]),
    (lambda: setattr(nn.Linear(2, 2), "weight", minidl.ones(2)), TypeError,
     ["'weight' is a parameter", "assigned: Tensor of shape (2,), float32"]),
    (lambda: nn.Module()(1), NotImplementedError, ["this module has no forward()", "def forward(self, x):"]),
    (lambda: Block().add_module("a.b", nn.ReLU()), ValueError, ["without a dot", "'a.b' cannot stand in a path"]),
    (lambda: Block().add_module("forward", nn.ReLU()), ValueError, ["'forward' is taken already"]),
    (lambda: nn.Sequential(nn.ReLU), TypeError, ["a module must be a Module or None", "Call the class (nn.ReLU(), not nn.ReLU)"]),
    (lambda: Block().register_buffer("b", np.ones(2)), TypeError, ["a buffer must be a Tensor or None", "minidl.tensor(...)"]),
    (lambda: Block().register_parameter("p", minidl.ones(2)), TypeError, ["a parameter must be a Parameter or None", "nn.Parameter(...)"]),
    (lambda: nn.Parameter([1.0]), TypeError, ["a parameter is made from a Tensor.", "minidl.tensor(...)"]),
    (lambda: nn.Parameter(minidl.tensor([1])), TypeError, ["only floating point tensors can have a gradient."]),
    (lambda: nn.ParameterList([minidl.ones(2)]), TypeError, ["it holds Parameters."]),
    (lambda: Block().get_submodule("inner.7"), AttributeError, ["Sequential has no module '7'.", "it has: 0, 1"]),
    (lambda: Block().get_parameter("last.scale"), AttributeError, ["there is no parameter 'scale' in last.", "it has: weight, bias"]),
    (lambda: Block().get_buffer("last.mean"), AttributeError, ["there is no buffer 'mean' in last.", "it has: none"]),
    (lambda: nn.Sequential(nn.ReLU())[1], IndexError, ["Sequential[1]: there is no such module.", "it holds 1"]),
    (backward_hook_on_a_dict, RuntimeError, ["the module must return a Tensor, or a tuple of them.", "it returned a dict"]),
    (lambda: Block().load_state_dict({**block_state(), "head.weight": np.ones(2)}), RuntimeError,
     ["Block.load_state_dict: names and shapes must be the model's.", "4 names in the model, 5 in the state dict, 4 in both",
      "unexpected (only in the state dict):", "head.weight (2,)", "strict=False"]),
    (lambda: Block().load_state_dict({}), RuntimeError, ["missing (only in the model):", "inner.0.weight (3, 3)"]),
    (lambda: nn.Sequential(*[Block() for _ in range(5)]).load_state_dict({}), RuntimeError, ["... and 12 more"]),
    (lambda: Block().load_state_dict(block_state(last_bias=np.ones(4))), RuntimeError,
     ["misshapen:", "last.bias: the model has (3,), the state dict (4,)", "Build the model with the same sizes"]),
    (lambda: Block().load_state_dict(block_state("module.{}".format)), RuntimeError,
     ["Did you mean {k.removeprefix('module.'): v for k, v"]),
    (lambda: nn.Sequential(Block()).load_state_dict(block_state()), RuntimeError, ["Did you mean model.0.load_state_dict(...)?"]),
    (lambda: Block().load_state_dict({"state_dict": block_state()}), TypeError,
     ["every value must be a Tensor or an array.", "Is the state dict nested?"]),
    (lambda: Block().load_state_dict(None), TypeError, ["it takes a dictionary {name: tensor}.", "load_state_dict(minidl.load(path))"]),
    (lambda: Block().load_state_dict("x.npz"), TypeError, ["got str 'x.npz'", "load_state_dict(minidl.load(path))"]),
    (lambda: Block().load_state_dict(Block()), TypeError, ["load_state_dict(other.state_dict())"]),
    (lambda: Block().load_state_dict({0: np.ones(2)}), TypeError, ["every name must be a string.", "name: int 0"]),
    (lambda: nn.Conv2d(4, 6, 3, groups=4), ValueError, ["groups must divide both numbers of channels.", "out_channels = 6, groups = 4"]),
    (lambda: nn.Conv2d(4, 6, 3, stride=2, padding="same"), ValueError, ["padding is a size, 'valid', or, with stride 1, 'same'."]),
    (lambda: nn.Conv2d(4, 6, 3, padding_mode="mirror"), ValueError, ["there is no such padding_mode", "It is one of zeros, reflect"]),
    (lambda: nn.ConvTranspose2d(4, 6, 3, padding_mode="reflect"), ValueError, ["Use 'zeros'."]),
    (lambda: nn.Conv2d(0, 6, 3), ValueError, ["in_channels must be an integer of at least 1."]),
    (lambda: nn.ConvTranspose2d(1, 1, 3, stride=2)(minidl.ones(1, 1, 4, 4), output_size=(9, 12)), ValueError,
     ["no output_padding gives this output_size.", "possible: 9 to 10, 9 to 10"]),
    (lambda: nn.BatchNorm2d(3)(minidl.ones(2, 3)), ValueError, ["x must have 4 axes.", "x: shape (2, 3)", "Use the 1d form"]),
    (lambda: nn.GroupNorm(4, 6), ValueError, ["num_groups must divide num_channels."]),
    (lambda: nn.Dropout(1.5), ValueError, ["p is a probability.", "p = 1.5"]),
    (lambda: nn.MSELoss(size_average=True), ValueError, ["size_average and reduce are long gone."]),
    (lambda: nn.MSELoss(reduction="average"), ValueError, ["there is no such reduction.", "'average'"]),
    (lambda: nn.Embedding(3, 2, max_norm=1.0), ValueError, ["max_norm, scale_grad_by_freq and sparse are not available."]),
    (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError, ["padding_idx must be a row of the table."]),
    (lambda: nn.Linear(3, 2)(minidl.ones(2, 4)), ValueError, ["linear: axis K disagrees.", "x axis 1 says K = 4", "w axis 1 says K = 3"]),
    (lambda: nn.Linear(12, 2)(minidl.ones(2, 3, 4)), ValueError, ["Did you mean x.flatten(1)"]),
    (lambda: nn.functional.linear(minidl.ones(2, 4), minidl.ones(4, 3)), ValueError, ["Did you mean weight.T?"]),
    (lambda: nn.functional.linear(minidl.tensor(1.0), minidl.ones(4, 3)), ValueError, ["linear: x must have at least one axis."]),
    (lambda: nn.functional.bilinear(minidl.ones(2, 3), minidl.ones(2, 4), minidl.ones(5, 4, 3)), ValueError,
     ["bilinear: the inputs must agree"]),
]


@pytest.mark.parametrize("call, kind, parts", MESSAGES, ids=[parts[0][:40] for _, _, parts in MESSAGES])
def test_a_message(call, kind, parts):
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert [part for part in parts if part not in text] == [], text
    assert text.count("\n    ") >= 2 or "floating point" in text, f"four parts: call and rule, facts, fix\n{text}"


# --- layers with a state or a choice of their own -------------------------------------------------------------------------------

@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_adds_and_cuts_in_the_same_go(training):
    minidl.manual_seed(0)
    plain, fused = nn.BatchNorm2d(3).train(training), nn.BatchNorm2d(3).train(training)
    x, shortcut = minidl.randn(2, 3, 4, 5), minidl.randn(2, 3, 4, 5)
    assert np.allclose(fused(x, add=shortcut, relu=True).detach().array, (plain(x) + shortcut).relu().detach().array, atol=1e-6)
    assert np.array_equal(fused.running_mean.array, plain.running_mean.array) and fused.num_batches_tracked.item() == training


def test_dropout_listens_to_p_and_training():
    minidl.manual_seed(0)
    layer, x = nn.Dropout(0.5), minidl.ones(1000)
    kept = layer(x).array
    assert set(kept.tolist()) == {0.0, 2.0} and abs(kept.mean() - 1) < 0.2
    layer.p = 0.0
    assert np.array_equal(layer(x).array, x.array)
    layer.p = 1.0
    assert not layer(x).array.any() and np.array_equal(layer.eval()(x).array, x.array)
    rows = nn.Dropout2d(0.5)(minidl.ones(20, 10, 2, 2)).array
    assert np.all(rows == rows[:, :, :1, :1]) and 0 < (rows[:, :, 0, 0] == 0).sum() < 200


def test_a_table_around_existing_numbers():
    table = nn.Embedding.from_pretrained(minidl.tensor(np.arange(6.0).reshape(3, 2)))
    assert table(minidl.tensor([2, 0])).tolist() == [[4, 5], [0, 1]] and not table.weight.requires_grad


def test_stochastic_depth_drops_whole_samples():
    minidl.manual_seed(0)
    layer = nn.StochasticDepth(0.5, "row")
    rows = layer(minidl.ones(200, 3)).array
    assert np.all(rows == rows[:, :1]) and set(rows[:, 0].tolist()) == {0.0, 2.0}
    assert np.all(layer.eval()(minidl.ones(4, 3)).array == 1) and repr(layer) == "StochasticDepth(p=0.5, mode='row')"
