"""The networks against PyTorch twins with the same weights: scores, loss, every gradient, running statistics.

A twin is written here from the papers with torch.nn.functional alone, as a function of a state dict, so that it shares
neither structure nor code with minidl.models. The names in it are torchvision's.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")

import torch.nn.functional as F  # noqa: E402, N812 - everybody's name for it

import minidl  # noqa: E402
from minidl import models  # noqa: E402


class Weights:
    """A state dict in PyTorch, and the layers as functions of a name in it."""

    def __init__(self, state, training):
        self.tensors = {name: torch.from_numpy(np.array(value.numpy())) for name, value in state.items()}
        self.training = training
        for name, tensor in self.tensors.items():
            tensor.requires_grad_(training and tensor.is_floating_point() and "running" not in name and "drawings" not in name)

    def __getitem__(self, name):
        return self.tensors[name]

    def __contains__(self, name):
        return name in self.tensors

    def conv(self, name, x, stride=1, padding=0, groups=1):
        return F.conv2d(x, self[f"{name}.weight"], self.tensors.get(f"{name}.bias"), stride, padding, 1, groups)

    def bn(self, name, x, eps=1e-5):
        mean, var = self[f"{name}.running_mean"], self[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, self[f"{name}.weight"], self[f"{name}.bias"], self.training, 0.1, eps)

    def linear(self, name, x):
        return F.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def basic(self, name, x, stride=1, padding=0):
        """Inception's conv, bn, relu."""
        return self.bn(f"{name}.bn", self.conv(f"{name}.conv", x, stride, padding), 1e-3).relu()

    def chain(self, x, *steps):
        """basic() one after another: (name, stride, padding)."""
        for step in steps:
            x = self.basic(*(step[:1]), x, *step[1:])
        return x


def same(w, name):
    """Half of a kernel: the padding that keeps the size."""
    return tuple(k // 2 for k in w[f"{name}.conv.weight"].shape[2:])


# --- residual nets ------------------------------------------------------------------------------------------------------

def resnet(w, x, counts, stem=True, groups=1, first=False, option="B", plain=False):
    x = w.bn("bn1", w.conv("conv1", x, 2, 3) if stem else w.conv("conv1", x, 1, 1)).relu()
    x = F.max_pool2d(x, 3, 2, 1) if stem else x
    for stage, count in enumerate(counts):
        for k in range(count):
            p, stride = f"layer{stage + 1}.{k}", 2 if stage and not k else 1
            y, beside = x, x
            if f"{p}.conv3.weight" in w:
                y = w.bn(f"{p}.bn1", w.conv(f"{p}.conv1", y, stride if first else 1)).relu()
                y = w.bn(f"{p}.bn2", w.conv(f"{p}.conv2", y, 1 if first else stride, 1, groups)).relu()
                y = w.bn(f"{p}.bn3", w.conv(f"{p}.conv3", y))
            else:
                y = w.bn(f"{p}.bn1", w.conv(f"{p}.conv1", y, stride, 1)).relu()
                y = w.bn(f"{p}.bn2", w.conv(f"{p}.conv2", y, 1, 1))
            if f"{p}.downsample.0.weight" in w:
                beside = w.bn(f"{p}.downsample.1", w.conv(f"{p}.downsample.0", x, stride))
            elif option == "A" and x.shape != y.shape:
                beside = torch.zeros_like(y)
                beside = torch.cat([x[:, :, ::stride, ::stride], beside[:, x.shape[1]:]], 1)
            x = y.relu() if plain else (y + beside).relu()
    return w.linear("fc", x.mean((2, 3)))


def preact(w, x, counts):
    x = F.max_pool2d(w.bn("bn1", w.conv("conv1", x, 2, 3)).relu(), 3, 2, 1)
    for stage, count in enumerate(counts):
        for k in range(count):
            p, stride = f"layer{stage + 1}.{k}", 2 if stage and not k else 1
            bottleneck = f"{p}.conv3.weight" in w
            start = w.bn(f"{p}.bn1", x).relu() if f"{p}.bn1.weight" in w else x
            if bottleneck:
                y = w.conv(f"{p}.conv1", start)
                y = w.conv(f"{p}.conv2", w.bn(f"{p}.bn2", y).relu(), stride, 1)
                y = w.conv(f"{p}.conv3", w.bn(f"{p}.bn3", y).relu())
            else:
                y = w.conv(f"{p}.conv1", start, stride, 1)
                y = w.conv(f"{p}.conv2", w.bn(f"{p}.bn2", y).relu(), 1, 1)
            x = y + (w.conv(f"{p}.downsample.0", start, stride) if f"{p}.downsample.0.weight" in w else x)
    return w.linear("fc", w.bn("bn_last", x).relu().mean((2, 3)))


# --- chains -------------------------------------------------------------------------------------------------------------

def vgg(w, x, depth, norm, small=True):
    number = 0
    for count in {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}[depth]:
        for _ in range(count):
            x = w.conv(f"features.{number}", x, 1, 1)
            x = (w.bn(f"features.{number + 1}", x) if norm else x).relu()
            number += 3 if norm else 2
        x, number = F.max_pool2d(x, 2), number + 1
    if small:
        return w.linear("classifier", x.mean((2, 3)))
    x = F.adaptive_avg_pool2d(x, 7).flatten(1)
    return w.linear("classifier.6", w.linear("classifier.3", w.linear("classifier.0", x).relu()).relu())


def three_linear(w, x):
    x = F.adaptive_avg_pool2d(x, 6).flatten(1)
    return w.linear("classifier.6", w.linear("classifier.4", w.linear("classifier.1", x).relu()).relu())


def alexnet(w, x):
    x = F.max_pool2d(w.conv("features.0", x, 4, 2).relu(), 3, 2)
    x = F.max_pool2d(w.conv("features.3", x, 1, 2).relu(), 3, 2)
    for name in ("features.6", "features.8", "features.10"):
        x = w.conv(name, x, 1, 1).relu()
    return three_linear(w, F.max_pool2d(x, 3, 2))


def response(x):
    """The paper's formula, written out: a / (2 + 1e-4 · sum of squares over 5 channels)^0.75."""
    squares = F.pad(x * x, (0, 0, 0, 0, 2, 2))
    return x / (2 + 1e-4 * sum(squares[:, k:k + x.shape[1]] for k in range(5))) ** 0.75


def alexnet_paper(w, x):
    x = F.max_pool2d(response(w.conv("features.0", x, 4, 2).relu()), 3, 2)
    x = F.max_pool2d(response(w.conv("features.4", x, 1, 2, 2).relu()), 3, 2)
    for name, groups in (("features.8", 1), ("features.10", 2), ("features.12", 2)):
        x = w.conv(name, x, 1, 1, groups).relu()
    return three_linear(w, F.max_pool2d(x, 3, 2))


def zfnet(w, x):
    x = response(F.max_pool2d(w.conv("features.0", x, 2, 1).relu(), 3, 2, 1))
    x = response(F.max_pool2d(w.conv("features.4", x, 2).relu(), 3, 2, 1))
    for name in ("features.8", "features.10", "features.12"):
        x = w.conv(name, x, 1, 1).relu()
    return three_linear(w, F.max_pool2d(x, 3, 2))


def lenet(w, x):
    x = F.avg_pool2d(w.conv("conv1", x, 1, 2).tanh(), 2)
    x = F.avg_pool2d(w.conv("conv2", x).tanh(), 2).flatten(1)
    return w.linear("fc3", w.linear("fc2", w.linear("fc1", x).tanh()).tanh())


def lenet_paper(w, x):
    def squash(x):
        return 1.7159 * torch.tanh(2 / 3 * x)

    def subsample(name, x):
        sums = x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]
        return squash(sums * w[f"{name}.weight"][None, :, None, None] + w[f"{name}.bias"][None, :, None, None])

    x = subsample("pool1", w.conv("conv1", x, 1, 2))
    rows = ["012", "123", "234", "345", "045", "015", "0123", "1234", "2345", "0345", "0145", "0125", "0134", "1245", "0235", "012345"]
    x = torch.cat([w.conv(f"conv2.maps.{k}", x[:, [int(c) for c in row]]) for k, row in enumerate(rows)], 1)
    x = squash(w.linear("fc1", subsample("pool2", x).flatten(1)))
    x = squash(w.linear("fc2", x))
    return -torch.cdist(x, w["fc3.drawings"]) ** 2


def cats_and_dogs(w, x):
    for number in (0, 3, 6, 9):
        x = F.max_pool2d(w.conv(f"features.{number}", x).relu(), 2)
    return w.linear("classifier.4", w.linear("classifier.2", x.flatten(1)).relu()).sigmoid()


def squeezenet(w, x, version):
    pools = {"1_0": (2, 6, 11), "1_1": (2, 5, 8)}[version]
    x = w.conv("features.0", x, 2).relu()
    for number in range(2, 13):
        if number in pools:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        else:
            p = f"features.{number}"
            x = w.conv(f"{p}.squeeze", x).relu()
            x = torch.cat([w.conv(f"{p}.expand1x1", x), w.conv(f"{p}.expand3x3", x, 1, 1)], 1).relu()
    return w.conv("classifier.1", x).relu().mean((2, 3))


def densenet(w, x, blocks):
    x = F.max_pool2d(w.bn("features.norm0", w.conv("features.conv0", x, 2, 3)).relu(), 3, 2, 1)
    for number, layers in enumerate(blocks, 1):
        for k in range(1, layers + 1):
            p = f"features.denseblock{number}.denselayer{k}"
            y = w.conv(f"{p}.conv1", w.bn(f"{p}.norm1", x).relu())
            x = torch.cat([x, w.conv(f"{p}.conv2", w.bn(f"{p}.norm2", y).relu(), 1, 1)], 1)
        if number < len(blocks):
            p = f"features.transition{number}"
            x = F.avg_pool2d(w.conv(f"{p}.conv", w.bn(f"{p}.norm", x).relu()), 2)
    return w.linear("classifier", w.bn("features.norm5", x).relu().mean((2, 3)))


# --- inceptions ---------------------------------------------------------------------------------------------------------

def googlenet(w, x, paper=False):
    def conv(name, x, stride=1, padding=0):
        return w.conv(f"{name}.conv", x, stride, padding).relu() if paper else w.basic(name, x, stride, padding)

    def norm(x):
        return F.local_response_norm(x, 5, 1e-4, 0.75, 1.0) if paper else x

    def block(name, x):
        p, five = f"inception{name}", 2 if paper else 1
        return torch.cat([conv(f"{p}.branch1", x), conv(f"{p}.branch2.1", conv(f"{p}.branch2.0", x), 1, 1),
                          conv(f"{p}.branch3.1", conv(f"{p}.branch3.0", x), 1, five),
                          conv(f"{p}.branch4.1", F.max_pool2d(x, 3, 1, 1, ceil_mode=True))], 1)

    def head(name, x):
        x = F.avg_pool2d(x, 5, 3) if paper else F.adaptive_avg_pool2d(x, 4)
        return w.linear(f"{name}.fc2", w.linear(f"{name}.fc1", conv(f"{name}.conv", x).flatten(1)).relu())

    x = norm(F.max_pool2d(conv("conv1", x, 2, 3), 3, 2, ceil_mode=True))
    x = F.max_pool2d(norm(conv("conv3", conv("conv2", x), 1, 1)), 3, 2, ceil_mode=True)
    x = F.max_pool2d(block("3b", block("3a", x)), 3, 2, ceil_mode=True)
    four = block("4a", x)
    x = block("4d", block("4c", block("4b", four)))
    heads = (head("aux2", x), head("aux1", four)) if w.training else ()
    x = F.max_pool2d(block("4e", x), 3 if paper else 2, 2, ceil_mode=True)
    logits = w.linear("fc", block("5b", block("5a", x)).mean((2, 3)))
    return (logits, *heads) if heads else logits


def inception_v3(w, x):
    def branch(p, name, x, strides=()):
        """branch_1, branch_2, ... of a block, each keeping the size except those with a stride."""
        k = 1
        while f"{p}.{name}_{k}.conv.weight" in w:
            stride = strides[k - 1] if k <= len(strides) else 1
            full = f"{p}.{name}_{k}"
            x, k = w.basic(full, x, stride, 0 if stride == 2 else same(w, full)), k + 1
        return x

    def pooled(p, x):
        return w.basic(f"{p}.branch_pool", F.avg_pool2d(x, 3, 1, 1))

    x = w.chain(x, ("Conv2d_1a_3x3", 2), ("Conv2d_2a_3x3",), ("Conv2d_2b_3x3", 1, 1))
    x = w.chain(F.max_pool2d(x, 3, 2), ("Conv2d_3b_1x1",), ("Conv2d_4a_3x3",))
    x = F.max_pool2d(x, 3, 2)
    for p in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = torch.cat([w.basic(f"{p}.branch1x1", x), branch(p, "branch5x5", x), branch(p, "branch3x3dbl", x), pooled(p, x)], 1)
    p = "Mixed_6a"
    x = torch.cat([w.basic(f"{p}.branch3x3", x, 2), branch(p, "branch3x3dbl", x, (1, 1, 2)), F.max_pool2d(x, 3, 2)], 1)
    for p in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = torch.cat([w.basic(f"{p}.branch1x1", x), branch(p, "branch7x7", x), branch(p, "branch7x7dbl", x), pooled(p, x)], 1)
    aux = None
    if w.training:
        aux = w.chain(F.avg_pool2d(x, 5, 3), ("AuxLogits.conv0",), ("AuxLogits.conv1",))
        aux = w.linear("AuxLogits.fc", aux.mean((2, 3)))
    p = "Mixed_7a"
    x = torch.cat([branch(p, "branch3x3", x, (1, 2)), branch(p, "branch7x7x3", x, (1, 1, 1, 2)), F.max_pool2d(x, 3, 2)], 1)
    for p in ("Mixed_7b", "Mixed_7c"):
        three, double = branch(p, "branch3x3", x), branch(p, "branch3x3dbl", x)
        x = torch.cat([w.basic(f"{p}.branch1x1", x), w.basic(f"{p}.branch3x3_2a", three, 1, (0, 1)),
                       w.basic(f"{p}.branch3x3_2b", three, 1, (1, 0)), w.basic(f"{p}.branch3x3dbl_3a", double, 1, (0, 1)),
                       w.basic(f"{p}.branch3x3dbl_3b", double, 1, (1, 0)), pooled(p, x)], 1)
    logits = w.linear("fc", x.mean((2, 3)))
    return logits if aux is None else (logits, aux)


def bn_inception(w, x):
    def conv(name, x, stride=1, padding=0):
        return w.bn(f"{name}.bn", w.conv(f"{name}.conv", x, stride, padding)).relu()

    x = F.max_pool2d(conv("conv1", x, 2, 3), 3, 2, ceil_mode=True)
    x = F.max_pool2d(conv("conv3", conv("conv2", x), 1, 1), 3, 2, ceil_mode=True)
    for name in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        p, halves = f"inception.{name}.branches", name in ("3c", "4e")
        parts, k, stride = ([], 0, 2) if halves else ([conv(f"{p}.0", x)], 1, 1)
        parts.append(conv(f"{p}.{k}.1", conv(f"{p}.{k}.0", x), stride, 1))
        y = conv(f"{p}.{k + 1}.1", conv(f"{p}.{k + 1}.0", x), 1, 1)
        parts.append(conv(f"{p}.{k + 1}.2", y, stride, 1))
        if halves:
            parts.append(F.max_pool2d(x, 3, 2, ceil_mode=True))
        else:
            parts.append(conv(f"{p}.3.1", F.max_pool2d(x, 3, 1, 1) if name == "5b" else F.avg_pool2d(x, 3, 1, 1)))
        x = torch.cat(parts, 1)
    return w.linear("fc", x.mean((2, 3)))


def inception_v4(w, x):
    def run(p, x, strides=(), valid=()):
        """p.0, p.1, ... in order; a stride or a place in `valid` means no padding."""
        k = 0
        while f"{p}.{k}.conv.weight" in w:
            stride = strides[k] if k < len(strides) else 1
            x = w.basic(f"{p}.{k}", x, stride, 0 if stride == 2 or k in valid else same(w, f"{p}.{k}"))
            k += 1
        return x

    def pool(p, x):
        return w.basic(f"{p}.1", F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))

    def fork(p, x):
        return torch.cat([w.basic(f"{p}.across", x, 1, (0, 1)), w.basic(f"{p}.down", x, 1, (1, 0))], 1)

    f = "features"
    x = w.chain(x, (f"{f}.0", 2), (f"{f}.1",), (f"{f}.2", 1, 1))
    x = torch.cat([F.max_pool2d(x, 3, 2), w.basic(f"{f}.3.branch1", x, 2)], 1)
    x = torch.cat([run(f"{f}.4.branch0", x, (), (1,)), run(f"{f}.4.branch1", x, (), (3,))], 1)
    x = torch.cat([w.basic(f"{f}.5.branch0", x, 2), F.max_pool2d(x, 3, 2)], 1)
    for k in range(6, 10):
        p = f"{f}.{k}.branch"
        x = torch.cat([w.basic(f"{p}0", x), run(f"{p}1", x), run(f"{p}2", x), pool(f"{p}3", x)], 1)
    x = torch.cat([w.basic(f"{f}.10.branch0", x, 2), run(f"{f}.10.branch1", x, (1, 1, 2)), F.max_pool2d(x, 3, 2)], 1)
    for k in range(11, 18):
        p = f"{f}.{k}.branch"
        x = torch.cat([w.basic(f"{p}0", x), run(f"{p}1", x), run(f"{p}2", x), pool(f"{p}3", x)], 1)
    p = f"{f}.18.branch"
    x = torch.cat([run(f"{p}0", x, (1, 2)), run(f"{p}1", x, (1, 1, 1, 2)), F.max_pool2d(x, 3, 2)], 1)
    for k in range(19, 22):
        p = f"{f}.{k}.branch"
        x = torch.cat([w.basic(f"{p}0", x), fork(f"{p}1.1", w.basic(f"{p}1.0", x)), fork(f"{p}2.3", run(f"{p}2", x)), pool(f"{p}3", x)], 1)
    return w.linear("last_linear", x.mean((2, 3)))


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors: PyTorch's threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the comparison -----------------------------------------------------------------------------------------------------

COUNTS = (2, 1, 1, 1)
BASIC = models.resnet.BasicBlock


def small_resnet(block=models.resnet.Bottleneck, **settings):
    return models.ResNet(block, COUNTS, num_classes=7, **settings)


def narrow_resnet(**settings):
    return small_resnet(**{"width_per_group": 8, **settings})


slow = pytest.mark.slow
CASES = {  # name: how the network is built, its twin, the shape of a batch
    "resnet basic": (lambda: small_resnet(BASIC), lambda w, x: resnet(w, x, COUNTS), (3, 3, 40, 33), slow),
    "resnet": (narrow_resnet, lambda w, x: resnet(w, x, COUNTS), (2, 3, 40, 33)),
    "resnet full width": (small_resnet, lambda w, x: resnet(w, x, COUNTS), (2, 3, 40, 33), slow),
    "resnet paper": (lambda: narrow_resnet(variant="paper"), lambda w, x: resnet(w, x, COUNTS, first=True), (2, 3, 33, 33)),
    "resnet option A": (lambda: narrow_resnet(shortcut="A"), lambda w, x: resnet(w, x, COUNTS, option="A"), (2, 3, 40, 33)),
    "resnet option C": (lambda: small_resnet(BASIC, shortcut="C"), lambda w, x: resnet(w, x, COUNTS), (2, 3, 33, 33), slow),
    "resnet plain": (lambda: small_resnet(BASIC, shortcut="none"), lambda w, x: resnet(w, x, COUNTS, plain=True), (2, 3, 33, 33), slow),
    "resnet preact basic": (lambda: small_resnet(BASIC, variant="preact"), lambda w, x: preact(w, x, COUNTS), (2, 3, 40, 33), slow),
    "resnet preact": (lambda: narrow_resnet(variant="preact"), lambda w, x: preact(w, x, COUNTS), (2, 3, 33, 33)),
    "resnext": (lambda: narrow_resnet(groups=4), lambda w, x: resnet(w, x, COUNTS, groups=4), (2, 3, 33, 33)),
    "resnext full width": (lambda: small_resnet(groups=32, width_per_group=4), lambda w, x: resnet(w, x, COUNTS, groups=32),
                           (2, 3, 33, 33), slow),
    "wide resnet": (lambda: small_resnet(width_per_group=128), lambda w, x: resnet(w, x, COUNTS), (2, 3, 33, 33), slow),
    "cifar A": (models.resnet20, lambda w, x: resnet(w, x, (3, 3, 3), stem=False, option="A"), (3, 3, 16, 17)),
    "cifar C": (lambda: models.resnet20(shortcut="C"), lambda w, x: resnet(w, x, (3, 3, 3), stem=False), (3, 3, 16, 16)),
    "vgg11_bn small": (lambda: models.vgg11_bn(small=True), lambda w, x: vgg(w, x, 11, True), (3, 3, 64, 32), slow),
    "vgg11_bn small eval": (lambda: models.vgg11_bn(small=True), lambda w, x: vgg(w, x, 11, True), (2, 3, 32, 32), "eval32"),
    "vgg16 small": (lambda: models.vgg16(small=True), lambda w, x: vgg(w, x, 16, False), (2, 3, 32, 32), slow),
    "vgg11": (models.vgg11, lambda w, x: vgg(w, x, 11, False, small=False), (1, 3, 40, 40), "eval32", slow),
    "alexnet": (lambda: models.alexnet(dropout=0.0), alexnet, (2, 3, 95, 80), slow),
    "alexnet paper": (lambda: models.alexnet(variant="paper", dropout=0.0), alexnet_paper, (2, 3, 95, 80), slow),
    "zfnet": (lambda: models.zfnet(dropout=0.0), zfnet, (2, 3, 95, 90), slow),
    "lenet5": (models.lenet5, lenet, (3, 1, 28, 28)),
    "lenet5 paper": (lambda: models.lenet5(variant="paper"), lenet_paper, (3, 1, 28, 28)),
    "cats and dogs": (models.cats_and_dogs, cats_and_dogs, (2, 3, 150, 150)),
    "squeezenet1_0": (lambda: models.squeezenet1_0(dropout=0.0), lambda w, x: squeezenet(w, x, "1_0"), (2, 3, 48, 40), slow),
    "squeezenet1_1": (lambda: models.squeezenet1_1(dropout=0.0), lambda w, x: squeezenet(w, x, "1_1"), (2, 3, 48, 40)),
    "densenet": (lambda: models.DenseNet(8, (3, 2, 2), 16, num_classes=7), lambda w, x: densenet(w, x, (3, 2, 2)), (2, 3, 40, 33)),
    "densenet121": (models.densenet121, lambda w, x: densenet(w, x, (6, 12, 24, 16)), (2, 3, 64, 64), slow),
    "googlenet": (lambda: models.googlenet(dropout=0.0, dropout_aux=0.0), googlenet, (2, 3, 64, 57), slow),
    "googlenet paper": (lambda: models.googlenet(variant="paper", dropout=0.0, dropout_aux=0.0),
                        lambda w, x: googlenet(w, x, True), (1, 3, 224, 224), slow),
    "googlenet eval": (models.googlenet, googlenet, (1, 3, 64, 57), "eval32"),
    "bn_inception": (models.bn_inception, bn_inception, (2, 3, 64, 64), slow),
    "inception_v3": (lambda: models.inception_v3(dropout=0.0), inception_v3, (2, 3, 299, 299), slow),
    "inception_v3 eval": (models.inception_v3, inception_v3, (1, 3, 80, 75), "eval32", slow),
    "inception_v4": (lambda: models.inception_v4(dropout=0.0), inception_v4, (2, 3, 139, 107), slow),
    "inception_v4 eval": (models.inception_v4, inception_v4, (1, 3, 80, 75), "eval32", slow),
}


def close(name, ours, theirs, tolerance):
    """Agree to `tolerance` of the largest number."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{name}: {ours.shape} and {theirs.shape}"
    error = abs(ours - theirs).max(initial=0) / max(abs(theirs).max(initial=0), 1e-300)
    assert error <= tolerance, f"{name}: off by {error:.1e} of the largest, {tolerance:.0e} allowed"


def shaken(network, seed=0):
    """Weights with life in every place: statistics, scales and biases that are not 0 and 1."""
    rng = np.random.default_rng(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(minidl.tensor(rng.uniform(0.5, 1.5, tensor.shape)))
        elif tensor.ndim == 1 and name.endswith(("bias", "running_mean")):
            tensor.copy_(minidl.tensor(rng.normal(0, 0.1, tensor.shape)))
        elif tensor.ndim == 1:
            tensor.copy_(minidl.tensor(rng.uniform(0.7, 1.3, tensor.shape)))
    return network


def parametrized():
    for name, (build, twin, shape, *more) in CASES.items():
        yield pytest.param(build, twin, shape, "eval32" in more, id=name, marks=[m for m in more if m != "eval32"])


@pytest.mark.parametrize("build, twin, shape, only_eval32", list(parametrized()))
def test_a_network_is_its_twin(build, twin, shape, only_eval32):
    minidl.manual_seed(0)
    network = shaken(build()).eval()
    images = np.random.default_rng(1).normal(size=shape)
    for dtype, tolerance in (("float32", 1e-4), ("float64", 1e-9))[:1 if only_eval32 else 2]:
        network.to(dtype=dtype)
        weights = Weights(network.state_dict(), training=False)
        with minidl.no_grad(), torch.no_grad():
            close(f"scores in {dtype}", network(minidl.tensor(images.astype(dtype))).numpy(),
                  twin(weights, torch.from_numpy(images.astype(dtype))).numpy(), tolerance)
    if not only_eval32:
        same_training_step(network.train(), twin, images)


def same_training_step(network, twin, images):
    """Loss, every gradient and the running statistics of one step in float64."""
    weights = Weights(network.state_dict(), training=True)
    ours = network(minidl.tensor(images))
    theirs = twin(weights, torch.from_numpy(images))
    ours, theirs = (y if isinstance(y, tuple) else (y,) for y in (ours, theirs))
    assert len(ours) == len(theirs)
    rng = np.random.default_rng(2)
    cotangents = [rng.normal(size=y.shape) for y in ours]  # one random number per score: no gradient cancels
    loss = sum((y * minidl.tensor(c)).sum() for y, c in zip(ours, cotangents, strict=True))
    loss_there = sum((y * torch.from_numpy(c)).sum() for y, c in zip(theirs, cotangents, strict=True))
    terms = sum(float(abs(y.detach().numpy() * c).sum()) for y, c in zip(theirs, cotangents, strict=True))
    assert abs(loss.item() - loss_there.item()) <= 1e-9 * terms, "loss"
    loss.backward()
    loss_there.backward()
    for name, param in network.named_parameters():
        here, there = param.grad.numpy(), weights[name].grad.numpy()
        if max(abs(here).max(), abs(there).max()) > 1e-9:  # a bias in front of batch norm has gradient 0: both have noise there
            close(f"gradient of {name}", here, there, 1e-7)
    for name, buffer in network.named_buffers():
        if "running" in name:
            close(name, buffer.numpy(), weights[name].numpy(), 1e-9)
        elif name.endswith("num_batches_tracked"):
            assert buffer.item() == 1


PLANTED = {
    "layer2.0.conv2": lambda net: setattr(net.layer2[0].conv2, "stride", (1, 1)),  # an error by itself: the shortcut has another size
    "scores": lambda net: setattr(net.maxpool, "padding", 0),
    "scores in eval": lambda net: setattr(net.bn1, "eps", 1e-3),
    "layer1.0.bn2.running_mean": lambda net: setattr(net.layer1[0].bn2, "momentum", 0.2),
    "gradient of": lambda net: net.layer3[0].conv1.weight.register_hook(lambda grad: grad * 1.01),
}


@pytest.mark.parametrize("found, plant", PLANTED.items(), ids=PLANTED)
def test_a_planted_difference_is_found(found, plant):
    minidl.manual_seed(0)
    network = shaken(narrow_resnet()).double()
    images = np.random.default_rng(1).normal(size=(2, 3, 40, 33))
    plant(network)
    weights = Weights(network.eval().state_dict(), training=False)
    text = "shape|broadcast" if "conv2" in found else found.split(" in ")[0]
    with pytest.raises((AssertionError, minidl.core.errors.ShapeError), match=text):
        with minidl.no_grad():
            close("scores", network(minidl.tensor(images)).numpy(), resnet(weights, torch.from_numpy(images), COUNTS).numpy(), 1e-9)
        same_training_step(network.train(), lambda w, x: resnet(w, x, COUNTS), images)
