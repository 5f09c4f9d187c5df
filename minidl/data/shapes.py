"""Ten kinds of shapes, drawn: pictures to learn from that need no download. Pure NumPy, and the same for the same seed.

Every picture has its own colours, a background that shades off, a size, a place and a tilt; edges are smooth.
"""

import numpy as np

NAMES = ("circle", "ring", "square", "triangle", "star", "cross", "heart", "moon", "arrow", "drop")
SIDE = 32     # pixels of a picture
FINE = 3      # every pixel is the average of FINE × FINE points
AT_ONCE = 256


def shapes(count, seed=0):
    """`count` pictures (N, 3, 32, 32), float32 between 0 and 1, and their labels (N,), int64: every kind equally often."""
    rng = np.random.default_rng([seed, 10])
    labels = rng.permutation(np.arange(count) % len(NAMES))
    images = np.empty((count, 3, SIDE, SIDE), np.float32)
    for start in range(0, count, AT_ONCE):
        images[start:start + AT_ONCE] = draw(labels[start:start + AT_ONCE], rng)
    return images, labels.astype(np.int64)


def draw(labels, rng, side=SIDE):
    """One picture (3, side, side) for each label."""
    n = len(labels)
    inside = np.empty((n, side, side), np.float32)
    size, tilt = rng.uniform(0.45, 0.8, n), rng.uniform(-0.45, 0.45, n)     # of half a picture; in radians
    room = np.maximum(0.95 - size, 0) * 0.8
    place = rng.uniform(-1, 1, (2, n)) * room
    for kind in range(len(NAMES)):
        chosen = np.flatnonzero(labels == kind)
        u, v = coordinates(place[:, chosen], size[chosen], tilt[chosen], side)     # (n, FINE·side, FINE·side)
        points = KINDS[kind](u, v)
        inside[chosen] = points.reshape(-1, side, FINE, side, FINE).mean((2, 4))
    front, back = colours(n, rng)                                           # (n, 3, 1, 1)
    slope = rng.uniform(-0.25, 0.25, (2, n, 1, 1, 1))
    line = np.linspace(-1, 1, side)
    back = back + slope[0] * line[:, None] + slope[1] * line
    cover = inside[:, None]
    pictures = cover * front + (1 - cover) * back + rng.normal(0, 0.02, (n, 3, side, side))
    return np.clip(pictures, 0, 1)


def colours(n, rng):
    """Front and back, two colours of a picture that differ clearly in brightness, either of them the brighter."""
    weight = np.array([0.3, 0.59, 0.11])[:, None, None]
    front, back = rng.uniform(0, 1, (2, n, 3, 1, 1))
    light, dark = rng.uniform(0.6, 0.95, (n, 1, 1, 1)), rng.uniform(0.05, 0.35, (n, 1, 1, 1))
    swap = rng.random((n, 1, 1, 1)) < 0.5
    wanted = np.where(swap, dark, light), np.where(swap, light, dark)
    return [np.clip(colour + want - (colour * weight).sum(1, keepdims=True), 0, 1)
            for colour, want in zip((front, back), wanted, strict=True)]


def coordinates(place, size, tilt, side):
    """u to the right and v upwards in every shape's own frame, where it fills about -1 to 1."""
    line = (np.arange(side * FINE) + 0.5) / (side * FINE) * 2 - 1
    x = (line[None, None, :] - place[0][:, None, None]) / size[:, None, None]
    y = (-line[None, :, None] - place[1][:, None, None]) / size[:, None, None]
    cos, sin = np.cos(tilt)[:, None, None], np.sin(tilt)[:, None, None]
    return cos * x + sin * y, -sin * x + cos * y


# --- the shapes: which points (u, v) lie inside ---------------------------------------------------------------------

def circle(u, v):
    return u * u + v * v < 0.85


def ring(u, v):
    r = u * u + v * v
    return (r < 0.95) & (r > 0.32)


def square(u, v):
    return np.maximum(np.abs(u), np.abs(v)) < 0.8


def triangle(u, v):
    return (v > -0.75) & (v < 0.95 - 1.8 * np.abs(u))


def star(u, v):
    angle = (np.arctan2(u, v) / (2 * np.pi / 5)) % 1          # 0 at a point of the star, 0.5 between two
    return np.hypot(u, v) < 1.05 - 1.25 * np.minimum(angle, 1 - angle)


def cross(u, v):
    a, b = np.abs(u), np.abs(v)
    return (np.maximum(a, b) < 0.92) & (np.minimum(a, b) < 0.28)


def heart(u, v):
    u, v = 1.2 * u, 1.2 * v + 0.1
    return (u * u + v * v - 1) ** 3 < u * u * v ** 3


def moon(u, v):
    return (u * u + v * v < 0.9) & ((u - 0.45) ** 2 + v * v > 0.55)


def arrow(u, v):
    a = np.abs(v)
    return (u > -0.95) & (u < 0.1) & (a < 0.24) | (u >= 0.1) & (u < 0.95 - a * 1.05) & (a < 0.8)


def drop(u, v):
    below = u * u + (v + 0.35) ** 2 < 0.36
    return below | (v > -0.35) & (v < 1) & (np.abs(u) < 0.6 * ((1 - v) / 1.35) ** 1.3)


KINDS = (circle, ring, square, triangle, star, cross, heart, moon, arrow, drop)
