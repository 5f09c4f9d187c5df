"""Schedules: closed forms, nesting, saved states, warnings, and every message. Their agreement with PyTorch is in tests/parity."""

import math
import warnings

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.optim import SGD, Adagrad, lr_scheduler
from minidl.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)


def optimiser(lr=0.8, kind=SGD, **settings):
    return kind([nn.Parameter(minidl.zeros(2))], lr=lr, **settings)


def rates(rule, schedule, steps):
    """The rate in each of the first epochs."""
    found = []
    for _ in range(steps):
        found.append(rule.param_groups[0]["lr"])
        assert schedule.get_last_lr() == [found[-1]]
        rule.step()
        schedule.step()
    return found


FORMS = {
    "StepLR": (lambda rule: StepLR(rule, 3, 0.5), lambda k: 0.8 * 0.5 ** (k // 3)),
    "MultiStepLR": (lambda rule: MultiStepLR(rule, [2, 5, 5], 0.5), lambda k: 0.8 * 0.5 ** ((k >= 2) + 2 * (k >= 5))),
    "ExponentialLR": (lambda rule: ExponentialLR(rule, 0.7), lambda k: 0.8 * 0.7 ** k),
    "LinearLR": (lambda rule: LinearLR(rule, 0.25, 1.0, 4), lambda k: 0.8 * (0.25 + 0.75 * min(k, 4) / 4)),
    "ConstantLR": (lambda rule: ConstantLR(rule, 0.5, 3), lambda k: 0.8 * (0.5 if k < 3 else 1)),
    "CosineAnnealingLR": (lambda rule: CosineAnnealingLR(rule, 5, 0.2), lambda k: 0.2 + 0.6 * (1 + math.cos(math.pi * k / 5)) / 2),
    "LambdaLR": (lambda rule: LambdaLR(rule, lambda k: 1 / (k + 1)), lambda k: 0.8 / (k + 1)),
    "SequentialLR": (lambda rule: SequentialLR(rule, [LinearLR(rule, 0.5, 1.0, 2), ExponentialLR(rule, 0.5)], [3]),
                     lambda k: 0.8 * (0.5 + 0.25 * min(k, 2)) if k < 3 else 0.8 * 0.5 ** (k - 3)),
    "nested": (lambda rule: SequentialLR(rule, [SequentialLR(rule, [ConstantLR(rule, 0.25, 1), StepLR(rule, 2, 0.5)], [2]),
                                                SequentialLR(rule, [ExponentialLR(rule, 0.5), StepLR(rule, 9)], [2])], [5]),
               lambda k: 0.8 * [0.25, 1, 1, 1, 0.5, 1, 0.5, 1, 1, 1, 1, 1, 1, 1][k]),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_schedule_is_its_formula(name):
    rule = optimiser()
    build, formula = FORMS[name]
    assert rates(rule, build(rule), 14) == pytest.approx([formula(k) for k in range(14)], rel=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_a_saved_schedule_goes_on_the_same(name):
    build, formula = FORMS[name]
    rule = optimiser()
    schedule = build(rule)
    rates(rule, schedule, 4)
    state, groups = schedule.state_dict(), rule.state_dict()
    fresh = optimiser(lr=0.1)
    again = build(fresh)
    again.load_state_dict(state)
    fresh.load_state_dict(groups)
    assert rates(fresh, again, 8) == pytest.approx([formula(k) for k in range(4, 12)], rel=1e-12)


def test_a_callable_object_is_saved():
    class Decay:
        def __init__(self, base):
            self.base = base

        def __call__(self, epoch):
            return self.base ** epoch

    first, second = (LambdaLR(optimiser(), Decay(base)) for base in (0.5, 0.9))
    second.load_state_dict(first.state_dict())
    assert second.lr_lambdas[0].base == 0.5


def test_one_cycle_has_its_corners():
    rule = optimiser(momentum=0.9)
    schedule = OneCycleLR(rule, 1.0, total_steps=10, pct_start=0.4, div_factor=10, final_div_factor=100)
    assert rule.param_groups[0]["momentum"] == 0.95
    found, momenta = [], []
    for _ in range(10):
        found.append(rule.param_groups[0]["lr"])
        momenta.append(rule.param_groups[0]["momentum"])
        rule.step()
        schedule.step()
    assert found[0] == pytest.approx(0.1) and max(found) == found[3] and found[-1] == pytest.approx(0.001)
    assert momenta[0] == 0.95 and momenta[-1] == pytest.approx(0.95) and min(momenta) == momenta[3]
    with pytest.raises(IndexError, match="the cycle is over"):
        schedule.step()


def test_a_plateau_lowers_the_rate():
    rule = optimiser()
    schedule = ReduceLROnPlateau(rule, patience=1, factor=0.5, cooldown=1)
    found = []
    for metric in [5, 4, 4, 4, 4, 4, 4, minidl.tensor(4.0)]:
        schedule.step(metric)
        found.append(rule.param_groups[0]["lr"])
    assert found == [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2]
    again = ReduceLROnPlateau(rule)
    again.load_state_dict(schedule.state_dict())
    assert again.best == 4 and again.patience == 1


def test_a_schedule_before_the_first_step_warns():
    rule = optimiser()
    schedule = StepLR(rule, 1)
    with pytest.warns(UserWarning, match=r"call optimizer\.step\(\) first"):
        schedule.step()
    rule.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()


def test_the_names_are_pytorchs():
    assert set(lr_scheduler.__all__) <= set(dir(minidl.optim.lr_scheduler)) and lr_scheduler is minidl.optim.lr_scheduler


def two_groups():
    return SGD([{"params": nn.Parameter(minidl.zeros(2))}, {"params": nn.Parameter(minidl.zeros(2))}])


MESSAGES = [
    (lambda: StepLR(3, optimiser()), TypeError, ["StepLR: it takes an optimiser.", "got int 3", "The optimiser comes first"]),
    (lambda: StepLR(optimiser(), 3, last_epoch=2), ValueError, ["the parameter group has no 'initial_lr'", "last_epoch = 2"]),
    (lambda: LambdaLR(two_groups(), [float]), ValueError, ["one function per parameter group.", "1 functions, 2 groups"]),
    (lambda: LinearLR(optimiser(), 0.0), ValueError, ["the factors must lie between 0 and 1, and the first must not be 0."]),
    (lambda: ConstantLR(optimiser(), 2), ValueError, ["the factor must lie between 0 and 1."]),
    (lambda: SequentialLR(optimiser(), [], []), ValueError, ["between every two schedules there is one milestone."]),
    (lambda: SequentialLR(optimiser(), [StepLR(optimiser(), 1)], []), ValueError, ["StepLR is of another optimiser"]),
    (lambda: SequentialLR((rule := optimiser()), [ReduceLROnPlateau(rule)], []), ValueError, ["Step ReduceLROnPlateau by itself."]),
    (lambda: OneCycleLR(optimiser(), 1.0), ValueError, ["it needs the number of steps", "total_steps = None"]),
    (lambda: OneCycleLR(optimiser(kind=Adagrad), 1.0, 10), ValueError,
     ["this optimiser has no momentum to cycle.", "cycle_momentum=False"]),
    (lambda: ReduceLROnPlateau(optimiser(), factor=1.0), ValueError, ["factor must be below 1"]),
    (lambda: ReduceLROnPlateau(optimiser(), min_lr=[0, 0]), ValueError, ["one min_lr per parameter group.", "2 of them, 1 groups"]),
]


@pytest.mark.parametrize("call, kind, parts", MESSAGES, ids=[parts[0][:40] for _, _, parts in MESSAGES])
def test_a_message(call, kind, parts):
    with pytest.raises(kind) as caught:
        call()
    assert [part for part in parts if part not in str(caught.value)] == [], caught.value


def test_rates_are_numbers():
    rule = optimiser()
    for name, (build, _) in FORMS.items():
        schedule = build(rule)
        assert all(isinstance(rate, float) and np.isfinite(rate) for rate in schedule.get_last_lr()), name
