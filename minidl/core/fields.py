"""Receptive fields: which part of the input image an output pixel can see, followed from op to op.

Along one axis a field is (first, last, stride): output 0 sees the pixels first … last, output p the same moved by p·stride.
A window op with kernel k, stride s, padding pad and dilation d looks at outputs −pad … −pad + d·(k − 1) of the one before:

    first' = first − pad · stride,   last' = last + (d·(k − 1) − pad) · stride,   stride' = stride · s
"""

from minidl.core.tensor import Tensor
from minidl.ops.window import conv_window, pair

START = (0, 0, 1)  # of the image itself


class Field:
    """The receptive field of an output: one (first, last, stride) per axis; `whole` once every output sees all of them."""

    __slots__ = ("axes", "whole")

    def __init__(self, axes=(START, START), whole=False):
        self.axes, self.whole = axes, whole

    size = property(lambda self: [last - first + 1 for first, last, _ in self.axes], doc="How many pixels it spans, down and across.")
    stride = property(lambda self: None if self.whole else [stride for _, _, stride in self.axes], doc="From one output to the next.")
    start = property(lambda self: [first for first, _, _ in self.axes], doc="The first pixel that output 0 sees; below 0 is padding.")

    def __str__(self):
        if self.whole:
            return f"{_once(self.size)} all"
        return f"{_once(self.size)}/{_once(self.stride)}/{_once(self.start)}"

    def as_dict(self):
        """For JSON."""
        return {"size": self.size, "stride": self.stride, "start": self.start}


def _once(values):
    """One number where both axes agree."""
    texts = [f"{value:g}" for value in values]
    return texts[0] if texts[0] == texts[1] else "×".join(texts)


def after(call, fields):
    """The Field of a Call's output, given those of its tensor inputs ({position: Field}); None where it is not known."""
    shape = call.outputs[0].shape
    if not fields:
        return None
    x = next(iter(fields.values()))
    image = call.inputs[next(iter(fields))].shape
    if call.op.name in ("conv2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"):
        return _through_windows(x, image, _windows(call))
    if len(shape) != 4:
        return _everything(call, fields)
    if call.op.name == "getitem":
        return _through_slices(x, call.args[1])
    if any(f.whole for f in fields.values()):
        return None
    if any(isinstance(t, Tensor) and t.ndim == 4 and t.shape[2:] not in (shape[2:], (1, 1)) for t in call.inputs):
        return None  # an op that resizes, and that this file does not know
    axes = []
    for parts in zip(*(field.axes for field in fields.values()), strict=True):  # branches that meet: the union of what they see
        first, last, stride = zip(*parts, strict=True)
        axes.append((min(first), max(last), max(stride)))
    return Field(tuple(axes))


def _setting(call, name, default):
    """A setting of an op, whether it came by position or by keyword."""
    place = len(call.op.tensors) + call.op.settings.index(name)
    return call.settings.get(name, call.args[place] if place < len(call.args) else default)


def _windows(call):
    """(kernel, stride, first pad, dilation) per axis."""
    image, size = call.inputs[0].shape[-2:], call.outputs[0].shape[-2:]
    if call.op.name.startswith("adaptive"):  # the widest window; they start everywhere at once
        return [(-(-length // places) + (length % places > 0), length / places, 0, 1) for length, places in zip(image, size, strict=True)]
    if call.op.name == "conv2d":
        kernel = call.inputs[1].shape[2:]
        how = conv_window("conv2d", kernel, _setting(call, "stride", 1), _setting(call, "padding", 0), _setting(call, "dilation", 1))
        return list(zip(kernel, how["stride"], [pad[0] for pad in how["padding"]], how["dilation"], strict=True))
    kernel = pair(call.op.name, "kernel_size", _setting(call, "kernel_size", None), 1)
    stride = _setting(call, "stride", None)
    stride = kernel if stride is None else pair(call.op.name, "stride", stride, 1)
    dilation = _setting(call, "dilation", 1) if "dilation" in call.op.settings else 1
    return list(zip(kernel, stride, pair(call.op.name, "padding", _setting(call, "padding", 0), 0),
                    pair(call.op.name, "dilation", dilation, 1), strict=True))


def _through_windows(x, image, windows):
    if x.whole:
        return x
    axes = []
    for (first, last, stride), (kernel, step, pad, dilation) in zip(x.axes, windows, strict=True):
        axes.append((first - pad * stride, last + (dilation * (kernel - 1) - pad) * stride, stride * step))
    return Field(tuple(axes))


def _through_slices(x, index):
    """x[:, :, 1::2, ::2] moves and widens the steps."""
    cuts = list(index if isinstance(index, tuple) else (index,))
    cuts += [slice(None)] * (4 - len(cuts))
    if not all(isinstance(cut, slice) and (cut.start or 0) >= 0 and (cut.step or 1) > 0 for cut in cuts[2:4]):
        return x if cuts[2:4] == [slice(None)] * 2 else None
    axes = [(first + (cut.start or 0) * stride, last + (cut.start or 0) * stride, stride * (cut.step or 1))
            for (first, last, stride), cut in zip(x.axes, cuts[2:4], strict=True)]
    return Field(tuple(axes))


def _everything(call, fields):
    """What is left when the image's axes are gone: the union over all places that it had."""
    axes = []
    for axis in range(2):
        reach = []
        for number, field in fields.items():
            first, last, stride = field.axes[axis]
            places = 1 if field.whole or call.inputs[number].ndim != 4 else call.inputs[number].shape[2 + axis]
            reach.append((first, last + (places - 1) * stride))
        axes.append((min(first for first, _ in reach), max(last for _, last in reach), 1))
    return Field(tuple(axes), whole=True)


__all__ = ["Field", "after"]
