"""Whole training steps of a network as part of a run: times of the three parts, where they go, and PyTorch's beside them."""

from minidl.bench import timing, torch_calls, torch_twins, training
from minidl.bench.breakdown import breakdown
from minidl.core.config import no_grad, use_backend
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it

STEPS = 3
ALLOWED = 1e-5, 3  # losses may differ by this share, or by so many times what PyTorch's two storage orders differ by
PARTS = ("forward", "backward", "optimizer")


def measure(run, name, batch=None, size=None):
    """One entry of the run's "steps". The losses of the first three steps are compared before anything is timed."""
    progress = run.progress
    progress(f"building {name}", 0, 1)
    torch = run.vs_torch and not torch_calls.why_not() and name in torch_twins.TWINS
    if run.vs_torch and not torch:
        run.note(f"{name} is not written in PyTorch here; these are: {', '.join(torch_twins.TWINS)}")
    work, contenders = training.steps(name, torch, batch=batch, size=size)
    entry = {"name": name, "label": str(work), "contenders": {}, "status": "ok", "why": "", "breakdown": None}
    run.result["steps"].append(entry)
    generic = None if torch else on_generic(contenders["minidl"])
    losses = {}
    for key, step in contenders.items():
        progress(f"{work}: {key}, {STEPS} steps to compare losses", 0, 1)
        losses[key] = [step()["loss"] for _ in range(STEPS)]
    entry["losses"] = losses
    if torch:
        apart, own, entry["why"] = compare_losses(losses)
        entry["apart"], entry["own"] = apart, own
    elif not abs(losses["minidl"][0] - generic) <= 1e-4 * abs(generic):
        entry["why"] = f"the first loss is {losses['minidl'][0]:.7g}, on the generic backend {generic:.7g}"
    if entry["why"]:
        entry["status"] = "wrong"
        return entry
    rounds = timing.Rounds(contenders, run.rounds, warm=0, most=run.most)
    for done, total in rounds:
        progress(str(work), done, total)
    run.interrupted = run.interrupted or rounds.interrupted
    for key, measured in rounds.results.items():
        if measured:
            entry["contenders"][key] = {part: timing.summary([m[part] for m in measured]) for part in PARTS}
            entry["contenders"][key]["step"] = timing.summary([m.seconds for m in measured])
    if not run.interrupted:
        progress(f"{work}: where the time goes", 0, 1)
        entry["breakdown"] = breakdown(contenders["minidl"], 3 if rounds.results["minidl"][0].seconds < 2 else 1)
    return entry


def on_generic(step):
    """The first loss as the readable backend computes it, from the same weights."""
    with no_grad(), use_backend("generic"):
        scores, *heads = training.as_tuple(step.network(step.x))
        loss = F.cross_entropy(scores, step.labels)
        for head in heads:
            loss = loss + step.weight * F.cross_entropy(head, step.labels)
    return loss.item()


def compare_losses(losses):
    """(largest relative distance from PyTorch, that of PyTorch's two orders from each other, "" or what is wrong)."""
    steps = list(zip(losses["minidl"], losses["torch NCHW"], losses["torch NHWC"], strict=True))
    theirs = [abs(first - second) / abs(first) for _, first, second in steps]
    apart, wrong = 0.0, ""
    for number, (ours, first, second) in enumerate(steps):
        distance = min(abs(ours - first), abs(ours - second)) / abs(first)
        own = max(theirs[1:]) if number else theirs[0]  # one later step alone may agree by chance; the first has no update behind it
        if not distance <= max(ALLOWED[0], ALLOWED[1] * own) and not wrong:
            wrong = f"loss {number + 1} is {ours:.7g}, PyTorch's {first:.7g} and {second:.7g}"
        apart = max(apart, distance)
    return apart, max(theirs), wrong
