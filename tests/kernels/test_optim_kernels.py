"""optim.cu on the CPU: steps of SGD, Adam and AdamW for many parameters at once, against the rules in minidl/optim/."""

import numpy as np
import pytest
from launched import EPS, NEEDS_COMPILER, WAYS, assert_close, assert_same_bits, drawn, launch

from minidl.backend.cuda import launch as launching
from minidl.backend.cuda.optim import PIECE, RULES, in_one_array
from minidl.backend.layout import flat
from minidl.optim import SGD, Adam

pytestmark = NEEDS_COMPILER

SIZES = [(1,), (31,), (32,), (33,), (4, 3, 3, 2), (7, 5), (PIECE + 5,)]
SGD_PLAIN = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False, "share": 1}
ADAM_PLAIN = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "maximize": False, "decoupled": False,
              "seen": [0.1, 0.001]}
STEPS = [  # rule, how many arrays beside the parameter and the gradient, settings
    (SGD.update, 0, SGD_PLAIN), (SGD.update, 0, SGD_PLAIN | {"weight_decay": 0.1, "maximize": True}),
    (SGD.update, 1, SGD_PLAIN | {"momentum": 0.9}), (SGD.update, 1, SGD_PLAIN | {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (SGD.update, 1, SGD_PLAIN | {"momentum": 0.9, "share": 0.5}),
    (Adam.update, 2, ADAM_PLAIN), (Adam.update, 2, ADAM_PLAIN | {"weight_decay": 0.1}),
    (Adam.update, 3, ADAM_PLAIN | {"weight_decay": 0.1}),
    (Adam.update, 2, ADAM_PLAIN | {"weight_decay": 0.1, "decoupled": True, "maximize": True, "seen": [0.5, 0.2]}),
]


def parameters(more, sizes=SIZES):
    """[arrays of one parameter]: itself, its gradient, and what is remembered (never negative, as averages of squares are)."""
    return [[drawn(*size, seed=0), drawn(*size, seed=1), *(np.abs(drawn(*size, seed=2 + k)) for k in range(more))] for size in sizes]


def assert_right(found, rule, more, numbers):
    for ours, arrays in zip(found, parameters(more), strict=True):
        wide = [a.astype(np.float64) for a in arrays]
        rule(*wide, **numbers)
        for k, (mine, right) in enumerate(zip(ours, wide, strict=True)):
            assert_close(mine, right, 16 * EPS * (1 + np.abs(right)), (rule.__qualname__, numbers, mine.shape, f"array {k}"))


def step_case(rule, more, numbers, way):
    """All parameters in one launch. On a GPU they lie where they lie: tests/test_fake_device.py trains whole networks that way."""
    found = parameters(more)
    launch("update_parameters", "all_parameters", found[0][0], way=way, rule=rule, work=[(arrays, numbers) for arrays in found])
    assert_right(found, rule, more, numbers)
    return tuple(array for arrays in found for array in arrays)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_every_rule(way):
    for rule, more, numbers in STEPS:
        step_case(rule, more, numbers, way)


def test_addresses_that_are_no_multiple_of_16():
    """Then numbers go one by one: a 16-byte access would fault."""
    for rule, more, numbers in (STEPS[3], STEPS[7]):
        found, (name, numbers_of) = parameters(more), RULES[rule.__qualname__]
        with launching.running("check"):
            in_one_array(name, [flat(arrays) for arrays in found], np.array([numbers_of(**numbers)] * len(found)), shift=1)
        assert_right(found, rule, more, numbers)


def test_same_input_same_bits_in_every_thread_order():
    for rule, more, numbers in (STEPS[3], STEPS[7]):
        first = step_case(rule, more, numbers, ("fast", "forward"))
        for way in WAYS[2:]:
            assert_same_bits(step_case(rule, more, numbers, way), first)


def test_ten_steps_of_training_are_those_of_the_cpu():
    """Momentum and averages that are carried on: ten steps in place, on the kernels and by the rule."""
    for rule, more, numbers in (STEPS[2], STEPS[5]):
        ours, theirs = parameters(more), parameters(more)
        for step in range(10):
            settings = numbers if more == 1 else numbers | {"seen": [1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)]}
            work = [(arrays, settings) for arrays in ours]
            launch("update_parameters", "all_parameters", ours[0][0], way=("fast", "forward"), rule=rule, work=work)
            for arrays in theirs:
                rule(*arrays, **settings)
        for mine, right in zip(ours, theirs, strict=True):
            assert_close(mine[0], right[0].astype(np.float64), 64 * EPS * (1 + np.abs(right[0])))


CASES = {"sgd_all_parameters": lambda mode, order: step_case(*STEPS[3], (mode, order)),
         "adam_all_parameters": lambda mode, order: step_case(*STEPS[7], (mode, order))}
