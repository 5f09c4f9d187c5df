"""What `minidl step` records by itself: the shipped network on drawn pictures, any network of minidl.models, a script."""

import os
import runpy
import sys
import traceback

import numpy as np

from minidl.core.errors import ArgumentError, ShapeError, explained
from minidl.core.tensor import Tensor
from minidl.stepper.record import step
from minidl.stepper.text import duration, safe

SHOWN = (4, 6)         # a star and a heart: the pictures that the shipped network is shown
AUXILIARY = 0.3        # the weight of the losses of side branches (GoogLeNet's paper)
LEARNING_RATE = 0.01
ORDER = ("first", "second", "third", "fourth")


def record_tiny(seed=0):
    """One forward and backward of the perceptron with a skip: ten ops."""
    from minidl.models.tiny import TinyNet, points

    net, (x, labels) = TinyNet(seed), points(8, seed)
    with step(net) as trace:
        loss = net.loss(x, labels)
        loss.backward()
    trace.title = [f"TinyNet: two hidden layers and a skip, 8 points of 3 classes. Random weights (seed {seed}), loss {loss.item():.2f}."]
    return trace


def record_shapes(batch=2, seed=0, image=None, progress=None, steps=1, device="cpu"):
    """`steps` training steps of the shipped network, which is trained, on pictures of shapes."""
    from minidl.data.shapes import NAMES, draw
    from minidl.models.shapes import trained

    net = trained().train()
    labels = np.array([(SHOWN[k % len(SHOWN)] + 3 * (k // len(SHOWN))) % len(NAMES) for k in range(batch)])
    pictures = draw(labels, np.random.default_rng([seed, 1])).astype(np.float32)
    if image is not None:
        pictures[0] = read_image(image, pictures.shape[1:])
    trace, scores = record_step(net, pictures, labels, progress, steps, device)
    chances = np.exp(scores - scores.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    said = [f"the {ORDER[k]} {'picture is' if k == 0 else 'is'} a {NAMES[p.argmax()]} ({100 * p.max():.0f} %"
            + (")" if p.argmax() == label or image is not None and not k else f"; no, a {NAMES[label]})")
            for k, (p, label) in enumerate(zip(chances[:len(ORDER)], labels, strict=False))]
    size = sum(p.numel() for p in net.parameters())
    trace.title = [f"ShapeNet: a residual network, trained to name drawn shapes ({size} parameters).",
                   f"{more(steps)}. It says: {', '.join(said)}{f' ... of {batch} pictures' if batch > len(said) else ''}."]
    return trace


def more(steps):
    """How much it is trained while the recording runs."""
    return "One more training step" if steps == 1 else f"{steps} more training steps on the same pictures"


def record_model(name, batch=None, seed=0, image=None, progress=None, steps=1, device="cpu"):
    """`steps` training steps of a network of minidl.models, with random weights, on a drawn picture."""
    from minidl.core.rng import manual_seed
    from minidl.data.shapes import draw
    from minidl.models import MODELS

    if name not in MODELS:
        raise no_such(name, MODELS)
    manual_seed(seed)
    model = MODELS[name]
    net = model.build()
    wanted, batch = batch, batch or (2 if len(model.input) < 3 or model.input[-1] < 128 else 1)
    if len(model.input) == 3:
        channels, height, width = model.input
        labels = np.arange(batch) + SHOWN[0]
        pictures = draw(labels % 10, np.random.default_rng([seed, 1]), max(height, width))[:, :, :height, :width].astype(np.float32)
        pictures = pictures if channels == 3 else pictures.mean(1, keepdims=True).repeat(channels, 1)
        if image is not None:
            pictures[0] = read_image(image, model.input)
    else:
        pictures = np.random.default_rng(seed).standard_normal((batch, *model.input)).astype(np.float32)
    try:
        trace, _ = record_step(net, pictures, np.zeros(batch, np.int64), progress, steps, device)
    except ShapeError:
        if wanted or batch > 1:
            raise
        return record_model(name, 2, seed, image, progress, steps, device)  # a norm over a single value: a side branch that ends in 1×1
    trace.title = [f"{name}: {safe(model.source)}. {'One training step' if steps == 1 else f'{steps} training steps'}.",
                   f"Weights are random (seed {seed}), so its maps show noise. {batch} picture{'s' if batch > 1 else ''} of "
                   f"{'×'.join(map(str, model.input))}, label 0."]
    return trace


def record_step(net, pictures, labels, progress=None, steps=1, device="cpu"):
    """(Trace, scores before it) of training steps: forward, cross-entropy, backward, plain SGD."""
    from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
    from minidl.optim import SGD

    net.to(device)
    optimizer, first = SGD(net.parameters(), lr=LEARNING_RATE), None
    images, targets = Tensor(pictures).to(device), Tensor(labels.astype(np.int64)).to(device)
    with step(net, progress=progress) as trace:
        for _ in range(steps):
            optimizer.zero_grad()
            out = net(images)
            scores, *sides = out if isinstance(out, tuple) else (out,)
            loss = F.cross_entropy(scores, targets)
            for side in sides:
                if side is not None:
                    loss = loss + F.cross_entropy(side, targets) * AUXILIARY
            loss.backward()
            optimizer.step()
            first = scores.detach() if first is None else first
    return trace, first.to("cpu").numpy()


def no_such(name, models):
    """The error for what is neither a file nor a model."""
    import difflib

    near = difflib.get_close_matches(name, models, 3, 0.5)
    return explained(ArgumentError, f"step {safe(name)}", "there is no such file and no such model.",
                     ["a file: SCRIPT.py, or a saved trace (.zip); a model: `minidl models` lists them"],
                     f"Did you mean {' or '.join(near)}?" if near else "Leave it out to step the network that comes with minidl.")


def read_image(path, shape):
    """A picture file (.npy, or whatever Pillow reads) as (C, H, W) of floats from 0 to 1, resized to `shape`."""
    channels, height, width = shape
    if os.path.splitext(path)[1].lower() == ".npy":
        image = read_npy(path)
    else:
        try:
            from PIL import Image
        except ImportError:
            raise explained(ArgumentError, "step --image", "reading this file needs Pillow, which is not installed.",
                            [f"file: {safe(path)}"], "pip install pillow, or pass a .npy array (H, W, 3) or (3, H, W).") from None
        try:
            with Image.open(path) as opened:
                opened = opened.convert("RGB" if channels == 3 else "L").resize((width, height), Image.Resampling.BILINEAR)
                image = np.asarray(opened, np.float32) / 255
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise explained(ArgumentError, "step --image", "this file is no picture that Pillow can read.",
                            [f"file: {safe(path)}", safe(error)], "PNG and JPEG files work.") from None
        image = image.reshape(height, width, -1).transpose(2, 0, 1)
    if image.shape[0] != channels:
        image = image.mean(0, keepdims=True).repeat(channels, 0)
    rows, columns = (np.arange(n) * size // n for n, size in zip((height, width), image.shape[1:], strict=True))
    return image[:, rows][:, :, columns].astype(np.float32)


def read_npy(path):
    """A .npy file as (C, H, W) between 0 and 1; objects in it are refused."""
    try:
        image = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise explained(ArgumentError, "step --image", "this file is no .npy array of numbers.", [f"file: {safe(path)}", safe(error)],
                        "Write it with numpy.save(file, array).") from None
    image = image[None] if image.ndim == 2 else image
    if image.ndim == 3 and image.shape[0] not in (1, 3) and image.shape[2] in (1, 3):
        image = image.transpose(2, 0, 1)
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.size or image.dtype.kind not in "fiu":
        raise explained(ArgumentError, "step --image", "a picture is an array (H, W), (H, W, 3) or (3, H, W) of numbers.",
                        [f"file: {safe(path)}, shape {image.shape}, {image.dtype}"], "Drop a batch axis: array[0].")
    return image.astype(np.float32) / (255 if image.dtype.kind in "iu" else 1)


def record_script(script, arguments=(), last=None):
    """Everything that a script runs, as far as it gets, or its last training steps; if it fails, the last step before that comes first."""
    before = sys.argv, sys.path[0]
    sys.argv, sys.path[0] = [script, *arguments], os.path.dirname(os.path.abspath(script))
    trace = None
    try:
        with step(last=last) as trace:
            runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        if not stop.code:
            trace.error = ""
    except Exception as error:  # the user's own: trace.error names it, and the steps before it are what they want to see
        traceback.print_exception(error.with_traceback(theirs(error.__traceback__, script)))
    finally:
        sys.argv, sys.path[0] = before
    trace.title = [f"{safe(script)}: everything that it ran."]
    if trace.forgotten:
        trace.title.append(f"The last {last} training steps; {trace.forgotten} steps before them were let go.")
    if trace.error:
        trace.title.append(f"It stopped. {safe(trace.error.splitlines()[0])}")
        trace.title.append("The last step before that:")
    return trace


def theirs(found, script):
    """A traceback from the script's first line on, without the frames that started it."""
    while found is not None and found.tb_frame.f_code.co_filename != script:
        found = found.tb_next
    return found


class Progress:
    """One line on stderr while a long recording runs; nothing where stderr is no terminal, or where it is over at once."""

    def __init__(self, what):
        from time import perf_counter

        self.what, self.clock, self.started, self.shown = what, perf_counter, perf_counter(), 0.0
        self.visible = sys.stderr.isatty()

    def __call__(self, done, total=None):
        now = self.clock()
        if self.visible and now - self.shown > 0.1 and now - self.started > 0.5:
            self.shown = now
            steps = f"{done}/{total}" if total else str(done)
            print(f"\r{self.what} {steps} steps, {duration(now - self.started)}  ", end="", file=sys.stderr, flush=True)

    def done(self):
        """Wipe the line."""
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
