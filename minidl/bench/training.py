"""One training step of a network, timed in its three parts, in minidl and in PyTorch: same weights, same pictures, same SGD."""

from time import perf_counter

import numpy as np

from minidl import models, nn, optim
from minidl.backend import threads
from minidl.bench import torch_twins
from minidl.core.create import tensor
from minidl.core.rng import manual_seed

SGD = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 1e-4}  # small steps: rounding is passed on, not blown up
HEADS = {"googlenet": 0.3, "inception_v3": 0.4}  # what an auxiliary head's loss counts, as in the papers
BATCH = {"resnet20": 128, "resnet32": 128}       # else 8, and 64 for pictures below 64 pixels


class Work:
    """What every contender starts from: a network's weights as arrays, a batch of pictures, labels."""

    def __init__(self, name, batch=None, size=None, seed=0):
        self.name, model = name, models.zoo.find(name)
        C, H, W = model.input
        H, W = (H, W) if size is None else (size, size)
        self.batch = batch or BATCH.get(name, 8 if H >= 64 else 64)
        manual_seed(seed)
        network = model.build()
        self.arrays = {key: np.ascontiguousarray(value.numpy()) for key, value in network.state_dict().items()}
        rng = np.random.default_rng(seed)
        self.x = rng.standard_normal((self.batch, C, H, W), np.float32)
        self.classes = self.arrays[next(reversed(self.arrays))].shape[0]
        self.labels = rng.integers(0, self.classes, self.batch)
        self.network = network  # the contender's, so that a large one is not held twice

    def __str__(self):
        return f"{self.name}, batch {self.batch}, {self.x.shape[2]}×{self.x.shape[3]}"


class Parts(dict):
    """Seconds of forward, backward and optimizer; loss."""

    @property
    def seconds(self):
        """The whole step."""
        return self["forward"] + self["backward"] + self["optimizer"]


class MinidlStep:
    """A step in minidl."""

    def __init__(self, work):
        self.network, self.weight = work.network, HEADS.get(work.name, 0)
        for module in self.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.network.train()
        self.x, self.labels = tensor(work.x), tensor(work.labels)
        self.optimizer = optim.SGD(self.network.parameters(), **SGD)

    def __call__(self):
        started = perf_counter()
        self.optimizer.zero_grad()
        scores, *heads = as_tuple(self.network(self.x))
        loss = nn.functional.cross_entropy(scores, self.labels)
        for head in heads:
            loss = loss + self.weight * nn.functional.cross_entropy(head, self.labels)
        forward = perf_counter()
        loss.backward()
        backward = perf_counter()
        self.optimizer.step()
        return Parts(forward=forward - started, backward=backward - forward, optimizer=perf_counter() - backward, loss=loss.item())


class TorchStep:
    """The same step in PyTorch, in one of its two storage orders."""

    def __init__(self, work, channels_last):
        import torch

        self.weights, self.weight = torch_twins.Weights(work.arrays, channels_last), HEADS.get(work.name, 0)
        self.network, self.entropy = torch_twins.TWINS[work.name], torch.nn.functional.cross_entropy
        self.x = torch.from_numpy(work.x).contiguous(memory_format=self.weights.layout)
        self.labels = torch.from_numpy(work.labels)
        self.optimizer = torch.optim.SGD(self.weights.parameters(), **SGD)

    def __call__(self):
        started = perf_counter()
        self.optimizer.zero_grad()
        scores, *heads = as_tuple(self.network(self.weights, self.x))
        loss = self.entropy(scores, self.labels)
        for head in heads:
            loss = loss + self.weight * self.entropy(head, self.labels)
        forward = perf_counter()
        loss.backward()
        backward = perf_counter()
        self.optimizer.step()
        return Parts(forward=forward - started, backward=backward - forward, optimizer=perf_counter() - backward, loss=loss.item())


def as_tuple(y):
    """A network's outputs: several while training with auxiliary heads."""
    return tuple(y) if isinstance(y, tuple) else (y,)


def set_threads(count):
    """The same number of threads for minidl, BLAS and PyTorch; what they end up with, in words."""
    import threadpoolctl

    threads.set_num_threads(count)
    threadpoolctl.threadpool_limits(count, user_api="blas")
    said = [f"minidl {threads.get_num_threads()}"]
    blas = [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]
    said.append(f"BLAS {max(blas, default=1)}")
    try:
        import torch
    except ImportError:
        return ", ".join(said)
    torch.set_num_threads(count)
    return ", ".join([*said, f"PyTorch {torch.get_num_threads()}"])


def steps(name, torch=True, **settings):
    """{contender: its step}, all from the same weights."""
    work = Work(name, **settings)
    contenders = {}
    if torch:
        contenders = {"torch NCHW": TorchStep(work, False), "torch NHWC": TorchStep(work, True)}
    return work, {**contenders, "minidl": MinidlStep(work)}

