"""The settings of everything with a sliding window, made plain and checked: convolution, pooling, unfold, fold."""

import functools

from minidl.backend.window import positions
from minidl.core.errors import ArgumentError, DTypeError, ShapeError, describe, explained, match_shapes
from minidl.ops.shape import unsqueeze

AXES = ("height", "H"), ("width", "W")


def pair(call, name, value, least):
    """(2, 2) from 2, (2,) or (2, 2): one whole number per axis."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    values = values * 2 if len(values) == 1 else values
    if len(values) != 2 or not all(hasattr(v, "__index__") and v >= least for v in values):
        raise explained(ArgumentError, call, f"{name} must be a whole number, {least} or more, or a pair of them (height, width).",
                        [f"{name}: {describe(value)}"], f"Give one number for both axes, as in {name}={max(least, 1)}.")
    return values[0].__index__(), values[1].__index__()


def conv_window(call, kernel, stride, padding, dilation):
    """The settings as backends take them: pairs, and padding ((top, bottom), (left, right))."""
    stride, dilation = pair(call, "stride", stride, 1), pair(call, "dilation", dilation, 1)
    if isinstance(padding, str):
        padding = _named_padding(call, padding, kernel, stride, dilation)
    elif not (isinstance(padding, tuple) and isinstance(padding[0], tuple)):
        padding = tuple((pad, pad) for pad in pair(call, "padding", padding, 0))
    return {"stride": stride, "padding": padding, "dilation": dilation}


def _named_padding(call, padding, kernel, stride, dilation):
    """'valid' is none; 'same' keeps the image's size, and where the total is odd the extra pixel goes below and right."""
    if padding not in ("same", "valid"):
        raise explained(ArgumentError, call, "padding is a number, a pair, 'same' or 'valid'.", [f"padding: {padding!r}"],
                        "Did you mean 'same' (the output is as large as the image)?")
    if padding == "same" and stride != (1, 1):
        raise explained(ArgumentError, call, "padding='same' needs stride 1: a strided output cannot be as large as the image.",
                        [f"stride: {stride}"], f"Use padding={kernel[0] // 2} for an output of ceil(size / stride).")
    totals = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def conv_size(call, x_shape, kernel, stride, padding, dilation, letters="HW"):
    """(OH, OW) of a convolution; a kernel larger than the padded image is an error that shows the arithmetic."""
    size = tuple(map(positions, x_shape[-2:], kernel, stride, padding, dilation))
    if min(size) < 1:
        axis = 0 if size[0] < 1 else 1
        need = dilation[axis] * (kernel[axis] - 1) + 1 - x_shape[-2 + axis]
        raise explained(ShapeError, call, "the kernel is larger than the padded image.",
                        [arithmetic(letters[axis], axis, x_shape[-2 + axis], kernel, stride, padding, dilation, size),
                         f"shapes: x {tuple(x_shape)}, kernel {tuple(kernel)}"],
                        f"Use padding={-(-need // 2)} or more, a smaller kernel, or a larger image.")
    return size


def arithmetic(letter, axis, length, kernel, stride, padding, dilation, size, ceil_mode=False):
    """OH = (H + 2·pad − d·(KH − 1) − 1) // s + 1 with its numbers."""
    before, after = padding[axis]
    pads = f"2·{before}" if before == after else f"{before} + {after}"
    extra = f" + {stride[axis] - 1}" if ceil_mode else ""
    return (f"O{letter} = ({length} + {pads} − {dilation[axis]}·({kernel[axis]} − 1) − 1{extra}) // {stride[axis]} + 1 = {size[axis]}"
            f"   with {letter} = {length}, K{letter.replace('L', '')} = {kernel[axis]}")


def pool_window(call, x, kernel_size, stride, padding, dilation, ceil_mode, letters="HW"):
    """The settings of a pooling as backends take them, with the output's size, for an image or its shape."""
    x_shape = tuple(getattr(x, "shape", x))
    if len(x_shape) != 4:
        match_shapes(call, x=(x, "N C H W"))  # raises
    kernel = pair(call, "kernel_size", kernel_size, 1)
    stride = kernel if stride is None or stride in ([], ()) else pair(call, "stride", stride, 1)
    padding, dilation = pair(call, "padding", padding, 0), pair(call, "dilation", dilation, 1)
    if any(2 * pad > k for pad, k in zip(padding, kernel, strict=True)):
        raise explained(ArgumentError, call, "padding must be at most half of the kernel: else a window could lie in the padding alone.",
                        [f"padding: {padding}", f"kernel_size: {kernel}"], f"Use padding={min(kernel) // 2} or less.")
    size = tuple(_pool_positions(*axis, ceil_mode) for axis in zip(x_shape[2:], kernel, stride, padding, dilation, strict=True))
    if min(x_shape[2:]) < 1:
        raise explained(ShapeError, call, "an image without pixels cannot be pooled.", [f"x: {x_shape}"], "Only the batch may be empty.")
    if min(size) < 1:
        axis = 0 if size[0] < 1 else 1
        raise explained(ShapeError, call, "the kernel is larger than the padded image.",
                        [arithmetic(letters[axis], axis, x_shape[2 + axis], kernel, stride, [(pad, pad) for pad in padding], dilation, size,
                                    ceil_mode),
                         f"shapes: x {x_shape}, kernel {kernel}"],
                        "Use a smaller kernel, or a larger image.")
    if dilation != (1, 1):
        _refuse_blind_windows(call, x_shape[2:], size, kernel, stride, padding, dilation)
    return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "size": size}


def _pool_positions(size, kernel, stride, pad, dilation, ceil_mode):
    """How many windows an axis has. Rounding up may add one, unless it would start in the padding on the far side."""
    if not ceil_mode:
        return positions(size, kernel, stride, (pad, pad), dilation)
    count = positions(size, kernel, stride, (pad, pad + stride - 1), dilation)
    return count - 1 if (count - 1) * stride >= size + pad else count


def _refuse_blind_windows(call, image, size, kernel, stride, padding, dilation):
    """A dilated window can step over a small image: then there is no pixel to choose."""
    for axis, (name, letter) in enumerate(AXES):
        for p in range(size[axis]):
            first = p * stride[axis] - padding[axis]
            if not any(0 <= first + i * dilation[axis] < image[axis] for i in range(kernel[axis])):
                raise explained(ShapeError, call, "a window has no cell in the image.",
                                [f"{name}: {letter} = {image[axis]}, window {p} looks at "
                                 + ", ".join(str(first + i * dilation[axis]) for i in range(kernel[axis])),
                                 f"kernel {kernel}, padding {padding}, dilation {dilation}"],
                                "Use less padding or a smaller dilation.")


def check_groups(call, groups, **channels):
    """groups must be a positive number that divides every channel count given, as in check_groups("conv2d", 2, C=6, O=4)."""
    if not hasattr(groups, "__index__") or groups < 1 or any(n % groups for n in channels.values()):
        common = [str(g) for g in range(1, min(channels.values()) + 1) if all(n % g == 0 for n in channels.values())]
        raise explained(ArgumentError, call, "groups must divide the channels going in and the channels coming out.",
                        [f"groups: {groups}", "channels: " + ", ".join(f"{k} = {n}" for k, n in channels.items())],
                        f"These would do: {', '.join(common)}.")


def same_dtype(call, **tensors):
    """All tensors that are given must have one dtype: nothing is converted silently."""
    found = {name: t.dtype for name, t in tensors.items() if t is not None}
    if len(set(found.values())) > 1:
        first = next(iter(found))
        second = next(name for name in found if found[name] != found[first])
        raise explained(DTypeError, call, "the tensors must have one element type.", [f"{name}: {dtype}" for name, dtype in found.items()],
                        f"Convert one of them, as in {first}.to({second}.dtype).")


def unbatched(ndim):
    """Let an op on batches of `ndim` axes also take a single image: a batch of one goes in, its only element comes out."""

    def decorate(function):
        @functools.wraps(function)
        def call(*args, **settings):
            name = "input" if "input" in settings else function.op.tensors[0]
            x = args[0] if args else settings.get(name)
            if getattr(x, "ndim", None) != ndim - 1:
                return function(*args, **settings)
            y = function(unsqueeze(x, 0), *args[1:], **settings) if args else function(**{**settings, name: unsqueeze(x, 0)})
            return tuple(t.squeeze(0) for t in y) if type(y) is tuple else y.squeeze(0)

        return call

    return decorate
