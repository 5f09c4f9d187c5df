"""PyTorch's side of `python -m benchmarks.gpu`: the same arrays, the same work, cuDNN in strict float32 or in TF32, either layout.

Where PyTorch is missing everything here says so and the rows have no ratio. In a dry run PyTorch computes on the CPU.
"""

import contextlib
import time

import numpy as np

LAYOUTS = ("NHWC", "NCHW")


def load():
    """torch, or None."""
    try:
        import torch
    except Exception:  # a broken installation must not take our own numbers along
        return None
    return torch


class Torch:
    """PyTorch on the GPU (or on the CPU, in a dry run)."""

    def __init__(self, dry_run):
        self.torch = load()
        self.place = "cpu" if dry_run else "cuda"
        if self.torch is not None and not dry_run:
            self.torch.backends.cudnn.benchmark = True
            if not self.torch.cuda.is_available():
                self.torch = None

    def __bool__(self):
        return self.torch is not None

    @contextlib.contextmanager
    def precision(self, tf32):
        """Inside, convolutions and products may use TF32, or must not."""
        backends = self.torch.backends
        before = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32
        backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = tf32
        try:
            yield
        finally:
            backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = before

    def tensor(self, array, layout="NHWC"):
        """One of our arrays, images in a layout; on the GPU without a way over the CPU."""
        base = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
        if self.place == "cuda":
            t = self.torch.from_dlpack(base)
        else:
            t = self.torch.from_numpy(np.array(base.get() if hasattr(base, "get") else base))
        t = t.permute(0, 3, 1, 2) if array.ndim == 4 else t
        return t.contiguous() if layout == "NCHW" else t

    def array(self, tensor, module):
        """A result of PyTorch as one of our arrays, for comparing."""
        tensor = tensor.detach().contiguous()
        return module.from_dlpack(tensor) if self.place == "cuda" else module.asarray(tensor.numpy())

    def timed(self, function, seconds=0.04, most=50):
        """Milliseconds of one call: the least of three runs of several."""
        function()
        function()
        if self.place == "cpu":
            started = time.perf_counter()
            function()
            return (time.perf_counter() - started) * 1e3
        cuda = self.torch.cuda
        start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)

        def run(times):
            start.record()
            for _ in range(times):
                function()
            end.record()
            end.synchronize()
            return start.elapsed_time(end) / times

        times = int(min(most, max(2, seconds * 1e3 / max(run(1), 1e-3))))
        return min(run(times) for _ in range(3))

    def conv(self, op, x, w, grad_y, stride, padding):
        """A function that does one of a convolution's three products."""
        torch = self.torch
        if op == "conv2d":
            return lambda: torch.nn.functional.conv2d(x, w, None, stride, padding)
        mask, place = ([True, False, False], 0) if op == "conv2d_grad_x" else ([False, True, False], 1)
        return lambda: torch.ops.aten.convolution_backward(
            grad_y, x, w, None, stride, padding, (1, 1), False, (0, 0), 1, mask)[place]

    def best_conv(self, op, arrays, stride, padding, tf32):
        """(milliseconds, layout, the result) of the quicker layout."""
        found = []
        with self.precision(tf32):
            for layout in LAYOUTS:
                function = self.conv(op, *(self.tensor(a, layout) for a in arrays), stride, padding)
                found.append((self.timed(function), layout, function))
            ms, layout, function = min(found, key=lambda row: row[0])
            return ms, layout, function()

    def batch_norm(self, x, weight, bias, grad_y, relu):
        """(forward, backward): milliseconds of batch norm in training, with relu if asked, in the quicker layout."""
        torch, found = self.torch, []
        for layout in LAYOUTS:
            image, grad = self.tensor(x, layout).detach().requires_grad_(), self.tensor(grad_y, layout)
            w, b = (self.tensor(a).detach().requires_grad_() for a in (weight, bias))

            def forward(image=image, w=w, b=b):
                y = torch.nn.functional.batch_norm(image, None, None, w, b, True)
                return torch.relu(y) if relu else y

            y = forward()

            def backward(y=y, grad=grad, leaves=(image, w, b)):
                return torch.autograd.grad(y, leaves, grad, retain_graph=True)

            found.append((self.timed(forward), self.timed(backward), layout))
        return min(found, key=lambda row: row[0] + row[1])

    def step(self, work, channels_last):
        """A training step of a network: a function that returns its loss."""
        from minidl.bench.training import SGD, TorchStep

        step = TorchStep(work, channels_last)
        weights = step.weights.tensors
        for name, value in weights.items():
            weights[name] = value.detach().to(self.place).requires_grad_(value.requires_grad)
        step.x, step.labels = step.x.to(self.place), step.labels.to(self.place)
        step.optimizer = self.torch.optim.SGD(step.weights.parameters(), **SGD)
        return lambda: step()["loss"]
