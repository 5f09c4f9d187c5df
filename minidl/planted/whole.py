"""Mistakes that no single op shows: they sit in the walk itself, and need a tensor that is used more than once."""

import heapq

from minidl.core import graph
from minidl.core.examples import normal
from minidl.core.op import example
from minidl.planted.plant import mistake


def used_twice(x, other):
    """x reaches the result on two paths."""
    return x.exp() + (x + other)


TWICE = [example(normal(2, 3), normal(2, 3))]


@mistake("add", guess="wrote into", examples=TWICE, at=(graph, "_arrive"), function=used_twice)
def _gradient_array_shared_by_two_leaves(edge, grad, totals, own, queue, walking):
    """Gradients are added in place into the first one that arrived, whoever else holds it.

    add hands one array to both of its inputs. When one of them gets a second gradient, += changes the other one's too.
    """
    before = totals.get(edge)
    if before is not None:
        before.array += grad.array
        return before, before
    totals[edge] = grad
    if type(edge) is tuple:
        heapq.heappush(queue, (-edge[0].age, edge[0]))
    return None, grad


@mistake("add", examples=TWICE, at=(graph, "_arrive"), function=used_twice)
def _second_path_replaces_the_first(edge, grad, totals, own, queue, walking):
    """A gradient that arrives replaces the one that was there: = for += in the walk.

    Right for every network without a skip connection, and without a weight that is used twice.
    """
    before = totals.get(edge)
    totals[edge] = grad
    if before is None and type(edge) is tuple:
        heapq.heappush(queue, (-edge[0].age, edge[0]))
    return before, grad
