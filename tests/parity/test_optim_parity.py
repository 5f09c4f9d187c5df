"""Optimisers and schedules against PyTorch: 20 steps in float64 over random settings must agree to 1e-10."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")

import minidl  # noqa: E402
from minidl.optim import lr_scheduler  # noqa: E402

STEPS = 20
SHAPES = [(3, 4), (2, 3, 2, 2), (5,), ()]


def pair(rng, shapes=SHAPES):
    """The same random parameters for minidl and for PyTorch."""
    arrays = [rng.standard_normal(shape) for shape in shapes]
    return ([minidl.nn.Parameter(minidl.tensor(a)) for a in arrays], [torch.nn.Parameter(torch.tensor(a)) for a in arrays])


def give_gradients(rng, ours, theirs, skip=False):
    """The same random gradients on both sides; with `skip`, some parameters get none."""
    for mine, other in zip(ours, theirs, strict=True):
        gradient = rng.standard_normal(mine.shape)
        gone = skip and rng.random() < 0.2
        mine.grad = None if gone else minidl.tensor(gradient)
        other.grad = None if gone else torch.tensor(gradient)


def agree(ours, theirs, step=""):
    for mine, other in zip(ours, theirs, strict=True):
        error = float(np.abs(mine.array - other.detach().numpy()).max(initial=0))
        assert error <= 1e-10, f"{step}: shape {mine.shape} differs by {error}"


def draw(rng, **choices):
    """One value for every setting."""
    return {name: values[rng.integers(len(values))] for name, values in choices.items()}


def sgd(rng):
    settings = draw(rng, lr=[0.1, 0.01], momentum=[0, 0.5, 0.9], dampening=[0, 0.3], weight_decay=[0, 0.1], nesterov=[False, True],
                    maximize=[False, True])
    if settings["nesterov"]:
        settings.update(dampening=0, momentum=settings["momentum"] or 0.7)
    return settings


def adam(rng):
    return draw(rng, lr=[0.1, 0.01], betas=[(0.9, 0.999), (0.5, 0.7)], eps=[1e-8, 1e-3], weight_decay=[0, 0.1], amsgrad=[False, True],
                maximize=[False, True])


def rmsprop(rng):
    return draw(rng, lr=[0.1, 0.01], alpha=[0.99, 0.6], eps=[1e-8, 1e-3], weight_decay=[0, 0.1], momentum=[0, 0.9], centered=[False, True],
                maximize=[False, True])


def adagrad(rng):
    return draw(rng, lr=[0.1, 0.01], lr_decay=[0, 0.2], weight_decay=[0, 0.1], initial_accumulator_value=[0, 0.5], eps=[1e-10, 1e-3],
                maximize=[False, True])


OPTIMISERS = {"SGD": sgd, "Adam": adam, "AdamW": adam, "RMSprop": rmsprop, "Adagrad": adagrad}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", OPTIMISERS)
def test_twenty_steps(name, seed):
    rng = np.random.default_rng([seed, 5])
    settings, ours, theirs = OPTIMISERS[name](rng), *pair(rng)
    groups = [{"params": [0, 1]}, {"params": [2, 3], "lr": 0.05, "weight_decay": 0.2}]
    mine, other = (getattr(module, name)([{**g, "params": [params[k] for k in g["params"]]} for g in groups], **settings)
                   for module, params in ((minidl.optim, ours), (torch.optim, theirs)))
    for step in range(STEPS):
        give_gradients(rng, ours, theirs, skip=True)
        mine.step()
        other.step()
        agree(ours, theirs, f"{name} {settings}, step {step}")
        if step == 10:  # through a saved state, and one that PyTorch saved
            fresh = getattr(minidl.optim, name)([{**g, "params": [ours[k] for k in g["params"]]} for g in groups])
            fresh.load_state_dict(mine.state_dict() if seed % 2 else other.state_dict())
            mine = fresh


def test_decoupled_weight_decay():
    rng = np.random.default_rng(0)
    ours, theirs = pair(rng)
    mine = minidl.optim.Adam(ours, weight_decay=0.1, decoupled_weight_decay=True)
    other = torch.optim.Adam(theirs, weight_decay=0.1, decoupled_weight_decay=True)
    for step in range(STEPS):
        give_gradients(rng, ours, theirs)
        mine.step()
        other.step()
        agree(ours, theirs, step)


def schedule(name, library, optimizer, settings):
    module = lr_scheduler if library is minidl else torch.optim.lr_scheduler
    return getattr(module, name)(optimizer, **settings)


def sequence(library, optimizer):
    parts = [schedule("LinearLR", library, optimizer, {"start_factor": 0.1, "total_iters": 4}),
             schedule("CosineAnnealingLR", library, optimizer, {"T_max": 6}),
             schedule("ExponentialLR", library, optimizer, {"gamma": 0.9})]
    return schedule("SequentialLR", library, optimizer, {"schedulers": parts, "milestones": [4, 11]})


SCHEDULES = {
    "StepLR": [{"step_size": 3}, {"step_size": 1, "gamma": 0.7}],
    "MultiStepLR": [{"milestones": [3, 7, 7, 12], "gamma": 0.3}, {"milestones": [1]}],
    "ExponentialLR": [{"gamma": 0.9}],
    "LinearLR": [{}, {"start_factor": 0.2, "end_factor": 0.0, "total_iters": 7},
                 {"start_factor": 1.0, "end_factor": 0.3, "total_iters": 30}],
    "ConstantLR": [{}, {"factor": 0.5, "total_iters": 11}],
    "CosineAnnealingLR": [{"T_max": 10}, {"T_max": 6, "eta_min": 0.02}, {"T_max": 1}, {"T_max": 40, "eta_min": 0.001}],
    "LambdaLR": [{"lr_lambda": lambda epoch: 1 / (1 + epoch)}, {"lr_lambda": [lambda epoch: 0.9 ** epoch, lambda epoch: epoch / 20]}],
    "OneCycleLR": [{"max_lr": 0.5, "total_steps": 20},
                   {"max_lr": [0.5, 0.2], "epochs": 4, "steps_per_epoch": 6, "anneal_strategy": "linear"},
                   {"max_lr": 0.3, "total_steps": 25, "three_phase": True, "pct_start": 0.35, "div_factor": 10, "final_div_factor": 50,
                    "base_momentum": 0.6, "max_momentum": 0.8}, {"max_lr": 1.0, "total_steps": 30, "cycle_momentum": False}],
    "sequence": [{}],
}
CASES = [(name, settings) for name, cases in SCHEDULES.items() for settings in cases]


@pytest.mark.parametrize("optimiser", ["SGD", "AdamW"])
@pytest.mark.parametrize("name, settings", CASES, ids=[f"{name}{k}" for k, (name, _) in enumerate(CASES)])
def test_a_schedule(name, settings, optimiser):
    rng = np.random.default_rng(3)
    ours, theirs = pair(rng)
    optimizers, schedules = [], []
    for library, params in ((minidl, ours), (torch, theirs)):
        extra = {"momentum": 0.9} if optimiser == "SGD" else {}
        optimizers.append(getattr(library.optim, optimiser)([{"params": params[:2]}, {"params": params[2:], "lr": 0.03}], lr=0.1, **extra))
        build = {"sequence": sequence}.get(name)
        schedules.append(build(library, optimizers[-1]) if build else schedule(name, library, optimizers[-1], settings))
    for step in range(STEPS):
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        assert np.abs(np.subtract(*rates)).max() <= 1e-12, f"step {step}: {rates}"
        assert np.abs(np.subtract(schedules[0].get_last_lr(), schedules[1].get_last_lr())).max() <= 1e-12
        give_gradients(rng, ours, theirs)
        for optimizer, one in zip(optimizers, schedules, strict=True):
            optimizer.step()
            if step < STEPS - 1:
                one.step()
        agree(ours, theirs, f"{name} {settings}, step {step}")
        if step == 8 and name != "sequence":  # go on from a saved state
            saved = schedules[0].state_dict(), [dict(group) for group in optimizers[0].param_groups]
            schedules[0] = schedule(name, minidl, optimizers[0], settings)
            schedules[0].load_state_dict(saved[0])
            for group, old in zip(optimizers[0].param_groups, saved[1], strict=True):
                group.update(old)


def test_two_schedules_multiply():
    rng = np.random.default_rng(4)
    ours, theirs = pair(rng)
    rates = []
    for library, params in ((minidl, ours), (torch, theirs)):
        optimizer = library.optim.SGD(params, lr=0.1)
        both = [schedule("ExponentialLR", library, optimizer, {"gamma": 0.9}), schedule("LinearLR", library, optimizer, {})]
        rates.append([])
        for _ in range(STEPS):
            optimizer.step()
            for one in both:
                one.step()
            rates[-1].append(optimizer.param_groups[0]["lr"])
    assert np.abs(np.subtract(*rates)).max() <= 1e-12


@pytest.mark.parametrize("settings", [
    {"patience": 1}, {"mode": "max", "patience": 0, "factor": 0.5}, {"patience": 1, "cooldown": 3, "threshold": 0.05},
    {"threshold_mode": "abs", "threshold": 0.1, "patience": 2, "min_lr": [0.01, 0.001]},
    {"mode": "max", "threshold_mode": "abs", "patience": 1}],
    ids=str)
def test_reduce_on_plateau(settings):
    rng = np.random.default_rng(5)
    ours, theirs = pair(rng)
    optimizers = [library.optim.SGD([{"params": params[:2]}, {"params": params[2:], "lr": 0.03}], lr=0.1)
                  for library, params in ((minidl, ours), (torch, theirs))]
    schedules = [schedule("ReduceLROnPlateau", library, optimizer, settings)
                 for library, optimizer in zip((minidl, torch), optimizers, strict=True)]
    for metric in rng.uniform(0, 1, 40) + 1 / np.arange(1, 41):
        for one in schedules:
            one.step(metric)
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        assert rates[0] == rates[1]


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_clip_grad_norm(norm_type, max_norm):
    rng = np.random.default_rng(6)
    ours, theirs = pair(rng)
    give_gradients(rng, ours, theirs)
    norms = (minidl.nn.utils.clip_grad_norm_(ours, max_norm, norm_type), torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type))
    assert abs(norms[0].item() - norms[1].item()) <= 1e-10
    agree([p.grad for p in ours], [p.grad for p in theirs])


def test_clip_grad_value():
    rng = np.random.default_rng(7)
    ours, theirs = pair(rng)
    give_gradients(rng, ours, theirs)
    minidl.nn.utils.clip_grad_value_(ours, 0.3)
    torch.nn.utils.clip_grad_value_(theirs, 0.3)
    agree([p.grad for p in ours], [p.grad for p in theirs])
