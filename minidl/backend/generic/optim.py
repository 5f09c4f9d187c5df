"""The step of an optimiser, one parameter after another: the rule is the one that stands in minidl/optim/."""

from minidl.backend import implements
from minidl.backend.layout import flat


@implements("update_parameters", "generic")
@implements("update_parameters", "reference")
def update_parameters(first, rule, work):
    """Apply the rule to every parameter: work holds ((parameter, gradient, more arrays), numbers) for each."""
    for arrays, numbers in work:
        rule(*flat(arrays), **numbers)
