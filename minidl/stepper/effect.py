"""What an op does to the gradient that comes back through it: in one sentence, and in the numbers of the recorded step.

The sentence comes from the table, for the ops that networks are built of; for all others it is the first one of the
docstring's `Backward:`. The numbers come from the trace.
"""

import re

from minidl.stepper import source
from minidl.stepper.text import number, safe

ZEROS = 0.1  # how much the share of zeros must change before it is worth telling

SENTENCES = {
    "conv2d": "sends it back through the filter: a pixel adds up the shares of all windows that it lay in, a weight those of all "
              "positions and pictures.",
    "conv_transpose2d": "every input pixel collects it from the output pixels that it was painted on, times the filter.",
    "linear": "sends it back through the weights: an input adds up what comes from all outputs that it fed; a weight gets gradient "
              "times input, summed over the batch.",
    "matmul": "multiplies it: each factor gets the gradient times the other factor, transposed.",
    "batch_norm_train": "scales it by weight / σ in each channel, after taking out its mean and its part along the normalised x: mean and "
                        "variance move with x too.",
    "batch_norm_eval": "scales it by weight / σ in each channel: mean and variance are constants here.",
    "normalize_over": "scales it by weight / σ, after taking out its mean and its part along the normalised x: mean and variance move "
                      "with x too.",
    "relu": "a gate: lets it through where the output is above 0, stops it elsewhere.",
    "add": "copies it: both inputs get the same gradient, summed where one was stretched.",
    "sub": "copies it to the first input, and its negative to the second.",
    "mul": "gives each input the gradient times the other input.",
    "div": "divides it by the second input; the second input gets −x / other² times it.",
    "tanh": "multiplies it by the slope 1 − y²: little passes where the output is near ±1.",
    "sigmoid": "multiplies it by the slope y·(1 − y), at most 1/4: little passes where the output is near 0 or 1.",
    "max_pool2d": "hands it to the largest pixel of each window; all others get 0.",
    "avg_pool2d": "shares it out evenly: every pixel of a window gets one n-th.",
    "adaptive_avg_pool2d": "shares it out evenly: every pixel of a window gets one n-th.",
    "mean": "shares it out evenly: every element gets one n-th.",
    "sum": "copies it to every element of the sum.",
    "flatten": "only gives it the old shape.", "reshape": "only gives it the old shape.", "squeeze": "only gives it the old shape.",
    "unsqueeze": "only gives it the old shape.",
    "permute": "only moves it back to where the elements came from.", "transpose": "only moves it back to where the elements came from.",
    "cat": "cuts it up: each input gets its own stretch.",
    "masked_scale": "puts the same mask on it: 0 where the input was dropped, scaled up where it was kept.",
    "softmax": "multiplies it by y, after taking out its weighted mean: what raises one share lowers the others.",
    "cross_entropy": "starts it: every score gets what the model believes minus what is true, divided by the batch size.",
    "mse_loss": "starts it: twice the error, divided by how many there are.",
    "SGD": "uses it up: every parameter moves against its gradient.",
}


def sentence(op):
    """What an op does to the gradient, in words; "" if nothing is known."""
    known = getattr(op, "effect", None)  # of an op out of a saved trace
    if known is not None:
        return known
    if op.name in SENTENCES:
        return SENTENCES[op.name]
    return re.split(r"(?<=[a-zα-ω0-9)²])\. (?=[A-Zα-ω∂Σ])", source.gradient_formula(op))[0]


def measured(item):
    """What it did to the gradient in this recording, by the largest |element| going in and coming out."""
    if "measured" in item.stored:
        return item.stored["measured"]
    if item.kind == "update":
        return ""
    forward = item.forward
    if not forward.backwards:
        return "none came back through it: nothing before it needs one." if not forward.in_graph else "no backward went through it."
    back = item if item.kind == "backward" else forward.backwards[-1]
    given = [grad for _, grad in back.grads_in if grad.facts and "absmax" in grad.facts]
    made = [part for part in back.contributions if part.grad.facts and "absmax" in part.grad.facts]
    if not given or not made:
        return ""
    first = max(given, key=lambda grad: grad.facts["absmax"])
    parts = [f"grad_{safe(part.argument)} {largest(part.grad)}{ratio(first, part, made)}" for part in made]
    return f"largest |grad_y| {largest(first)} → {', '.join(parts)}{zeros(first, made[0])}"


def largest(value):
    """The largest |element|, or what is not finite about it."""
    facts = value.facts
    return "NaN" if facts["nan"] else "∞" if facts["inf"] else number(facts["absmax"])


def ratio(first, part, made):
    """ (6.1 times): of the input that data flows through, where both are finite."""
    before, after = first.facts, part.grad.facts
    if part is not made[0] or part.to.weight or before["nan"] or before["inf"] or after["nan"] or after["inf"] or not before["absmax"]:
        return ""
    times = after["absmax"] / before["absmax"]
    return " (the same)" if times == 1 else f" (×{number(times)})"


def zeros(first, part):
    """, zeros 0 % → 51 %: where the share of them changed."""
    shares = [value.facts["zero"] / max(1, value.facts["size"]) for value in (first, part.grad)]
    return f"; zeros {100 * shares[0]:.0f} % → {100 * shares[1]:.0f} %" if abs(shares[1] - shares[0]) > ZEROS else ""
