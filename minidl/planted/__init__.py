"""Planted bugs: classic mistakes in backward passes, each put into a real op of minidl for as long as a `with` lasts.

    with minidl.planted.bug("weight-gradient-halved"):
        print(minidl.check(minidl.matmul, (minidl.randn(2, 3), minidl.randn(3, 4))))

They show that minidl.check would have noticed, and they are exercises. CATALOGUE lists them; plant.py puts them in;
the mistakes themselves stand by topic in the files beside it, one small function each.
"""

from minidl.planted import arithmetic, choosing, convnet, layers, moving, products, reductions, whole  # noqa: F401 - they fill CATALOGUE
from minidl.planted.exercise import Exercise, exercises
from minidl.planted.plant import CATALOGUE, Bug, Finding, bug, mistake
from minidl.planted.table import lines, markdown, results

__all__ = ["CATALOGUE", "Bug", "Exercise", "Finding", "bug", "exercises", "lines", "markdown", "mistake", "results"]
