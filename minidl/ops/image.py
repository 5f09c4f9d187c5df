"""Images made larger, smaller or padded, and elements moved between channels and positions.

Every pixel of a padded or resized image reads from one or two positions of the old one, along each axis on its own.
resample() is that reading, resample_grad_x() its transpose; the rest says which positions.
"""

import numpy as np

from minidl import backend
from minidl.core.dtypes import float64, is_floating
from minidl.core.errors import ArgumentError, DTypeError, RangeError, ShapeError, describe, explained
from minidl.core.examples import normal
from minidl.core.op import example, op
from minidl.ops import shape
from minidl.ops.pool import adaptive_avg_pool2d

MODES = ("constant", "reflect", "replicate", "circular")

EXAMPLES = [  # image, reads: shared by the two ops
    ((2, 3, 4, 5), (2, 3, 3, 5), ((2, ((2, 0, 0), None)),)),
    ((2, 2, 3, 4), (2, 2, 4, 3), ((2, ((0, 0, 1, 2), (1.0, 0.75, 0.5, 0.25)), ((0, 1, 2, 2), (0.0, 0.25, 0.5, 0.75))),
                                  (3, ((3, 1, 3), None)))),
    ((2, 5), (2, 3), ((-1, ((4, 0, 1), (0.5, 2.0, -1.0))),)),
]


@op("x", examples=[example(normal(*x), reads) for x, _, reads in EXAMPLES],
    tex=r"y_{\ldots p \ldots} = \sum_t s_{tp}\; x_{\ldots i_{tp} \ldots}")
def resample(x, reads):
    """Read every element from given positions, axis by axis: y[.., p, ..] = Σ_t share[t][p] · x[.., index[t][p], ..].

    reads holds (axis, (index, share), (index, share), ...) for every axis that changes; a share of None is 1.

    Shapes:    x (.., H, ..)  ->  y (.., len(index), ..)
    Backward:  y is linear in x: what was read from a position goes back there, times its share (resample_grad_x).
    """
    if not is_floating(x.dtype) and any(share is not None for _, *taps in reads for _, share in taps):
        raise explained(DTypeError, "resample", "only floating point numbers can be mixed.", [f"x: {x.shape}, {x.dtype}"],
                        "Convert it first: x.float().")
    y = backend.run("resample", x.array, reads=reads)
    x_shape = x.shape

    def backward(grad_y):
        return resample_grad_x(grad_y, x_shape, reads)

    return y, backward


@op("grad_y", examples=[example(normal(*y), x, reads) for x, y, reads in EXAMPLES],
    tex=r"\bar x_{\ldots h \ldots} = \sum_{t,\,p:\; i_{tp} = h} s_{tp}\; \bar y_{\ldots p \ldots}")
def resample_grad_x(grad_y, x_shape, reads):
    """The gradient of resample: every element sends its gradient to the positions it was read from, times their shares.

    Shapes:    grad_y as resample's y  ->  grad_x of x_shape
    Backward:  it is linear, and what was sent out is read again: resample with the same reads.
    """
    grad_x = backend.run("resample_grad_x", grad_y.array, x_shape=tuple(x_shape), reads=reads)

    def backward(x2):
        return resample(x2, reads)

    return grad_x, backward


# --- padding ----------------------------------------------------------------------------------------------------

def pad(input, pad, mode="constant", value=None):
    """Make x larger at its edges. `pad` is (before, after) for the last axis, then for the one in front of it, ...; mode:

    "constant" puts `value` (0) there, "reflect" the image mirrored at its edge pixel, "replicate" the edge pixel, "circular"
    the opposite side. A negative number cuts off instead.
    """
    if mode == "constant":
        return shape.pad(input, pad, "constant", value)
    pairs = pad_pairs(input, pad, mode, value)
    return resample(input, tuple((axis, (edge_positions(mode, input.shape[axis], before, after), None)) for axis, before, after in pairs))


def edge_positions(mode, n, before, after):
    """Which of n old elements each new element of an axis reads; -1 and n lie just outside."""
    p = np.arange(-before, n + after)
    if mode == "reflect":
        return (n - 1) - np.abs(n - 1 - np.abs(p))
    if mode == "circular":  # what a negative number cuts off does not come back on the other side
        first, last = max(-before, 0), n - max(-after, 0)
        return first + (p - first) % (last - first)
    return np.clip(p, 0, n - 1)


def pad_pairs(x, pad, mode, value):
    """(axis, before, after) for every padded axis, if the mode can fill them."""
    if mode not in MODES:
        raise explained(ArgumentError, "pad", f"there is no mode {mode!r}.", [f"modes: {', '.join(map(repr, MODES))}"],
                        "Check the spelling.")
    if value is not None and value != 0:
        raise explained(ArgumentError, "pad", f"mode {mode!r} takes its values from x.", [f"value: {value}"],
                        "Use mode='constant' for a number.")
    if len(pad) % 2 or not pad or len(pad) > 2 * (x.ndim - 1):
        raise explained(ShapeError, "pad", "pad is a pair (before, after) per axis, for the last axes of x; the batch has none.",
                        [f"pad: {tuple(pad)}, {len(pad)} numbers", f"x: {x.shape}, {x.ndim} axes"],
                        "Name the last axis first: (left, right, top, bottom).")
    pairs = [(x.ndim - 1 - k, pad[2 * k], pad[2 * k + 1]) for k in range(len(pad) // 2)]
    for axis, before, after in pairs:
        n = x.shape[axis]
        left = n + min(before, 0) + min(after, 0)
        most = {"reflect": n - 1, "circular": left, "replicate": max(before, after) if n else 0}[mode]
        if max(before, after) > most or n + before + after < 1 or left < 0:
            raise explained(ShapeError, "pad", f"axis {axis} cannot be padded like that.",
                            [f"x: {x.shape}, axis {axis} has size {n}", f"pad ({before}, {after}), mode {mode!r}"],
                            f"Here {mode!r} reaches at most {most}, and something must be left." if n else "The axis is empty.")
    return pairs


# --- resizing ---------------------------------------------------------------------------------------------------

def interpolate(input, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None, antialias=False):
    """Make images (N, C, H, W) larger or smaller, to a size or by a factor; sequences (N, C, W) too.

    "nearest" takes pixel ⌊p · H/OH⌋ for every new pixel p ("nearest-exact": ⌊(p + ½) · H/OH⌋), "bilinear" ("linear" for
    sequences) mixes the two (four) around (p + ½) · H/OH − ½, with align_corners around p · (H − 1)/(OH − 1); "area" averages.
    """
    axes = interpolate_axes(input, mode, align_corners, antialias)
    sizes, factors = new_sizes(input.shape[2:], size, scale_factor, recompute_scale_factor, align_corners)
    if mode == "area":
        return adaptive_avg_pool2d(input, sizes) if len(sizes) == 2 else adaptive_avg_pool2d(input.unsqueeze(2), (1, *sizes)).squeeze(2)
    reads = []
    for axis, n, size, factor in zip(axes, input.shape[2:], sizes, factors, strict=True):
        if mode in ("nearest", "nearest-exact"):
            reads.append((axis, (nearest(n, size, factor, 0.5 if mode == "nearest-exact" else 0.0), None)))
        else:
            reads.append((axis, *mixed(n, size, factor, bool(align_corners), np.float64 if input.dtype == float64 else np.float32)))
    return resample(input, tuple(reads))


def nearest(n, size, factor, shift):
    """The position that each of `size` new elements reads. PyTorch computes it in float32, so this does too."""
    p = np.arange(size)
    if not shift and size in (n, 2 * n):
        return p * n // size
    step = np.float32(1 / factor) if factor else np.float32(n) / np.float32(size)
    return np.minimum(np.floor((p.astype(np.float32) + np.float32(shift)) * step).astype(np.int64), n - 1)


def mixed(n, size, factor, align_corners, real):
    """Both neighbours of each of `size` new elements, and their shares, computed in the precision of x."""
    p = np.arange(size)
    if size == n:
        return ((p, None),)
    if align_corners:
        at = p.astype(real) * (real(n - 1) / real(size - 1) if size > 1 else real(0))
    else:
        step = real(1 / factor) if factor else real(n) / real(size)
        at = np.maximum((p.astype(real) + real(0.5)) * step - real(0.5), real(0))
    low = np.minimum(at.astype(np.int64), n - 1)
    share = np.clip(at - low.astype(real), 0, 1).astype(real)
    return (low, real(1) - share), (np.minimum(low + 1, n - 1), share)


def interpolate_axes(x, mode, align_corners, antialias):
    """The axes of positions, if x and the mode fit together."""
    modes = {3: ("nearest", "nearest-exact", "linear", "area"), 4: ("nearest", "nearest-exact", "bilinear", "area")}
    if x.ndim not in modes:
        raise explained(ShapeError, "interpolate", "x must be images (N, C, H, W) or sequences (N, C, W).", [f"x: {x.shape}"],
                        "Did you mean x.unsqueeze(0) (a batch of one)?")
    if mode not in modes[x.ndim] or antialias:
        raise explained(ArgumentError, "interpolate", "there is no such way to resize here.",
                        [f"mode: {mode!r}, antialias={antialias}", f"x: {x.shape}, modes: {', '.join(map(repr, modes[x.ndim]))}"],
                        "'bilinear' is for images, 'linear' for sequences; antialias is not available.")
    if align_corners is not None and "linear" not in mode:
        raise explained(ArgumentError, "interpolate", "align_corners is a setting of the linear modes.",
                        [f"mode: {mode!r}, align_corners={align_corners}"], "Leave it out.")
    return tuple(range(2, x.ndim))


def new_sizes(old, size, scale_factor, recompute_scale_factor, align_corners):
    """(new sizes, factors): a factor of None means that the ratio of the sizes is the factor."""
    if (size is None) == (scale_factor is None):
        raise explained(ArgumentError, "interpolate", "either size or scale_factor says how large.",
                        [f"size={size}, scale_factor={scale_factor}"], "Pass one of the two.")
    given = size if scale_factor is None else scale_factor
    given = tuple(given) if isinstance(given, (tuple, list)) else (given,) * len(old)
    if len(given) != len(old):
        raise explained(ShapeError, "interpolate", f"one number per axis of positions, {len(old)} in all.", [f"given: {given}"],
                        "One number alone holds for all axes.")
    sizes = given if scale_factor is None else tuple(int(np.floor(float(n) * f)) for n, f in zip(old, given, strict=True))
    if min((*old, *sizes)) < 1:
        raise explained(ShapeError, "interpolate", "sizes must be at least 1.", [f"old: {old}", f"new: {sizes}"], "Use a larger factor.")
    exact = scale_factor is not None and not recompute_scale_factor
    return sizes, given if exact else (None,) * len(old)


# --- between channels and positions -----------------------------------------------------------------------------

def pixel_shuffle(input, upscale_factor):
    """Channels become finer positions: (.., C·r², H, W) -> (.., C, H·r, W·r)."""
    r = factor_of("pixel_shuffle", input, upscale_factor)
    *lead, C, H, W = input.shape
    if C % (r * r):
        raise explained(ShapeError, "pixel_shuffle", "the channels must be a multiple of r².", [f"x: {input.shape}, C = {C}", f"r = {r}"],
                        "Every group of r² channels becomes one.")
    n = len(lead)
    x = input.reshape(*lead, C // (r * r), r, r, H, W)
    return x.permute(*range(n), n, n + 3, n + 1, n + 4, n + 2).reshape(*lead, C // (r * r), H * r, W * r)


def pixel_unshuffle(input, downscale_factor):
    """Positions become channels, the opposite of pixel_shuffle: (.., C, H·r, W·r) -> (.., C·r², H, W)."""
    r = factor_of("pixel_unshuffle", input, downscale_factor)
    *lead, C, H, W = input.shape
    if H % r or W % r:
        raise explained(ShapeError, "pixel_unshuffle", "height and width must be multiples of r.", [f"x: {input.shape}", f"r = {r}"],
                        "Pad or cut the image first.")
    n = len(lead)
    x = input.reshape(*lead, C, H // r, r, W // r, r)
    return x.permute(*range(n), n, n + 2, n + 4, n + 1, n + 3).reshape(*lead, C * r * r, H // r, W // r)


def factor_of(call, x, r):
    """The factor, if x is an image and it is a whole number."""
    if x.ndim < 3 or not isinstance(r, int) or r < 1:
        raise explained(RangeError if x.ndim >= 3 else ShapeError, call, "x is (.., C, H, W) and the factor a whole number of at least 1.",
                        [f"x: {x.shape}", f"factor: {describe(r)}"],
                        "Did you mean x.unsqueeze(0)?" if x.ndim < 3 else "2 doubles both sides.")
    return r


def channel_shuffle(input, groups):
    """Deal the channels of `groups` groups out in turn: channel g·C/groups + k becomes channel k·groups + g."""
    if input.ndim < 3 or not isinstance(groups, int) or groups < 1 or input.shape[1] % groups:
        raise explained(ShapeError, "channel_shuffle", "x is (N, C, ...) and groups divides C.", [f"x: {input.shape}", f"groups: {groups}"],
                        "Choose a divisor of the number of channels.")
    N, C, *image = input.shape
    return input.reshape(N, groups, C // groups, *image).transpose(1, 2).reshape(N, C, *image)


# pad is F.pad; among the ops that name is the op that pads with constants
__all__ = ["channel_shuffle", "interpolate", "pixel_shuffle", "pixel_unshuffle", "resample", "resample_grad_x"]
