"""The calls of the cases in PyTorch, in both of its storage orders. Nothing here runs unless PyTorch is installed."""

from time import perf_counter

from minidl.bench.cases import drawn


def why_not():
    """"" if PyTorch can be compared with, else the reason."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        return f"PyTorch cannot be imported here: {error}"
    return ""


def contenders(case):
    """{"torch NCHW": call, "torch NHWC": call}: each call returns (forward, backward) seconds. One order where nothing is 4-D."""
    import torch

    orders = {"torch NCHW": torch.contiguous_format, "torch NHWC": torch.channels_last}
    if all(array.ndim != 4 for array in case.arrays.values()):
        orders = {"torch": torch.contiguous_format}
    return {name: _call(case, order) for name, order in orders.items()}


def _call(case, order):
    import torch

    leaves = {}
    for key, array in case.arrays.items():
        value = torch.from_numpy(array.copy())
        leaves[key] = (value.contiguous(memory_format=order) if value.ndim == 4 else value).requires_grad_()
    function, grads = FUNCTIONS[case.name](case.settings, leaves), []

    def call():
        for leaf in leaves.values():
            leaf.grad = None
        started = perf_counter()
        y = function(**leaves)
        forward = perf_counter()
        if not grads:
            grads.append(torch.from_numpy(drawn(1, *y.shape)).contiguous(memory_format=order if y.ndim == 4 else torch.contiguous_format))
        middle = perf_counter()
        y.backward(grads[0])
        return forward - started, perf_counter() - middle

    def answer():
        for leaf in leaves.values():
            leaf.grad = None
        y = function(**leaves)
        y.backward(torch.from_numpy(drawn(1, *y.shape)))
        return [("output", y.numpy(force=True)), *((f"gradient of {key}", leaf.grad.numpy(force=True)) for key, leaf in leaves.items())]

    call.answer = answer
    return call


def _conv2d(settings, leaves):
    from torch.nn.functional import conv2d

    kernel, padding = settings["kernel"], settings["padding"]
    padding = kernel // 2 if padding is None else padding
    return lambda input, weight: conv2d(input, weight, None, settings["stride"], padding, 1, settings["groups"])


def _matmul(settings, leaves):
    return lambda a, b: a @ b


def _pool(settings, leaves):
    from torch.nn.functional import max_pool2d

    kernel, stride, padding = settings["kernel"], settings["stride"], settings["padding"]
    if padding is None:
        padding = kernel // 2 if kernel % 2 and stride < kernel else 0
    return lambda x: max_pool2d(x, kernel, stride, padding)


def _batch_norm(settings, leaves):
    import torch

    C = leaves["x"].shape[1]
    weight, bias = torch.ones(C, requires_grad=True), torch.zeros(C, requires_grad=True)
    mean, var = torch.zeros(C), torch.ones(C)

    def run(x, add=None):
        weight.grad = bias.grad = None
        y = torch.nn.functional.batch_norm(x, mean, var, weight, bias, True, 0.1, 1e-5)
        if add is not None:
            y += add
        return y.relu_()

    return run


def _softmax(settings, leaves):
    return lambda x: x.softmax(-1)


FUNCTIONS = {"conv2d": _conv2d, "matmul": _matmul, "pool": _pool, "batch_norm": _batch_norm, "softmax": _softmax}
