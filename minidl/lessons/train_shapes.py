"""Train ShapeNet on drawn pictures, and write the weights that come with minidl. Two minutes on one core.

    python -m minidl.lessons.train_shapes [--out FILE] [--epochs 8] [--pictures 6000]

The same seed gives the same weights on the same machine, and the same accuracy (97 % and more) on any.
"""

import argparse
import time

import numpy as np

import minidl
from minidl import optim
from minidl.data.shapes import shapes
from minidl.models.shapes import WEIGHTS, ShapeNet
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it

BATCH = 64
LEARNING_RATE = 0.1
HELD_OUT = 2000


def train(pictures=6000, epochs=8, seed=0, held_out=HELD_OUT, say=print):
    """The trained network, and how many of the held-out pictures it names rightly."""
    minidl.manual_seed(seed)
    images, labels = shapes(pictures, seed)
    net, rng = ShapeNet(), np.random.default_rng(seed)
    optimizer = optim.SGD(net.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4, nesterov=True)
    steps = len(images) // BATCH * epochs
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps)
    for epoch in range(1, epochs + 1):
        net.train()
        started, total, order = time.perf_counter(), 0.0, rng.permutation(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            chosen = order[start:start + BATCH]
            # Smoothed labels keep the network a little unsure, so that there are gradients left to look at.
            loss = F.cross_entropy(net(minidl.tensor(images[chosen])), minidl.tensor(labels[chosen]), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        say(f"epoch {epoch:2}  loss {total / (len(images) // BATCH):.4f}  {time.perf_counter() - started:.0f} s")
    return net, accuracy(net, seed + 1, held_out)


def accuracy(net, seed=1, count=HELD_OUT):
    """The share of pictures, drawn with a seed of their own, that the network names rightly."""
    net.eval()
    images, labels = shapes(count, seed)
    right = 0
    with minidl.no_grad():
        for start in range(0, count, 250):
            scores = net(minidl.tensor(images[start:start + 250])).numpy()
            right += int((scores.argmax(1) == labels[start:start + 250]).sum())
    return right / count


def save(net, path):
    """All parameters and averages as safetensors: names, shapes and numbers, nothing that could run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    minidl.save(net.state_dict(), path, {"made_by": "minidl.lessons.train_shapes"})


def main():
    """Train, say how well it does on new pictures, and write the file."""
    from pathlib import Path

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    net, right = train(options.pictures, options.epochs, options.seed)
    print(f"{sum(p.numel() for p in net.parameters())} parameters; {100 * right:.2f} % of {HELD_OUT} new pictures named rightly")
    save(net, options.out)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
