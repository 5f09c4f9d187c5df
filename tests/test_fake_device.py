"""The GPU path on the stand-in for CuPy: every op and example, forward and to second order, layers, optimisers, whole training steps.

The stand-in refuses what would fail on a GPU: implicit conversions, mixing with NumPy, names CuPy lacks. Our kernels run
on the CPU. Besides the numbers these tests look at what makes a GPU slow: values read back, layouts converted.
"""

import contextlib
import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from test_every_op import flat, outputs_and_grads, rebuilt

import minidl
from minidl import nn, optim
from minidl.backend.counters import COUNTS
from minidl.backend.cuda import stand_in
from minidl.backend.cuda.on_cpu_build import why_no_compiler
from minidl.core import later
from minidl.core.device import move
from minidl.core.errors import DeviceError, RangeError
from minidl.core.gradcheck import op_call
from minidl.core.op import OPS
from minidl.core.tensor import Tensor

pytestmark = pytest.mark.skipif(bool(why_no_compiler()), reason="THE GPU PATH IS NOT TESTED HERE: our kernels need g++ to run on the CPU")
CASES = [pytest.param(op, e, id=f"{name}-{k}") for name, op in sorted(OPS.items()) for k, e in enumerate(op.examples)]
READS = ("get", "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__complex__")


@pytest.fixture(autouse=True)
def device(monkeypatch):
    def refused(self, array, *_):
        assert array.dtype.kind in "biu", f"{self.__name__}.at adds in whatever order the threads arrive: other bits every time"

    monkeypatch.setattr(stand_in.ufunc, "at", refused)
    with stand_in.installed():
        yield
    later.forget()


@contextlib.contextmanager
def reads():
    """The names of all ways in which values came back to the CPU inside: each would make the CPU wait for the GPU."""
    found, before = [], {name: getattr(stand_in.ndarray, name) for name in READS}

    def counted(name):
        def method(self, *args, **settings):
            found.append(name)
            return before[name](self, *args, **settings)
        return method

    for name in READS:
        setattr(stand_in.ndarray, name, counted(name))
    try:
        yield found
    finally:
        for name in READS:
            setattr(stand_in.ndarray, name, before[name])


def moved(value):
    return rebuilt(value, lambda t: t.to("cuda"))


def moved_settings(settings):
    return {key: value.to("cuda") if isinstance(value, Tensor) else value for key, value in settings.items()}


def close(a, b, rtol, atol, what=""):
    assert a.shape == b.shape and a.dtype == b.dtype and b.device == "cuda:0", what
    np.testing.assert_allclose(b.cpu().array, a.array, rtol, atol, err_msg=what)


@pytest.mark.parametrize("dtype, rtol, atol", [(np.float64, 1e-10, 1e-12), (np.float32, 1e-4, 1e-5)], ids=["float64", "float32"])
@pytest.mark.parametrize("op, example", CASES)
def test_every_op_equals_the_cpu(op, example, dtype, rtol, atol):
    """float64 runs on generic, float32 on our kernels where there are some. Nothing is read back, and again gives the same bits."""
    _, inputs, settings = op_call(op, example, dtype=dtype)
    ys, grads = outputs_and_grads(op, inputs, settings)
    inputs, settings = moved(inputs), moved_settings(settings)
    with reads() as found:
        other_ys, other_grads = outputs_and_grads(op, inputs, settings)
    assert found == [], f"{op.name} reads values back from the GPU"
    assert grads.keys() == other_grads.keys()
    again_ys, again_grads = outputs_and_grads(op, inputs, settings)
    for a, b, c in [*zip(ys, other_ys, again_ys, strict=True), *((grads[k], other_grads[k], again_grads[k]) for k in grads)]:
        close(a, b, rtol, atol)
        assert b.detach().numpy().tobytes() == c.detach().numpy().tobytes(), "the same input must give the same bits"


def second_order(op, inputs, settings):
    """The gradients of a random combination of the gradients, by place among the flat inputs; None where there are none."""
    leaves = rebuilt(inputs, lambda t: Tensor(t.array, t.is_floating_point()))
    y = op.function(*leaves, **settings)
    roots = [t for t in (y if isinstance(y, tuple) else (y,)) if t.requires_grad]
    wanted = [t for t in flat(leaves) if t.requires_grad]
    if not roots or not wanted:
        return []
    rng = np.random.default_rng(5)

    def drawn(t):
        return Tensor(np.asarray(rng.standard_normal(t.shape), t.dtype)).to(t.device).requires_grad_()

    cotangents = [drawn(t) for t in roots]
    grads = minidl.autograd.grad(roots, wanted, cotangents, create_graph=True, allow_unused=True)
    grads = [g for g in grads if g is not None and g.requires_grad]
    if not grads:
        return []
    return minidl.autograd.grad(grads, [*wanted, *cotangents], [drawn(g).detach() for g in grads], allow_unused=True)


@pytest.mark.parametrize("op, example", CASES)
def test_second_order_equals_the_cpu(op, example):
    _, inputs, settings = op_call(op, example)
    here, there = second_order(op, inputs, settings), second_order(op, moved(inputs), moved_settings(settings))
    assert len(here) == len(there)
    for a, b in zip(here, there, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            close(a, b, 1e-9, 1e-11)


def parity_lines():
    spec = importlib.util.spec_from_file_location("parity_cases", Path(__file__).parent / "parity" / "cases.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LINES


def value_of(rng, shape):
    """An input of a line of tests/parity/cases.py; the values of a list are the list itself."""
    if isinstance(shape, list):
        return shape
    *sizes, kind = shape if shape and isinstance(shape[-1], str) else (*shape, "")
    draw = {"+": lambda: rng.uniform(0.5, 2.0, sizes), "t": lambda: rng.integers(-2, 3, sizes).astype("f8"),
            "i": lambda: rng.integers(0, 3, sizes), "b": lambda: rng.random(sizes) < 0.5, "": lambda: rng.standard_normal(sizes),
            "f": lambda: rng.standard_normal(sizes).astype("f4")}
    return np.asarray(draw[kind]())


LINES = parity_lines()


@pytest.mark.parametrize("code, shapes", LINES, ids=[f"{k}: {code}" for k, (code, _) in enumerate(LINES)])
def test_lines_of_user_code_equal_the_cpu(code, shapes):
    """The lines that are compared with PyTorch: ties, zeros, empty and 0-d arrays among them, values and gradients."""
    rng = np.random.default_rng(len(code))
    values = {name: value_of(rng, shape) for name, shape in shapes.items()}

    def run(place):
        names = {name: v if isinstance(v, list) else minidl.tensor(v, device=place) for name, v in values.items()}
        leaves = [t.requires_grad_() for t in names.values() if isinstance(t, Tensor) and t.is_floating_point()]
        y = eval(code, {"torch": Elsewhere(place), "F": nn.functional, "np": np, **names})
        ys = y if isinstance(y, (tuple, list)) else (y,)
        roots = [t for t in ys if t.requires_grad]
        ones = [minidl.ones_like(t) for t in roots]
        return ys, minidl.autograd.grad(roots, leaves, ones, allow_unused=True) if roots and leaves else []

    (ys, grads), (other_ys, other_grads) = run("cpu"), run("cuda")
    for a, b in zip([*ys, *grads], [*other_ys, *other_grads], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert b.device == "cuda:0"
            np.testing.assert_allclose(b.cpu().array, a.array, 1e-6 if a.dtype == np.float32 else 1e-12, 1e-12)


class Elsewhere:
    """minidl whose tensor() makes tensors on a device."""

    def __init__(self, place):
        self.place = place

    def __getattr__(self, name):
        return (lambda data: minidl.tensor(data, device=self.place)) if name == "tensor" else getattr(minidl, name)


# --- training steps -----------------------------------------------------------------------------------------------------

def steps(network, optimiser, x, target, place, count=2):
    """(losses, state dict, reads and layout conversions of the last step) of a few training steps."""
    minidl.manual_seed(1)
    net = network().to(place)
    opt, x, target, losses = optimiser(net.parameters()), x.to(place), target.to(place), []
    for _ in range(count):
        COUNTS.clear()
        with reads() as found:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), target)
            loss.backward()
            opt.step()
        losses.append(loss)
    seen = found, {key: n for key, n in COUNTS.items() if key == "layout conversion"}
    return [t.item() for t in losses], {key: t.cpu().numpy() for key, t in net.state_dict().items()}, seen


def batch(n, shape, classes, seed=0):
    rng = np.random.default_rng(seed)
    return minidl.tensor(rng.standard_normal((n, *shape)).astype("f4")), minidl.tensor(rng.integers(0, classes, n))


def assert_same_training(here, there, rtol=1e-4):
    np.testing.assert_allclose(there[0], here[0], rtol)
    for key, array in here[1].items():
        scale = np.abs(array).max(initial=1e-3)
        assert np.abs(there[1][key] - array).max(initial=0) <= 20 * rtol * scale, key


def sgd(parameters):
    return optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-4)


def test_a_training_step_of_resnet20_equals_numpys_and_nothing_comes_back():
    x, target = batch(4, (3, 32, 32), 10)
    with minidl.use_winograd(False):  # it rounds more, and where a relu's input is 0 but for rounding a gradient is there or not
        here, there = (steps(minidl.models.resnet20, sgd, x, target, place, 2) for place in ("cpu", "cuda"))
    assert_same_training(here, there)
    found, conversions = there[2]
    assert found == [], "the step waits for the GPU"
    assert conversions == {}, "images stay channels-last from end to end"


OPTIMISERS = {"SGD": sgd, "SGD nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
              **{name: (lambda p, name=name: getattr(optim, name)(p, lr=0.01)) for name in ("Adam", "AdamW", "RMSprop", "Adagrad")},
              "amsgrad": lambda p: optim.Adam(p, amsgrad=True)}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser(name):
    x, target = batch(6, (7,), 4)
    net = lambda: nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 4))
    here, there = (steps(net, OPTIMISERS[name], x, target, place, 3) for place in ("cpu", "cuda"))
    assert_same_training(here, there)
    assert there[2][0] == []


LAYERS = {
    "Conv2d": lambda: nn.Conv2d(4, 6, 3, padding=1), "groups": lambda: nn.Conv2d(4, 8, 3, 2, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4), "1x1": lambda: nn.Conv2d(4, 8, 1),
    "dilated": lambda: nn.Conv2d(4, 5, 3, dilation=2, bias=False),
    "reflect": lambda: nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"), "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 3, 3, 2),
    "BatchNorm2d": lambda: nn.BatchNorm2d(4), "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True),
    "GroupNorm": lambda: nn.GroupNorm(2, 4), "LayerNorm": lambda: nn.LayerNorm(7), "LocalResponseNorm": lambda: nn.LocalResponseNorm(3),
    "MaxPool2d": lambda: nn.MaxPool2d(3, 2, 1), "AvgPool2d": lambda: nn.AvgPool2d(2),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d((2, 3)), "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(3),
    "Upsample": lambda: nn.Upsample(scale_factor=2, mode="bilinear"), "PReLU": lambda: nn.PReLU(4), "GELU": nn.GELU, "SiLU": nn.SiLU,
    "Softmax": lambda: nn.Softmax(1), "Flatten, Linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4 * 7 * 7, 3)),
    "Dropout": nn.Dropout, "Dropout2d": nn.Dropout2d, "ZeroPad2d": lambda: nn.ZeroPad2d(1), "Unfold": lambda: nn.Unfold(3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    """A layer moved to the device: output, gradients of input and parameters, buffers."""
    x, _ = batch(2, (4, 7, 7), 2)

    def run(place):
        minidl.manual_seed(4)
        layer, image = LAYERS[name]().to(place), x.to(place).detach().requires_grad_()
        minidl.manual_seed(5)
        y = layer(image)
        (y * y.detach().cos()).sum().backward()
        return [y, image.grad, *(p.grad for p in layer.parameters()), *layer.buffers()]

    here, there = run("cpu"), run("cuda")
    for a, b in zip(here, there, strict=True):
        close(a.detach(), b.detach(), 2e-4, 2e-5, name)


NETWORKS = {"lenet5": (1, 28), "squeezenet1_1": (3, 64), "resnet18": (3, 64)}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    channels, size = NETWORKS[name]
    x, target = batch(2, (channels, size, size), 10)
    make = lambda: getattr(minidl.models, name)(**({} if name == "lenet5" else {"num_classes": 10}))
    here, there = (steps(make, lambda p: optim.SGD(p, lr=1e-3), x, target, place, 1) for place in ("cpu", "cuda"))
    np.testing.assert_allclose(there[0], here[0], 1e-4)
    assert sum(there[2][1].values()) <= 1, "only the way back through flatten, or a dropout's mask drawn in C order"


# --- moving ---------------------------------------------------------------------------------------------------------------

def test_a_move_keeps_the_order_in_memory():
    x = minidl.randn(2, 3, 4, 5)
    assert x.to("cuda").array.strides == x.array.strides == x.cuda().cpu().array.strides
    for turned in (np.zeros((3, 4)).T, np.zeros((2, 3, 4)).transpose(1, 2, 0), np.zeros((3, 1, 4))[:, 0]):
        assert move(turned, "cuda").strides == turned.strides == move(move(turned, "cuda"), "cpu").strides
    rows = Tensor(np.arange(24.0).reshape(2, 3, 4)[:, ::2])  # with gaps: as a dense copy
    assert rows.to("cuda").tolist() == rows.tolist() and rows.cuda().cpu().tolist() == rows.tolist()
    for shape in ((), (0,), (0, 3, 2, 2), (1, 1, 1, 1)):
        assert minidl.zeros(shape).to("cuda").cpu().shape == shape


def test_a_copy_to_the_cpu_need_not_wait():
    x = minidl.randn(2, 3, 4, 5).cuda()
    there = x.to("cpu", non_blocking=True)
    minidl.cuda.synchronize()
    assert there.tolist() == x.tolist() and there.array.strides == x.array.strides
    assert x.to("cpu", minidl.float64, non_blocking=True).dtype == minidl.float64
    x.requires_grad_().to("cpu", non_blocking=True).sum().backward()
    assert x.grad.is_cuda


def test_tensors_are_made_on_the_device():
    x = minidl.tensor([[1.0, 2.0]], device="cuda:0", requires_grad=True)
    assert x.is_cuda and x.is_leaf and str(x.device) == "cuda:0" and x.tolist() == [[1.0, 2.0]]
    for make in (minidl.zeros, minidl.ones, minidl.rand, minidl.randn, minidl.empty):
        assert make(2, 3, device="cuda").device == "cuda:0"
    assert minidl.arange(3, device="cuda").tolist() == [0, 1, 2] and minidl.eye(2, device="cuda").sum().item() == 2
    assert minidl.randn_like(x).device == minidl.zeros_like(x).device == "cuda:0"
    minidl.manual_seed(3)
    there = minidl.randn(5, device="cuda")
    minidl.manual_seed(3)
    assert there.tolist() == minidl.randn(5).tolist(), "one seed, one stream on every device"


def test_writes_take_numpys_arrays_and_lists():
    x = minidl.zeros(3, 2).cuda()
    x[0], x[1], x[2, 0], x[2, 1] = np.ones(2, np.float32), [2, 3], np.float32(4), minidl.tensor(5.0)
    x[x > 4] = 6
    assert x.tolist() == [[1, 1], [2, 3], [4, 6]]


TOOLS = {
    "detect_anomaly": lambda x: _inside(minidl.detect_anomaly(), x), "profile": lambda x: _inside(minidl.profile(), x),
    "debug": lambda x: _inside(minidl.debug(), x), "use_fusion": lambda x: _inside(minidl.use_fusion(False), x),
    "show": lambda x: (repr(x), x._repr_html_(), f"{x.sum():.3f}", list(x), len(x)),
    "clip": lambda x: nn.utils.clip_grad_norm_([_inside(minidl.enable_grad(), x)], 1.0, float("inf")),
    "gradcheck": lambda x: minidl.autograd.gradcheck(lambda t: (t * t).sum(), x.double().requires_grad_()),
    "in place": lambda x: x.mul_(2).add_(x).clamp_(0, 1).normal_().uniform_().lerp_(x, 0.5).fill_(2).zero_(),
    "scatter": lambda x: (x.scatter(0, _rows(), 1.0), x.scatter(0, _rows(), 2.0, reduce="add"), x.scatter_add(0, _rows(), x[:2])),
    "pick": lambda x: (x.masked_select(x > 0), x[x > 0], x[[0, 1]], x.index_add(0, _rows()[:, 0], x[:2]), nn.functional.one_hot(_rows())),
    "order": lambda x: (x.sort(1), x.topk(2, 1), x.median(), x.cumsum(0), x.std()),
    "random": lambda x: (minidl.bernoulli(x.sigmoid()), minidl.randint(3, (2,), device="cuda"), minidl.randperm(4, device="cuda")),
}


def _rows():
    return minidl.tensor([[0, 1, 1, 0], [2, 2, 0, 1]], device="cuda")


def _inside(context, x):
    with context:
        leaf = x.detach().requires_grad_()
        (leaf * leaf).sum().backward()
    return leaf


@pytest.mark.parametrize("name", TOOLS)
def test_tools_and_functions_that_are_no_ops(name):
    TOOLS[name](minidl.randn(3, 4).cuda())


def test_a_module_moves_with_gradients_and_buffers_and_back():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    weight, before = net[0].weight, net.state_dict()["0.weight"].numpy().copy()
    net(minidl.randn(2, 3, 5, 5)).sum().backward()
    net.to("cuda")
    assert net[0].weight is weight and weight.is_cuda and weight.grad.is_cuda and net[1].running_mean.is_cuda
    twin = copy.deepcopy(net)
    assert twin[0].weight.is_cuda and twin[0].weight.tolist() == weight.tolist()
    net.cpu()
    assert not weight.is_cuda and not net[1].num_batches_tracked.is_cuda and np.array_equal(weight.detach().numpy(), before)


def test_a_checkpoint_goes_from_device_to_device(tmp_path):
    net = nn.Linear(3, 2).to("cuda")
    minidl.save(net.state_dict(), tmp_path / "net.safetensors")
    other = nn.Linear(3, 2)
    other.load_state_dict(minidl.load(tmp_path / "net.safetensors"))
    assert other.weight.tolist() == net.weight.tolist()
    net.load_state_dict(other.state_dict())
    assert net.weight.is_cuda


def test_mixed_devices_say_what_to_move():
    with pytest.raises(DeviceError, match=r"other: cpu.*\n\s+Move other to cuda:0: x.to\('cuda:0'\)"):
        minidl.ones(3).cuda() * minidl.ones(3)
    with pytest.raises(DeviceError, match="Move weight and bias to cuda:0"):
        nn.Conv2d(3, 4, 3)(minidl.zeros(1, 3, 5, 5).cuda())
    with pytest.raises(DeviceError, match="there is no such GPU"):
        minidl.ones(3).to("cuda:7")


TENSORS_OF_TWO = [(op, k) for op in OPS.values() for k, e in enumerate(op.examples)
                  if len(flat(op_call(op, e)[1])) > 1 and op.name != "pass_on"]  # which works for both places


@pytest.mark.parametrize("op, number", TENSORS_OF_TWO, ids=[f"{op.name}-{k}" for op, k in TENSORS_OF_TWO])
def test_every_op_names_mixed_devices(op, number):
    _, inputs, settings = op_call(op, op.examples[number])
    places = iter(range(len(flat(inputs))))
    with pytest.raises(DeviceError, match="must be on one device"):
        op.function(*rebuilt(inputs, lambda t: t.to("cuda") if next(places) == 0 else t), **settings)


def test_running_averages_on_another_device_are_noticed_before_anything_is_computed():
    x, there = minidl.ones(4, 3), minidl.zeros(3).to("cuda")
    with pytest.raises(DeviceError, match="batch_norm: the tensors must be on one device"):
        nn.functional.batch_norm(x, there, there, training=True)
    assert there.tolist() == [0, 0, 0]


def test_wrong_labels_are_reported_when_a_value_is_read():
    x, target = minidl.randn(2, 3).cuda(), minidl.tensor([0, 3]).cuda()
    loss = nn.functional.cross_entropy(x, target)
    with pytest.raises(RangeError, match="C − 1 = 2") as caught:
        loss.item()
    assert "test_fake_device.py" in caught.value.__notes__[0]
    nn.functional.nll_loss(x, target)
    with pytest.raises(RangeError):
        minidl.cuda.synchronize()
    assert not later.PENDING


def test_many_checks_do_not_pile_up():
    x, target = minidl.randn(2, 3).cuda(), minidl.tensor([0, 2]).cuda()
    for _ in range(later.MOST + 5):
        nn.functional.cross_entropy(x, target)
    assert len(later.PENDING) < later.MOST


def test_the_memory_report():
    before = minidl.cuda.memory_allocated()
    x = minidl.zeros(1 << 18, device="cuda")
    assert minidl.cuda.memory_allocated() - before >= x.nbytes and minidl.cuda.memory_reserved() >= minidl.cuda.memory_allocated()
    assert "cuda:0" in minidl.cuda.memory_summary() and minidl.cuda.is_available() and minidl.cuda.device_count() == 1
    minidl.cuda.empty_cache()
    minidl.cuda.synchronize()
    assert isinstance(minidl.cuda.get_device_name(), str) and len(minidl.cuda.get_device_capability()) == 2


# --- do these tests notice? -------------------------------------------------------------------------------------------------

def test_an_implicit_conversion_is_noticed():
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(minidl.ones(3).cuda().array)


def test_a_read_is_noticed():
    x = minidl.ones(3).cuda()
    with reads() as found:
        x.sum().item()
        if (x.array > 0).all():
            pass
    assert found == ["item", "__bool__"]


def test_a_layout_conversion_is_noticed():
    COUNTS.clear()
    x = Tensor(stand_in.array(np.zeros((2, 3, 4, 5), np.float32)))  # C order: somebody forgot out=
    nn.functional.max_pool2d(x, 2)
    assert COUNTS["layout conversion"] >= 1
