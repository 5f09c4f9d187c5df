"""The networks that are timed against PyTorch, in PyTorch: functions of a state dict with minidl's names, so both start alike.

Written as one writes for speed there: relu and residual additions in place. Dropout is left out on both sides, so that the
losses can be compared. Nothing here runs unless PyTorch is installed.
"""

import functools


class Weights:
    """A state dict as PyTorch tensors, and the layers as functions of a name in it. layout: torch.channels_last or contiguous."""

    def __init__(self, arrays, channels_last=False):
        import torch

        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.F = torch.nn.functional
        self.cat = functools.partial(torch.cat, dim=1)
        self.tensors = {}
        for name, array in arrays.items():
            value = torch.from_numpy(array.copy())
            self.tensors[name] = value.contiguous(memory_format=self.layout) if value.ndim == 4 else value
        for name, value in self.tensors.items():
            value.requires_grad_(value.is_floating_point() and "running" not in name)

    def parameters(self):
        """What is trained."""
        return [value for value in self.tensors.values() if value.requires_grad]

    def __contains__(self, name):
        return name in self.tensors

    def conv(self, name, x, stride=1, padding=0):
        """A convolution, with a bias if there is one."""
        return self.F.conv2d(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"), stride, padding)

    def bn(self, name, x, eps=1e-5):
        """Batch norm, training."""
        names = ("running_mean", "running_var", "weight", "bias")
        return self.F.batch_norm(x, *(self.tensors[f"{name}.{n}"] for n in names), True, 0.1, eps)

    def linear(self, name, x):
        """A linear layer."""
        return self.F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def basic(self, name, x, stride=1, padding=0):
        """Inception's conv, bn, relu."""
        return self.bn(f"{name}.bn", self.conv(f"{name}.conv", x, stride, padding), 1e-3).relu_()

    def same(self, name):
        """Half of a kernel: the padding that keeps the size."""
        return tuple(k // 2 for k in self.tensors[f"{name}.conv.weight"].shape[2:])


def resnet(w, x, counts, imagenet=True):
    """ResNet of basic blocks or bottlenecks; without the ImageNet stem, option A on the shortcuts (the CIFAR form)."""
    x = w.bn("bn1", w.conv("conv1", x, *((2, 3) if imagenet else (1, 1)))).relu_()
    x = w.F.max_pool2d(x, 3, 2, 1) if imagenet else x
    for stage, count in enumerate(counts):
        for k in range(count):
            p, stride = f"layer{stage + 1}.{k}", 2 if stage and not k else 1
            beside = x
            if f"{p}.conv3.weight" in w:
                y = w.bn(f"{p}.bn1", w.conv(f"{p}.conv1", x)).relu_()
                y = w.bn(f"{p}.bn2", w.conv(f"{p}.conv2", y, stride, 1)).relu_()
                y = w.bn(f"{p}.bn3", w.conv(f"{p}.conv3", y))
            else:
                y = w.bn(f"{p}.bn1", w.conv(f"{p}.conv1", x, stride, 1)).relu_()
                y = w.bn(f"{p}.bn2", w.conv(f"{p}.conv2", y, 1, 1))
            if f"{p}.downsample.0.weight" in w:
                beside = w.bn(f"{p}.downsample.1", w.conv(f"{p}.downsample.0", x, stride))
            elif x.shape != y.shape:
                beside = w.F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            y += beside
            x = y.relu_()
    return w.linear("fc", x.mean((2, 3)))


def vgg16(w, x):
    """Five stages of 3×3 convolutions, three linear layers."""
    number = 0
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            x, number = w.conv(f"features.{number}", x, 1, 1).relu_(), number + 2
        x, number = w.F.max_pool2d(x, 2), number + 1
    x = x.flatten(1)
    return w.linear("classifier.6", w.linear("classifier.3", w.linear("classifier.0", x).relu_()).relu_())


def googlenet(w, x):
    """(scores, second head, first head)."""
    pool = functools.partial(w.F.max_pool2d, ceil_mode=True)

    def block(name, x):
        p = f"inception{name}"
        return w.cat([w.basic(f"{p}.branch1", x), w.basic(f"{p}.branch2.1", w.basic(f"{p}.branch2.0", x), 1, 1),
                      w.basic(f"{p}.branch3.1", w.basic(f"{p}.branch3.0", x), 1, 1), w.basic(f"{p}.branch4.1", pool(x, 3, 1, 1))])

    def head(name, x):
        x = w.basic(f"{name}.conv", w.F.adaptive_avg_pool2d(x, 4)).flatten(1)
        return w.linear(f"{name}.fc2", w.linear(f"{name}.fc1", x).relu_())

    x = pool(w.basic("conv1", x, 2, 3), 3, 2)
    x = pool(w.basic("conv3", w.basic("conv2", x), 1, 1), 3, 2)
    x = pool(block("3b", block("3a", x)), 3, 2)
    four = block("4a", x)
    x = block("4d", block("4c", block("4b", four)))
    heads = head("aux2", x), head("aux1", four)
    x = pool(block("4e", x), 2, 2)
    return w.linear("fc", block("5b", block("5a", x)).mean((2, 3))), *heads


def inception_v3(w, x):
    """(scores, head)."""
    def branch(p, name, x, strides=()):
        """branch_1, branch_2, ... of a block; a stride means no padding."""
        k = 1
        while f"{p}.{name}_{k}.conv.weight" in w:
            stride, full = strides[k - 1] if k <= len(strides) else 1, f"{p}.{name}_{k}"
            x, k = w.basic(full, x, stride, 0 if stride == 2 else w.same(full)), k + 1
        return x

    def pooled(p, x):
        return w.basic(f"{p}.branch_pool", w.F.avg_pool2d(x, 3, 1, 1))

    for name, stride, padding in (("1a_3x3", 2, 0), ("2a_3x3", 1, 0), ("2b_3x3", 1, 1)):
        x = w.basic(f"Conv2d_{name}", x, stride, padding)
    x = w.basic("Conv2d_4a_3x3", w.basic("Conv2d_3b_1x1", w.F.max_pool2d(x, 3, 2)))
    x = w.F.max_pool2d(x, 3, 2)
    for p in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = w.cat([w.basic(f"{p}.branch1x1", x), branch(p, "branch5x5", x), branch(p, "branch3x3dbl", x), pooled(p, x)])
    p = "Mixed_6a"
    x = w.cat([w.basic(f"{p}.branch3x3", x, 2), branch(p, "branch3x3dbl", x, (1, 1, 2)), w.F.max_pool2d(x, 3, 2)])
    for p in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = w.cat([w.basic(f"{p}.branch1x1", x), branch(p, "branch7x7", x), branch(p, "branch7x7dbl", x), pooled(p, x)])
    head = w.basic("AuxLogits.conv1", w.basic("AuxLogits.conv0", w.F.avg_pool2d(x, 5, 3)))
    head = w.linear("AuxLogits.fc", head.mean((2, 3)))
    p = "Mixed_7a"
    x = w.cat([branch(p, "branch3x3", x, (1, 2)), branch(p, "branch7x7x3", x, (1, 1, 1, 2)), w.F.max_pool2d(x, 3, 2)])
    for p in ("Mixed_7b", "Mixed_7c"):
        three, double = branch(p, "branch3x3", x), branch(p, "branch3x3dbl", x)
        x = w.cat([w.basic(f"{p}.branch1x1", x), w.basic(f"{p}.branch3x3_2a", three, 1, (0, 1)),
                   w.basic(f"{p}.branch3x3_2b", three, 1, (1, 0)), w.basic(f"{p}.branch3x3dbl_3a", double, 1, (0, 1)),
                   w.basic(f"{p}.branch3x3dbl_3b", double, 1, (1, 0)), pooled(p, x)])
    return w.linear("fc", x.mean((2, 3))), head


TWINS = {
    "vgg16": vgg16, "googlenet": googlenet, "inception_v3": inception_v3,
    "resnet18": functools.partial(resnet, counts=(2, 2, 2, 2)), "resnet34": functools.partial(resnet, counts=(3, 4, 6, 3)),
    "resnet50": functools.partial(resnet, counts=(3, 4, 6, 3)), "resnet101": functools.partial(resnet, counts=(3, 4, 23, 3)),
    "resnet20": functools.partial(resnet, counts=(3, 3, 3), imagenet=False),
    "resnet32": functools.partial(resnet, counts=(5, 5, 5), imagenet=False),
}
