"""Networks written for PyTorch run here after changing their imports: same parameters, same state dict, same 20 steps of training.

The text below is executed twice, once as it is and once with `torch` replaced in its import lines.
"""

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (the extra `parity`)")

import torch

import minidl

SOURCE = '''
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR


def conv3x3(in_planes, out_planes, stride=1, groups=1, dilation=1):
    return nn.Conv2d(in_planes, out_planes, kernel_size=3, stride=stride, padding=dilation, groups=groups, bias=False, dilation=dilation)


class BasicBlock(nn.Module):
    expansion: int = 1

    def __init__(self, inplanes, planes, stride=1, downsample=None, norm_layer=nn.BatchNorm2d):
        super().__init__()
        self.conv1 = conv3x3(inplanes, planes, stride)
        self.bn1 = norm_layer(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = norm_layer(planes)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    expansion: int = 2

    def __init__(self, inplanes, planes, stride=1, downsample=None, norm_layer=nn.BatchNorm2d):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = norm_layer(planes)
        self.conv2 = conv3x3(planes, planes, stride, groups=2)
        self.bn2 = norm_layer(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, kernel_size=1, bias=False)
        self.bn3 = norm_layer(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + identity)


class ResNet(nn.Module):
    def __init__(self, block, layers, num_classes=5, width=4):
        super().__init__()
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, width, layers[0])
        self.layer2 = self._make_layer(block, 2 * width, layers[1], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(2 * width * block.expansion, num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)):
                nn.init.constant_(m.weight, 1)
                nn.init.constant_(m.bias, 0)

    def _make_layer(self, block, planes, blocks, stride=1):
        downsample = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            downsample = nn.Sequential(
                nn.Conv2d(self.inplanes, planes * block.expansion, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(planes * block.expansion),
            )
        layers = [block(self.inplanes, planes, stride, downsample)]
        self.inplanes = planes * block.expansion
        for _ in range(1, blocks):
            layers.append(block(self.inplanes, planes))
        return nn.Sequential(*layers)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        x = torch.flatten(self.avgpool(x), 1)
        return self.fc(x)


class BasicConv2d(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, **kwargs) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, bias=False, **kwargs)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


class InceptionC(nn.Module):
    def __init__(self, in_channels, channels_7x7, out):
        super().__init__()
        self.branch1x1 = BasicConv2d(in_channels, out, kernel_size=1)
        self.branch7x7_1 = BasicConv2d(in_channels, channels_7x7, kernel_size=1)
        self.branch7x7_2 = BasicConv2d(channels_7x7, channels_7x7, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7_3 = BasicConv2d(channels_7x7, out, kernel_size=(7, 1), padding=(3, 0))
        self.branch3x3_1 = BasicConv2d(in_channels, out, kernel_size=1)
        self.branch3x3_2a = BasicConv2d(out, out, kernel_size=(1, 3), padding=(0, 1))
        self.branch3x3_2b = BasicConv2d(out, out, kernel_size=(3, 1), padding=(1, 0))
        self.branch_pool = BasicConv2d(in_channels, out, kernel_size=1)

    def forward(self, x):
        branch1x1 = self.branch1x1(x)
        branch7x7 = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        branch3x3 = self.branch3x3_1(x)
        branch3x3 = torch.cat([self.branch3x3_2a(branch3x3), self.branch3x3_2b(branch3x3)], 1)
        branch_pool = self.branch_pool(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        return torch.cat([branch1x1, branch7x7, branch3x3, branch_pool], 1)


class Inception(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.stem = BasicConv2d(3, 4, kernel_size=3, stride=2)
        self.lrn = nn.LocalResponseNorm(5)
        self.mixed = InceptionC(4, 3, 2)
        self.reduce = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.dropout = nn.Dropout(p=0.0)
        self.fc = nn.Linear(10, num_classes)

    def forward(self, x):
        x = self.reduce(self.mixed(self.lrn(self.stem(x))))
        x = F.adaptive_avg_pool2d(x, (1, 1)).view(x.size(0), -1)
        return self.fc(self.dropout(x))


def train(model, batches, steps):
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    scheduler = MultiStepLR(optimizer, milestones=[8, 15], gamma=0.3)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    losses = []
    for step in range(steps):
        images, labels = batches[step % len(batches)]
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


def make(name):
    return {"basic": lambda: ResNet(BasicBlock, [2, 1]), "bottleneck": lambda: ResNet(Bottleneck, [1, 2]), "inception": Inception}[name]()
'''
torch.set_num_threads(1)  # on matrices this small threads wait for each other ten times longer than they compute
NETWORKS = ("basic", "bottleneck", "inception")


def executed(library):
    """The names that the text defines, run as a module of this library."""
    text = "\n".join(line.replace("torch", library) if line.startswith(("import ", "from ")) else line for line in SOURCE.split("\n"))
    text = text.replace(f"import {library}\n", f"import {library} as torch\n", 1)
    names = {"__name__": f"networks_of_{library}"}
    exec(compile(text, f"<networks of {library}>", "exec"), names)
    return names


def make_both(name, seed=3):
    """(ours, theirs) in float64; ours has loaded the state dict of theirs."""
    torch.manual_seed(seed)
    theirs = executed("torch")["make"](name).double()
    ours = executed("minidl")["make"](name)
    ours.to(minidl.float64)
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours, theirs


def assert_same_state(ours, theirs, tolerance=1e-9):
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert list(ours) == list(theirs)
    for key, right in theirs.items():
        np.testing.assert_allclose(ours[key].detach().numpy(), right.numpy(force=True), rtol=0, atol=tolerance, err_msg=key)


def draw_batches(library, make, count=3):
    rng = np.random.default_rng(11)
    return [(make(rng.standard_normal((4, 3, 17, 19))), make(rng.integers(0, 5, 4))) for _ in range(count)]


@pytest.mark.parametrize("name", NETWORKS)
def test_same_state_dict(name):
    """Names, order, shapes and dtypes, and each library loads what the other has."""
    ours, theirs = executed("minidl")["make"](name), executed("torch")["make"](name)
    mine, right = ours.state_dict(), theirs.state_dict()
    assert [(k, tuple(v.shape), str(v.dtype)) for k, v in mine.items()] == [(k, tuple(v.shape), str(v.dtype)[6:]) for k, v in right.items()]
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    theirs.load_state_dict({key: torch.from_numpy(np.array(value.detach().numpy())) for key, value in mine.items()})
    assert_same_state(ours, theirs, 0)
    theirs = executed("torch")["make"](name)
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    assert_same_state(ours, theirs, 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_and_backward(name):
    ours, theirs = make_both(name)
    x = np.random.default_rng(0).standard_normal((3, 3, 17, 19))
    for layer in (ours, theirs):
        layer.train()
    a, b = minidl.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    u = np.random.default_rng(1).standard_normal(tuple(z.shape))
    y.backward(minidl.tensor(u))
    z.backward(torch.tensor(u))
    right = {n: p.grad for n, p in theirs.named_parameters()}
    for mine, other in [(y.detach(), z), (a.grad, b.grad), *((p.grad, right[n]) for n, p in ours.named_parameters())]:
        np.testing.assert_allclose(mine.numpy(), other.numpy(force=True), rtol=0, atol=1e-9)
    assert_same_state(ours, theirs)  # the running averages have moved alike
    ours.eval()
    theirs.eval()
    np.testing.assert_allclose(ours(a).detach().numpy(), theirs(b).numpy(force=True), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_twenty_steps(name):
    ours, theirs = make_both(name)
    mine = executed("minidl")["train"](ours, draw_batches("minidl", minidl.tensor), 20)
    right = executed("torch")["train"](theirs, draw_batches("torch", torch.tensor), 20)
    np.testing.assert_allclose(mine, right, rtol=0, atol=1e-9)
    assert mine[-1] < mine[0]
    assert_same_state(ours, theirs)


def test_a_changed_network_is_noticed():
    """A mistake in one gradient: 20 steps later the parameters differ by far more than the tolerance."""
    ours, theirs = make_both("basic")
    hook = ours.conv1.weight.register_hook(lambda grad: grad * 1.0001)
    executed("minidl")["train"](ours, draw_batches("minidl", minidl.tensor), 20)
    executed("torch")["train"](theirs, draw_batches("torch", torch.tensor), 20)
    hook.remove()
    with pytest.raises(AssertionError):
        assert_same_state(ours, theirs)
