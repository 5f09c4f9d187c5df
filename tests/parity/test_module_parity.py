"""Modules against PyTorch: names and order in the state dict, printed text, how weights start, and what the layers compute."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")

import minidl  # noqa: E402

LIBRARIES = (minidl, torch)

# Every layer: how it is built (the same text for both libraries), and the shape of what it is given.
LAYERS = {
    "nn.Linear(5, 3)": (2, 4, 5),
    "nn.Linear(5, 3, bias=False)": (5,),
    "nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2)": (2, 4, 9),
    "nn.Conv1d(4, 6, 3, padding='same', bias=False)": (2, 4, 9),
    "nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), groups=2)": (2, 4, 7, 6),
    "nn.Conv2d(4, 4, 3, padding='same', dilation=2, padding_mode='reflect', bias=False)": (2, 4, 7, 6),
    "nn.Conv2d(3, 2, (1, 3), padding=(0, 1), padding_mode='circular')": (2, 3, 4, 5),
    "nn.Conv2d(3, 2, 3, padding='valid', padding_mode='replicate')": (2, 3, 4, 5),
    "nn.Conv2d(3, 2, 3)": (3, 4, 5),
    "nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2)": (2, 4, 5),
    "nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=(1, 0), groups=2, dilation=(1, 2))": (2, 4, 4, 3),
    "nn.Unfold(2, stride=2)": (2, 3, 4, 6),
    "nn.Fold((4, 6), 2, stride=2)": (2, 12, 6),
    "nn.MaxPool1d(2)": (2, 3, 7),
    "nn.MaxPool2d(3, 2, 1, ceil_mode=True)": (2, 3, 7, 6),
    "nn.AvgPool1d(3, 2, 1)": (2, 3, 7),
    "nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)": (2, 3, 7, 6),
    "nn.AdaptiveAvgPool1d(3)": (2, 3, 7),
    "nn.AdaptiveAvgPool2d((3, 2))": (2, 3, 7, 5),
    "nn.AdaptiveAvgPool2d(1)": (2, 3, 7, 5),
    "nn.AdaptiveMaxPool1d(3)": (2, 3, 7),
    "nn.AdaptiveMaxPool2d((3, 2))": (2, 3, 7, 5),
    "nn.BatchNorm1d(3)": (4, 3, 5),
    "nn.BatchNorm2d(3, momentum=None)": (2, 3, 5, 4),
    "nn.BatchNorm2d(3, eps=0.1, momentum=0.3, affine=False)": (2, 3, 5, 4),
    "nn.BatchNorm2d(3, track_running_stats=False)": (2, 3, 5, 4),
    "nn.InstanceNorm1d(3)": (2, 3, 5),
    "nn.InstanceNorm2d(3, affine=True, track_running_stats=True)": (2, 3, 5, 4),
    "nn.InstanceNorm2d(3)": (3, 5, 4),
    "nn.LayerNorm(5)": (2, 3, 5),
    "nn.LayerNorm((3, 5), bias=False)": (2, 3, 5),
    "nn.LayerNorm([3, 5], elementwise_affine=False)": (2, 3, 5),
    "nn.RMSNorm(5, eps=1e-5)": (2, 3, 5),
    "nn.GroupNorm(2, 4)": (2, 4, 3, 3),
    "nn.GroupNorm(2, 4, affine=False)": (2, 4, 3),
    "nn.LocalResponseNorm(3, alpha=0.1)": (2, 5, 3, 4),
    "nn.ReLU(inplace=True)": (2, 3), "nn.ReLU()": (2, 3), "nn.ReLU6()": (2, 3), "nn.LeakyReLU(0.2, True)": (2, 3), "nn.ELU(0.5)": (2, 3),
    "nn.CELU(0.5)": (2, 3), "nn.SELU()": (2, 3), "nn.GELU()": (2, 3), "nn.GELU('tanh')": (2, 3), "nn.SiLU(True)": (2, 3),
    "nn.Mish()": (2, 3),
    "nn.Sigmoid()": (2, 3), "nn.LogSigmoid()": (2, 3), "nn.Tanh()": (2, 3), "nn.Softsign()": (2, 3), "nn.Softplus(2, 1)": (2, 3),
    "nn.Hardtanh(-0.5, 0.7)": (2, 3), "nn.Hardswish(inplace=True)": (2, 3), "nn.Hardsigmoid()": (2, 3), "nn.Threshold(0.1, 20)": (2, 3),
    "nn.GLU(1)": (2, 4), "nn.PReLU(3)": (2, 3, 4), "nn.PReLU()": (2, 3), "nn.Softmax(1)": (2, 3), "nn.Softmin(dim=-1)": (2, 3),
    "nn.LogSoftmax(dim=1)": (2, 3), "nn.Softmax2d()": (2, 3, 2, 2),
    "nn.Flatten()": (2, 3, 4), "nn.Flatten(0, 1)": (2, 3, 4), "nn.Unflatten(1, (2, -1))": (2, 6, 3), "nn.Identity(7, a=1)": (2,),
    "nn.ZeroPad2d(1)": (2, 3, 4, 5), "nn.ZeroPad1d((1, 2))": (2, 3, 4), "nn.ReflectionPad2d((1, 2, 0, 1))": (2, 3, 4, 5),
    "nn.ReflectionPad1d(2)": (2, 3, 4), "nn.ReplicationPad2d(2)": (2, 3, 4, 5), "nn.ReplicationPad1d(1)": (2, 3, 4),
    "nn.CircularPad2d(1)": (2, 3, 4, 5), "nn.ConstantPad2d(1, 0.5)": (2, 3, 4, 5), "nn.ConstantPad1d(1, 0.5)": (2, 3, 4),
    "nn.Upsample(scale_factor=2)": (2, 3, 4, 5), "nn.Upsample(size=(5, 7), mode='bilinear')": (2, 3, 4, 5),
    "nn.UpsamplingNearest2d(scale_factor=3)": (2, 3, 4, 5), "nn.UpsamplingBilinear2d((6, 7))": (2, 3, 4, 5),
    "nn.PixelShuffle(2)": (2, 8, 3, 2), "nn.PixelUnshuffle(2)": (2, 3, 4, 6), "nn.ChannelShuffle(3)": (2, 6, 2, 2),
    "nn.Dropout(0.0)": (2, 3), "nn.Dropout(1.0)": (2, 3), "nn.Dropout2d(0.0)": (2, 3, 2, 2),
}


TOLERANCE = {"nn.Hardsigmoid()": 1e-7}  # PyTorch's slope is 1/6 rounded to float32, whatever the dtype


@pytest.fixture(autouse=True)
def seeds():
    minidl.manual_seed(0)
    torch.manual_seed(0)


def build(code, library, settings=None):
    return eval(code, {"nn": library.nn, "torch": library, **(settings or {})})


def twins(code):
    """The same layer twice, in float64 and with the same values."""
    ours, theirs = build(code, minidl).double(), build(code, torch).double()
    theirs.load_state_dict({name: torch.tensor(np.array(value.array)) for name, value in ours.state_dict().items()})
    return ours, theirs


def compare(mine, other, what, tolerance=1e-10):
    mine, other = np.asarray(mine.detach().array), other.detach().numpy()
    assert mine.shape == other.shape, what
    assert np.abs(mine - other).max(initial=0) <= tolerance * max(1, np.abs(other).max(initial=0)), what


@pytest.mark.parametrize("code", LAYERS)
def test_a_layer_computes_the_same(code):
    ours, theirs = twins(code)
    rng = np.random.default_rng(0)
    for training in (True, True, False):
        x = rng.standard_normal(LAYERS[code])
        xs = minidl.tensor(x).requires_grad_(), torch.tensor(x).requires_grad_()
        outputs = [layer.train(training)(value) for layer,
                   value in zip((ours, theirs), (xs[0], xs[1] * 1 if "True" in code else xs[1]), strict=True)]
        compare(*outputs, "output")
        cotangent = rng.standard_normal(outputs[0].shape)
        if outputs[1].requires_grad:
            outputs[0].backward(minidl.tensor(cotangent))
            outputs[1].backward(torch.tensor(cotangent))
            compare(xs[0].grad, xs[1].grad, "grad of x", TOLERANCE.get(code, 1e-10))
        for (name, param), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            compare(param.grad, other.grad, f"grad of {name}")
        for (name, buffer), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
            compare(buffer, other, name)


# Every loss: how it is built, and what it is given: floats x, then probabilities, class numbers, or floats.
LOSSES = {
    "nn.CrossEntropyLoss()": ("scores", "classes"), "nn.CrossEntropyLoss(label_smoothing=0.2, reduction='sum')": ("scores", "classes"),
    "nn.CrossEntropyLoss(weight=torch.ones(4, dtype=torch.float64) * 0.5, ignore_index=1)": ("scores", "classes"),
    "nn.NLLLoss(reduction='none')": ("scores", "classes"), "nn.BCELoss()": ("probabilities", "shares"),
    "nn.BCEWithLogitsLoss(pos_weight=torch.ones(4, dtype=torch.float64) * 3)": ("scores", "shares"),
    "nn.MSELoss()": ("scores", "scores"), "nn.L1Loss(reduction='sum')": ("scores", "scores"),
    "nn.SmoothL1Loss(beta=0.5)": ("scores", "scores"),
    "nn.HuberLoss(delta=0.5)": ("scores", "scores"), "nn.KLDivLoss(reduction='batchmean')": ("scores", "shares"),
    "nn.KLDivLoss(log_target=True, reduction='sum')": ("scores", "scores"),
}


@pytest.mark.parametrize("code", LOSSES)
def test_a_loss_computes_the_same(code):
    rng = np.random.default_rng(1)
    kinds = {"scores": lambda: rng.standard_normal((5, 4)), "classes": lambda: rng.integers(0, 4, 5),
             "probabilities": lambda: rng.uniform(0.1, 0.9, (5, 4)), "shares": lambda: rng.uniform(0, 1, (5, 4))}
    values, results = [kinds[kind]() for kind in LOSSES[code]], []
    for library in LIBRARIES:
        x, target = map(library.tensor, values)
        x.requires_grad_()
        loss = build(code, library)(x, target)
        loss.sum().backward()
        results.append((loss, x.grad))
    for (mine, other), what in zip(zip(*results, strict=True), ("loss", "grad of x"), strict=True):
        compare(mine, other, what)


def test_layers_of_other_arguments():
    """Two inputs, indices, and the size that a transposed convolution is to reach."""
    rng = np.random.default_rng(2)
    cases = [("nn.Bilinear(3, 4, 2)", [rng.standard_normal((5, 3)), rng.standard_normal((5, 4))], {}),
             ("nn.Embedding(6, 3, padding_idx=2)", [np.array([[1, 2], [5, 1]])], {}),
             ("nn.ConvTranspose2d(2, 3, 3, stride=3)", [rng.standard_normal((2, 2, 4, 3))], {"output_size": (13, 11)}),
             ("nn.MaxPool2d(2, return_indices=True)", [rng.standard_normal((2, 2, 4, 6))], {})]
    for code, values, settings in cases:
        ours, theirs = twins(code)
        mine, other = ours(*map(minidl.tensor, values), **settings), theirs(*map(torch.tensor, values), **settings)
        for one, its_twin in zip(mine if isinstance(mine, tuple) else (mine,), other if isinstance(other, tuple) else (other,),
                                 strict=True):
            compare(one, its_twin, code)
        if not isinstance(mine, tuple):
            (mine * mine).sum().backward()
            (other * other).sum().backward()
        for (name, param), its_twin in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            compare(param.grad, its_twin.grad, f"{code}: grad of {name}")


@pytest.mark.parametrize("code",
                         [*LAYERS, "nn.Bilinear(2, 3, 4)", "nn.Embedding(5, 3, padding_idx=-1)", "nn.CrossEntropyLoss()", "nn.HuberLoss()"])
def test_a_layer_prints_the_same(code):
    assert repr(build(code, minidl)) == repr(build(code, torch))


NESTED = """nn.Sequential(
    nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(True), nn.Identity()), nn.Sequential(),
    nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 3), nn.Sequential(nn.Tanh(), nn.Tanh()),
                   nn.Sequential(nn.Tanh(), nn.Tanh())]),
    nn.ModuleDict({'a': nn.ModuleList(), 'b': nn.InstanceNorm2d(3, affine=True, track_running_stats=True)}),
    nn.Sequential({'x': nn.PReLU()}) if not hasattr(torch, '_C') else nn.Sequential(__import__('collections').OrderedDict(x=nn.PReLU())))"""


def test_a_nested_model_prints_the_same():
    assert repr(build(NESTED, minidl)) == repr(build(NESTED, torch))


def test_state_names_order_and_shapes():
    ours, theirs = (build(NESTED, library) for library in LIBRARIES)
    assert [(name, tuple(v.shape)) for name, v in ours.state_dict().items()] == [(name, tuple(v.shape)) for name,
                                                                                 v in theirs.state_dict().items()]
    for walk in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [name for name, _ in getattr(ours, walk)()] == [name for name, _ in getattr(theirs, walk)()]


def test_a_state_goes_both_ways():
    ours, theirs = (build(NESTED, library) for library in LIBRARIES)
    ours.load_state_dict(theirs.state_dict())
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert np.array_equal(mine.numpy(), other.numpy())
        assert mine.dtype == other.numpy().dtype
    theirs.load_state_dict({name: torch.from_numpy(value.numpy().copy()) for name, value in ours.state_dict().items()})


class Shared:
    """A model with shared parts, parameters of its own, and buffers, written once for both libraries."""

    def __new__(cls, library):
        nn, base = library.nn, library.nn.Module

        class Model(base):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(library.ones(3))
                self.register_buffer("mask", library.zeros(2))
                self.register_buffer("scratch", library.zeros(2), persistent=False)
                self.first = nn.Linear(3, 3)
                self.second = self.first
                self.register_parameter("nothing", None)
                self.third = nn.Linear(3, 3, bias=False)
                self.third.weight = self.first.weight
                self.head = None
                self.head = nn.Linear(3, 1)

        return Model()


def test_shared_parts():
    ours, theirs = (Shared(library) for library in LIBRARIES)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert list(ours.state_dict(prefix="model.")) == list(theirs.state_dict(prefix="model."))
    assert repr(ours) == repr(theirs)
    for walk in ("named_parameters", "named_buffers", "named_modules"):
        assert [name for name, _ in getattr(ours, walk)()] == [name for name, _ in getattr(theirs, walk)()]
        assert ([name for name, _ in getattr(ours, walk)(remove_duplicate=False)]
                == [name for name, _ in getattr(theirs, walk)(remove_duplicate=False)])


def test_hooks_see_the_same():
    records = []
    for library in LIBRARIES:
        seen = []
        model = library.nn.Sequential(library.nn.Linear(3, 3), library.nn.Tanh(), library.nn.Linear(3, 2)).double()
        with library.no_grad():
            for k, param in enumerate(model.parameters()):
                param.copy_(library.tensor(np.random.default_rng(k).standard_normal(tuple(param.shape))))
        for layer in model:
            layer.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(("before", args[0])))
            layer.register_forward_hook(lambda m, args, y, seen=seen: seen.append(("after", y)))
            layer.register_full_backward_hook(lambda m, given, got,
                                              seen=seen: seen.append(("given", given[0])) or seen.append(("got", got[0])))
        model[1].register_forward_hook(lambda m, args, y: y * 2)
        model[1].register_forward_pre_hook(lambda m, args: (args[0] + 1,))
        model[2].register_full_backward_hook(lambda m, given, got: (given[0] * 3,))
        x = library.tensor(np.random.default_rng(9).standard_normal((4, 3)))
        x.requires_grad_()
        (model(x) ** 2).sum().backward()
        records.append([*seen, ("x", x.grad), *((f"param {k}", p.grad) for k, p in enumerate(model.parameters()))])
    assert [name for name, _ in records[0]] == [name for name, _ in records[1]]
    for (name, mine), (_, other) in zip(*records, strict=True):
        compare(mine, other, name)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # PyTorch's
def test_a_backward_hook_where_the_input_wants_no_gradient():
    counts = []
    for library in LIBRARIES:
        seen, model = [], library.nn.Linear(3, 2)
        model.register_full_backward_hook(lambda m, given, got, seen=seen: seen.append((given[0] is None, tuple(got[0].shape))))
        model(library.ones(4, 3)).sum().backward()
        counts.append(seen)
    assert counts[0] == counts[1] == [(True, (4, 2))]


STARTS = {
    "nn.init.uniform_(t, -2, 3)": (300, 200), "nn.init.normal_(t, 1, 2)": (300,
                                                                           200),
                                                                           "nn.init.trunc_normal_(t, std=0.5, a=-0.3, b=1)": (300, 200),
    "nn.init.xavier_uniform_(t, gain=2)": (60, 50, 3, 3), "nn.init.xavier_normal_(t)": (60, 50, 3, 3),
    "nn.init.kaiming_uniform_(t, a=0.5)": (60, 50, 3, 3), "nn.init.kaiming_normal_(t, mode='fan_out', nonlinearity='relu')": (60, 40, 3, 3),
    "nn.init.kaiming_normal_(t, nonlinearity='tanh')": (60, 50, 3, 3), "nn.init.orthogonal_(t, gain=3)": (20, 60),
    "nn.init.sparse_(t, 0.3)": (90, 70),
}


@pytest.mark.parametrize("code", STARTS)
def test_start_values_have_the_same_statistics(code):
    ours = eval(code, {"nn": minidl.nn, "t": minidl.empty(*STARTS[code], dtype=minidl.float64)}).array.ravel()
    theirs = eval(code, {"nn": torch.nn, "t": torch.empty(*STARTS[code], dtype=torch.float64)}).numpy().ravel()
    spread = theirs.std()
    tolerance = 6 * spread / np.sqrt(theirs.size)  # six standard deviations of a mean; less for the quantiles, which are denser
    assert abs(ours.mean() - theirs.mean()) <= tolerance
    assert abs(ours.std() / spread - 1) <= 6 / np.sqrt(theirs.size)
    shares = np.linspace(0.05, 0.95, 10)
    assert np.abs(np.quantile(ours, shares) - np.quantile(theirs, shares)).max() <= 4 * tolerance
    assert abs((ours == 0).mean() - (theirs == 0).mean()) <= 1e-9


@pytest.mark.parametrize("code, shape",
                         [("nn.init.eye_(t)", (3, 5)), ("nn.init.dirac_(t)", (4, 3, 3)), ("nn.init.dirac_(t, 2)", (6, 2, 3, 4)),
                                         ("nn.init.constant_(t, 2.5)", (3,)), ("nn.init.ones_(t)", (2, 3)), ("nn.init.zeros_(t)", (2, 3))])
def test_start_values_without_chance(code, shape):
    ours = eval(code, {"nn": minidl.nn, "t": minidl.empty(*shape)})
    assert np.array_equal(ours.array, eval(code, {"nn": torch.nn, "t": torch.empty(*shape)}).numpy())


STARTED = ["nn.Linear(30, 5)", "nn.Conv2d(6, 8, 3, groups=2)", "nn.Conv1d(6, 8, 5)", "nn.ConvTranspose2d(6, 4, 3)", "nn.Bilinear(8, 6, 5)",
           "nn.Embedding(20, 6, padding_idx=3)", "nn.BatchNorm2d(8)", "nn.PReLU(7)"]


@pytest.mark.parametrize("code", STARTED)
def test_layers_start_as_pytorchs_do(code):
    """Forty layers of each: every parameter has PyTorch's mean, spread and, unless normal, bounds."""
    ours, theirs = ([[np.asarray(p.detach()) for p in build(code, library).parameters()] for _ in range(40)] for library in LIBRARIES)
    for mine, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        assert mine[0].shape == other[0].shape
        mine, other = np.stack(mine), np.stack(other)
        bound = np.abs(other).max()
        assert abs(np.abs(mine).max() - bound) <= (0.2 if "Embedding" in code else 0.03) * bound
        assert abs(mine.std() - other.std()) <= 8 * other.std() / np.sqrt(other.size)
        assert abs(mine.mean() - other.mean()) <= 8 * other.std() / np.sqrt(other.size) + 1e-6 * bound  # both are float32 means
        assert np.array_equal((mine == 0).all(0), (other == 0).all(0))  # an embedding's padding row


@pytest.mark.parametrize("args",
                         [("linear",), ("relu",), ("leaky_relu",), ("leaky_relu", 0.3), ("tanh",), ("selu",), ("conv2d",), ("sigmoid",)])
def test_calculate_gain(args):
    assert minidl.nn.init.calculate_gain(*args) == pytest.approx(torch.nn.init.calculate_gain(*args), abs=1e-15)


def test_deepcopy_is_independent():
    model = build(NESTED, minidl)
    twin = copy.deepcopy(model)
    with minidl.no_grad():
        for param in twin.parameters():
            param.zero_()
    assert all(type(a) is type(b) and a is not b for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert any(np.any(p.array) for p in model.parameters())
