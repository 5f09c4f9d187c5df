"""What the answer is: the same calls in float64 by formulas of their own, and how far float32 may be from it.

y = Σ terms may be off by 8·√n·eps·Σ|terms|: n roundings of either sign, with room. Formulas here share no code with the
backends; an op without one is compared with `generic` in float64, and the row says so.
"""

import math

import numpy as np

from minidl import backend

LINEAR = ("sum", "add_at", "avg_pool2d", "avg_pool2d_grad_x", "adaptive_avg_pool2d", "adaptive_avg_pool2d_grad_x", "neighbour_sum")
EPS = float(np.finfo(np.float32).eps)


class Exact:
    """Right results (a list of arrays), what each may be off by, and where they come from."""

    def __init__(self, results, allowed, source="float64"):
        self.results, self.allowed, self.source = results, allowed, source

    def judge(self, results):
        """("" or what is wrong, the error, the allowed error) of the worst of some results."""
        results = results if isinstance(results, tuple) else (results,)
        worst = (-1.0, 0.0, 0.0)
        for number, (mine, right, allowed) in enumerate(zip(results, self.results, self.allowed, strict=False)):
            if mine is None or right is None:
                if mine is not right:
                    return f"output {number} is {'missing' if mine is None else 'there, and should not be'}", math.inf, allowed
                continue
            if mine.shape != right.shape:
                return f"output {number} has shape {mine.shape}, not {right.shape}", math.inf, allowed
            error = float(np.max(np.abs(mine.astype(np.float64) - right), initial=0.0))
            share = error / allowed if allowed else (0.0 if error == 0 else math.inf)
            if not share <= worst[0]:  # a NaN is the worst
                worst = (share, error, allowed)
        share, error, allowed = worst
        return ("" if share <= 1 else f"off by {error:.2g}, allowed {allowed:.2g}"), error, allowed


def exact(op, arrays, how):
    """The Exact of one call of run()."""
    wide = [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in arrays]
    if op in SUMS:
        formula, terms = SUMS[op]
        size = formula(*[None if a is None else np.abs(a) for a in wide], **how)
        return Exact([formula(*wide, **how)], [8 * math.sqrt(terms(*wide, **how)) * EPS * float(size.max(initial=0.0))])
    if op in FORMULAS:
        return Exact(*FORMULAS[op](*wide, **how))
    generic = next(i for i in backend.IMPLEMENTATIONS[op] if i.backend == "generic")
    results = generic.function(*wide, **how)
    results = results if isinstance(results, tuple) else (results,)
    longest = max(a.size for a in wide if a is not None) ** 0.5
    sizes = generic.function(*[None if a is None else np.abs(a) for a in wide], **how) if op in LINEAR else results
    sizes = sizes if isinstance(sizes, tuple) else (sizes,)
    largest = [0.0 if r is None else float(np.abs(r).max(initial=0.0)) for r in sizes]
    return Exact(list(results), [8 * longest * EPS * size for size in largest], "generic in float64")


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

    return [scattered(grad_y)], [32 * EPS * float(scattered(np.abs(grad_y)).max(initial=0.0))]


def batch_norm_train(x, weight, bias, add, eps, relu):
    """(y, mean, variance)."""
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    scale = (1 if weight is None else weight) / np.sqrt(var + eps)
    y = (x - mean[:, None, None]) * np.broadcast_to(scale, mean.shape)[:, None, None]
    y = y if bias is None else y + bias[:, None, None]
    y = y if add is None else y + add
    size = float(np.abs(x).max()) * float(np.max(np.abs(scale))) + float(np.abs(y).max())
    spread = float(np.abs(x).max())
    return [np.maximum(y, 0) if relu else y, mean, var], [32 * EPS * size, 32 * EPS * spread, 32 * EPS * spread * spread]


def batch_norm_grad(grad_y, x, weight, mean, var, y=None, *, eps, add=False):
    """(grad_x, grad_w, grad_b[, grad_y behind relu]): grad_y without its mean and its part along the normalised x, scaled."""
    def wide(values):
        return values.reshape(-1, 1, 1)

    grad_y = grad_y if y is None else grad_y * (y > 0)

    axes, count = (0, 2, 3), x[:, 0].size
    scale = wide(1 / np.sqrt(var + eps))
    normal, scaled = (x - wide(mean)) * scale, grad_y if weight is None else grad_y * wide(weight)
    grad_x = scale * (scaled - wide(scaled.mean(axes)) - normal * wide((scaled * normal).mean(axes)))
    rounding = 8 * math.sqrt(count) * EPS
    offset = 1 + float(np.max(np.abs(mean) / np.sqrt(var + eps)))  # digits lost where the mean is larger than the spread
    sums = [float(np.abs(grad_y * normal).sum(axes).max()), float(np.abs(grad_y).sum(axes).max())]
    largest = 64 * EPS * offset * float(scale.max()) * float(np.abs(scaled).max()) * float(1 + np.abs(normal).max())
    results = [grad_x, (grad_y * normal).sum(axes), grad_y.sum(axes), *([grad_y] if add else [])]
    return results, [largest, rounding * offset * sums[0], rounding * sums[1], *([0.0] if add else [])]


def softmax(x, dim):
    """exp(x − max) / Σ exp(x − max)."""
    z = x - x.max(dim, keepdims=True)
    e = np.exp(z)
    return [e / e.sum(dim, keepdims=True)], [8 * EPS * (1 + math.sqrt(x.shape[dim]) / 8)]


def log_softmax(x, dim):
    """x − max − log Σ exp(x − max)."""
    z = x - x.max(dim, keepdims=True)
    y = z - np.log(np.exp(z).sum(dim, keepdims=True))
    return [y], [8 * EPS * (1 + float(np.abs(y).max()))]


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
