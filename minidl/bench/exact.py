"""What the answer is: the same calls in float64 by formulas of their own, and how far float32 may be from it, number by number.

A sum y = Σ tₖ of n terms may be off by (16 + √n) · eps · √(Σ tₖ² + y²): each of n roundings is at most half an eps of a partial
sum, the partial sums walk up to about √(Σ tₖ²) or to y, and roundings of either sign add up like √n. Inputs cut to half
precision leave some 1000 · eps · √(Σ tₖ²), which is more for every n below a million. Formulas here share no code with the
backends; an op without one is compared with `generic` in float64, and the row says so.
"""

import math

import numpy as np

from minidl import backend

LINEAR = ("sum", "add_at", "avg_pool2d", "avg_pool2d_grad_x", "adaptive_avg_pool2d", "adaptive_avg_pool2d_grad_x", "neighbour_sum")
EPS = float(np.finfo(np.float32).eps)
TINY = float(np.finfo(np.float32).tiny)  # below it digits are lost, or all of the number


WINOGRAD = 4  # tiles of 4×4 are sums of sums with factors up to 8 on the way: so many times a direct sum's bound (measured: up to 1.9)


class Exact:
    """Right results (a list of arrays), what each of their numbers may be off by (arrays too), and where they come from."""

    def __init__(self, results, allowed, source="float64"):
        self.results, self.allowed, self.source = results, allowed, source

    def judge(self, results, factor=1):
        """("" or what is wrong, [(error, allowed) of each output, at its worst number])."""
        results, found = results if isinstance(results, tuple) else (results,), []
        if len(results) != len(self.results):
            return f"{len(results)} outputs, not {len(self.results)}", [(math.inf, 0.0)]
        for number, (mine, right, allowed) in enumerate(zip(results, self.results, self.allowed, strict=True)):
            if mine is None or right is None:
                if mine is not right:
                    return f"output {number} is {'missing' if mine is None else 'there, and should not be'}", [(math.inf, 0.0)]
                continue
            if mine.shape != right.shape:
                return f"output {number} has shape {mine.shape}, not {right.shape}", [(math.inf, 0.0)]
            found.append(worst(mine, right, factor * np.asarray(allowed)))
        wrong = [k for k, (error, allowed) in enumerate(found) if not error <= allowed]
        which = f"output {wrong[0]} " if wrong and len(found) > 1 else ""
        return (f"{which}off by {found[wrong[0]][0]:.2g}, allowed {found[wrong[0]][1]:.2g}" if wrong else ""), found


def worst(mine, right, allowed):
    """(error, allowed) of the number that is furthest out for what it may be off by; a NaN is the worst."""
    if not right.size:
        return 0.0, 0.0
    error, allowed = np.abs(mine.astype(np.float64) - right), np.broadcast_to(allowed, right.shape)
    share = np.divide(error, allowed, out=np.where(error == 0, 0.0, np.inf), where=allowed > 0)
    share[np.isnan(error)] = np.inf
    place = np.unravel_index(share.argmax(), share.shape)
    return float(error[place]), float(allowed[place])


def allowance(implementation):
    """How many times a direct sum's roundings an implementation may make; the table shows a bound that is its own."""
    return WINOGRAD if "winograd" in implementation and "2x2" not in implementation else 1


def of_a_sum(terms, squares, y):
    """What a float32 sum y may be off by, from how many terms it has and the sum of their squares."""
    return (16 + np.sqrt(terms)) * EPS * np.sqrt(squares + y * y)


def exact(op, arrays, how):
    """The Exact of one call of run()."""
    wide = [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in arrays]
    if op in SUMS:
        formula, terms = SUMS[op]
        y = formula(*wide, **how)
        return Exact([y], [of_a_sum(terms(*wide, **how), formula(*squared(wide), **how), y)])
    if op in FORMULAS:
        return Exact(*FORMULAS[op](*wide, **how))
    generic = next(i for i in backend.IMPLEMENTATIONS[op] if i.backend == "generic").function
    results = as_tuple(generic(*wide, **how))
    largest = max(a.size for a in wide if a is not None)
    terms = [largest if op == "add_at" or r is None else max(1, largest / max(r.size, 1)) for r in results]
    if op in LINEAR:
        sizes = as_tuple(generic(*squared(wide), **how))
        allowed = [None if r is None else of_a_sum(n, s, r) for n, s, r in zip(terms, sizes, results, strict=True)]
    else:  # nothing is known of it but its numbers: each output by its largest
        allowed = [None if r is None else of_a_sum(n, 0.0, np.abs(r).max(initial=0.0)) for n, r in zip(terms, results, strict=True)]
    return Exact(list(results), allowed, "generic in float64")


def squared(arrays):
    """The squares of what is computed with; indices stay."""
    return [a * a if a is not None and a.dtype.kind == "f" else a for a in arrays]


def as_tuple(results):
    """Results of an implementation, one or several."""
    return results if isinstance(results, tuple) else (results,)


def padded_windows(x, kernel, stride, padding, dilation):
    """(N, C, OH, OW, KH, KW) of x with its padding."""
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, (2, 3))
    return windows[:, :, ::stride[0], ::stride[1], ::dilation[0], ::dilation[1]]


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """y[n,o,p,q] = b[o] + Σ window · filter, image by image."""
    O, C = weight.shape[:2]
    filters, images = weight.reshape(groups, O // groups, *weight.shape[1:]), []
    for image in x:
        windows = padded_windows(image[None], weight.shape[2:], stride, padding, dilation)[0]
        windows = windows.reshape(groups, C, *windows.shape[1:])
        y = np.einsum("gcpqij,gocij->gopq", windows, filters, optimize=True)
        images.append(y.reshape(O, *y.shape[2:]))
    y = np.stack(images)
    return y if bias is None else y + bias[:, None, None]


def conv2d_grad_w(x, grad_y, w_shape, stride, padding, dilation, groups):
    """grad_w[o,c,i,j] = Σ window · grad_y, image by image."""
    O, C = w_shape[:2]
    total = 0.0
    for image, grad in zip(x, grad_y, strict=True):
        windows = padded_windows(image[None], w_shape[2:], stride, padding, dilation)[0]
        windows = windows.reshape(groups, C, *windows.shape[1:])
        total = total + np.einsum("gcpqij,gopq->gocij", windows, grad.reshape(groups, O // groups, *grad.shape[1:]), optimize=True)
    return total.reshape(w_shape)


def conv2d_grad_x(grad_y, weight, x_shape, stride, padding, dilation, groups):
    """Every output hands its gradient back, one kernel cell after the other."""
    (N, C, H, W), (O, _, KH, KW), (OH, OW) = x_shape, weight.shape, grad_y.shape[2:]
    (top, bottom), (left, right) = padding
    full = np.zeros((N, groups, C // groups, H + top + bottom, W + left + right))
    grads, filters = grad_y.reshape(N, groups, O // groups, OH, OW), weight.reshape(groups, O // groups, C // groups, KH, KW)
    for i in range(KH):
        for j in range(KW):
            rows = slice(i * dilation[0], i * dilation[0] + (OH - 1) * stride[0] + 1, stride[0])
            columns = slice(j * dilation[1], j * dilation[1] + (OW - 1) * stride[1] + 1, stride[1])
            full[..., rows, columns] += np.einsum("ngopq,goc->ngcpq", grads, filters[..., i, j], optimize=True)
    return full.reshape(N, C, *full.shape[3:])[:, :, top:top + H, left:left + W]


def max_pool2d(x, kernel, stride, padding, dilation, size):
    """Values; positions where the largest pixel of a window is the only one of its value. Exactly."""
    pads = list(zip(padding, padding, strict=True)) if not isinstance(padding[0], tuple) else list(padding)
    H, W = x.shape[2:]
    for k, n in enumerate((H, W)):  # ceil_mode looks further than the padding
        reach = (size[k] - 1) * stride[k] + dilation[k] * (kernel[k] - 1) + 1
        pads[k] = pads[k][0], max(pads[k][1], reach - n - pads[k][0])
    full = np.pad(x, ((0, 0), (0, 0), *pads), constant_values=-np.inf)
    windows = padded_windows(full, kernel, stride, ((0, 0), (0, 0)), dilation)[:, :, :size[0], :size[1]]
    flat = windows.reshape(*windows.shape[:4], -1)
    cell = flat.argmax(-1)
    h = cell // kernel[1] * dilation[0] + np.arange(size[0])[:, None] * stride[0] - pads[0][0]
    w = cell % kernel[1] * dilation[1] + np.arange(size[1]) * stride[1] - pads[1][0]
    return [flat.max(-1), (h * W + w).astype(np.float64)], [0.0, 0.0]


def max_pool2d_grad_x(grad_y, indices, x_shape, **how):
    """Every number to the pixel its index names."""
    N, C, H, W = x_shape

    def scattered(values):
        places = (np.arange(N * C).reshape(N, C, 1, 1) * (H * W) + indices).reshape(-1)
        return np.bincount(places, values.reshape(-1), N * C * H * W).reshape(x_shape)

    return [scattered(grad_y)], [8 * EPS * scattered(np.abs(grad_y))]  # few windows share a pixel


def batch_norm_train(x, weight, bias, add, eps, relu):
    """(y, mean, variance)."""
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    scale = (1 if weight is None else weight) / np.sqrt(var + eps)
    y = (x - mean[:, None, None]) * np.broadcast_to(scale, mean.shape)[:, None, None]
    y = y if bias is None else y + bias[:, None, None]
    y = y if add is None else y + add
    count, axes = x[:, 0].size, (0, 2, 3)
    off_mean = of_a_sum(count, (x * x).sum(axes), mean * count) / count
    off_var = of_a_sum(count, ((x - wide(mean)) ** 4).sum(axes), var * count) / count + 2 * EPS * mean * mean
    off = 16 * EPS * (np.abs(x) + np.abs(wide(mean))) + wide(off_mean) + np.abs(x - wide(mean)) * wide(off_var / (var + eps) / 2)
    off = off * np.abs(wide(np.broadcast_to(scale, mean.shape))) + 16 * EPS * np.abs(y)
    off = off if bias is None else off + 4 * EPS * np.abs(wide(bias))
    off = off if add is None else off + 4 * EPS * np.abs(add)
    return [np.maximum(y, 0) if relu else y, mean, var], [off, off_mean, off_var]


def wide(values):
    """A number per channel, to be multiplied with images."""
    return np.asarray(values).reshape(-1, 1, 1)


def batch_norm_grad(grad_y, x, weight, mean, var, y=None, *, eps, add=False):
    """(grad_x, grad_w, grad_b[, grad_y behind relu]): grad_y without its mean and its part along the normalised x, scaled."""
    grad_y = grad_y if y is None else grad_y * (y > 0)
    axes, count = (0, 2, 3), x[:, 0].size
    scale = wide(1 / np.sqrt(var + eps))
    normal, scaled = (x - wide(mean)) * scale, grad_y if weight is None else grad_y * wide(weight)
    means = scaled.mean(axes), (scaled * normal).mean(axes)
    grad_x = scale * (scaled - wide(means[0]) - normal * wide(means[1]))
    lost = 1 + np.abs(mean) / np.sqrt(var + eps)  # digits lost where the mean is larger than the spread
    off = [of_a_sum(count, (terms * terms).sum(axes), terms.sum(axes)) for terms in (scaled, scaled * normal, grad_y * normal, grad_y)]
    off_x = wide(off[0] / count) + np.abs(normal) * wide(off[1] / count * lost)
    off_x = off_x + 16 * EPS * (np.abs(scaled) + np.abs(wide(means[0])) + (wide(lost) + np.abs(normal)) * np.abs(wide(means[1])))
    results = [grad_x, (grad_y * normal).sum(axes), grad_y.sum(axes), *([grad_y] if add else [])]
    return results, [scale * off_x, off[2] * lost, off[3], *([0.0] if add else [])]


def softmax(x, dim):
    """exp(x − max) / Σ exp(x − max)."""
    z = x - x.max(dim, keepdims=True)
    e = np.exp(z)
    y = e / e.sum(dim, keepdims=True)
    return [y], [EPS * y * (16 + np.abs(z) + math.sqrt(x.shape[dim])) + TINY]


def log_softmax(x, dim):
    """x − max − log Σ exp(x − max)."""
    z = x - x.max(dim, keepdims=True)
    y = z - np.log(np.exp(z).sum(dim, keepdims=True))
    return [y], [EPS * (16 + 4 * np.abs(z) + 4 * np.abs(y) + math.sqrt(x.shape[dim]))]


SUMS = {  # op -> (formula, how many terms one result has)
    "conv2d": (conv2d, lambda x, w, b, **how: w[0].size),
    "conv2d_grad_x": (conv2d_grad_x, lambda grad_y, w, **how: w[:, 0].size),
    "conv2d_grad_w": (conv2d_grad_w, lambda x, grad_y, **how: grad_y.size // grad_y.shape[1]),
    "matmul": (lambda a, b: a @ b, lambda a, b: a.shape[-1]),
}
FORMULAS = {"max_pool2d": max_pool2d, "max_pool2d_grad_x": max_pool2d_grad_x, "batch_norm_train": batch_norm_train,
            "batch_norm_grad": batch_norm_grad, "softmax": softmax, "log_softmax": log_softmax}


# --- how much work a call is ------------------------------------------------------------------------------------------

PER_ELEMENT = {"batch_norm_train": 8, "batch_norm_eval": 4, "batch_norm_grad": 12, "softmax": 5, "log_softmax": 5, "max_pool2d_grad_x": 1}


def operations(op, arrays, how):
    """Floating-point operations of one call, counted as the definition does them (a Winograd kernel does fewer)."""
    if op == "conv2d":
        x, weight, _ = arrays
        return 2 * x.shape[0] * weight.size * math.prod(_size(x.shape, weight.shape, how))
    if op == "conv2d_grad_x":
        return 2 * arrays[0].size // arrays[0].shape[1] * arrays[1].size
    if op == "conv2d_grad_w":
        return 2 * arrays[1].size // arrays[1].shape[1] * math.prod(how["w_shape"])
    if op == "matmul":
        return 2 * math.prod(arrays[0].shape) * arrays[1].shape[-1]
    if op in ("max_pool2d", "avg_pool2d"):
        return arrays[0].shape[0] * arrays[0].shape[1] * math.prod(how["size"]) * math.prod(how["kernel"])
    return PER_ELEMENT.get(op, 1) * max(a.size for a in arrays if a is not None)


def _size(x_shape, w_shape, how):
    from minidl.backend.window import output_size

    return output_size(x_shape, w_shape[2:], how["stride"], how["padding"], how["dilation"])


def traffic(arrays, results):
    """Bytes that must move at least: every input read once, every output written once."""
    results = results if isinstance(results, tuple) else (results,)
    return sum(a.nbytes for a in (*arrays, *results) if a is not None)
