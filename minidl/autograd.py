"""The public door to differentiation, with PyTorch's names: backward, grad, gradcheck, gradgradcheck, no_grad, ..."""

from minidl.core.config import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from minidl.core.derivative import backward, grad
from minidl.core.errors import ArgumentError, GradcheckError, explained
from minidl.core.gradcheck import check
from minidl.core.tensor import Tensor

__all__ = ["GradcheckError", "backward", "enable_grad", "grad", "gradcheck", "gradgradcheck", "is_grad_enabled", "no_grad",
           "set_grad_enabled"]

EPS = 1e-6  # PyTorch's step; minidl chooses its own steps unless another one is asked for


def gradcheck(func, inputs, *, eps=EPS, atol=1e-5, rtol=1e-3, raise_exception=True, nondet_tol=0.0, check_undefined_grad=True):
    """Compare the gradients of func at the inputs that require grad with finite differences: True, or GradcheckError.

    PyTorch's signature. The inputs are computed in float64 whatever their dtype, and the steps are chosen from the
    function's values; atol, and rtol of the gradient's size, are allowed on top of the error those steps have. With
    raise_exception=False a failure returns False. minidl.check() is stricter, and returns a report.
    """
    inputs = _as_tuple(inputs, "gradcheck")
    report = check(func, inputs, 1, atol=atol, rtol=rtol, step=None if eps == EPS else eps, nondet_tol=nondet_tol,
                   check_undefined_grad=check_undefined_grad, chosen=_requires_grad)
    return _answer(report, raise_exception)


def gradgradcheck(func, inputs, grad_outputs=None, *, eps=EPS, atol=1e-5, rtol=1e-3, gen_non_contig_grad_outputs=False,
                  raise_exception=True, nondet_tol=0.0, check_undefined_grad=True):
    """gradcheck() of the gradient of func, as a function of the inputs and of grad_outputs (random ones if None)."""
    inputs = _as_tuple(inputs, "gradgradcheck")
    if grad_outputs is not None:
        grad_outputs = [u.array for u in ([grad_outputs] if isinstance(grad_outputs, Tensor) else grad_outputs)]
    report = check(func, inputs, 2, start=2, grad_outputs=grad_outputs, strided=gen_non_contig_grad_outputs,
                   atol=atol, rtol=rtol, step=None if eps == EPS else eps, nondet_tol=nondet_tol,
                   check_undefined_grad=check_undefined_grad, chosen=_requires_grad)
    return _answer(report, raise_exception)


def _as_tuple(inputs, call):
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if not any(_requires_grad(x) for x in inputs):
        raise explained(ArgumentError, call, "at least one input must require grad.", [f"inputs: {len(inputs)}"],
                        "Call x.requires_grad_() on the tensors to be checked.")
    return inputs


def _requires_grad(x):
    return isinstance(x, Tensor) and x.requires_grad


def _answer(report, raise_exception):
    if raise_exception:
        report.raise_if_failed()
    return report.ok
