"""The public door to differentiation, with PyTorch's names: backward, grad, gradcheck, gradgradcheck, no_grad, ..."""

from minidl.core.config import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from minidl.core.derivative import backward, grad
from minidl.core.errors import ArgumentError, GradcheckError, explained
from minidl.core.gradcheck import check
from minidl.core.tensor import Tensor

__all__ = ["GradcheckError", "backward", "enable_grad", "grad", "gradcheck", "gradgradcheck", "is_grad_enabled", "no_grad",
           "set_grad_enabled"]

EPS = 1e-6  # PyTorch's step; minidl chooses its own steps unless another one is asked for


def gradcheck(func, inputs, *, eps=EPS, atol=1e-5, rtol=1e-3, raise_exception=True, nondet_tol=0.0, check_undefined_grad=True,
              check_grad_dtypes=False, check_batched_grad=False, check_batched_forward_grad=False, check_forward_ad=False,
              check_backward_ad=True, fast_mode=False, masked=None):
    """Compare the gradients of func at the inputs that require grad with finite differences: True, or GradcheckError.

    PyTorch's signature. The inputs are computed in float64 whatever their dtype, and the steps are chosen from the
    function's values; atol, and rtol of the gradient's size, are allowed on top of the error those steps have. With
    raise_exception=False a failure returns False. minidl.check() is stricter, and returns a report. fast_mode changes
    nothing (random directions are quick), nor does check_grad_dtypes (every backward walk sees to dtypes).
    """
    _refuse("gradcheck", check_batched_grad=check_batched_grad, check_batched_forward_grad=check_batched_forward_grad,
            check_forward_ad=check_forward_ad, masked=masked)
    _demand("gradcheck", check_backward_ad=check_backward_ad)
    inputs = _as_tuple(inputs, "gradcheck")
    report = check(func, inputs, 1, atol=atol, rtol=rtol, step=None if eps == EPS else eps, nondet_tol=nondet_tol,
                   check_undefined_grad=check_undefined_grad, chosen=_requires_grad)
    return _answer(report, raise_exception)


def gradgradcheck(func, inputs, grad_outputs=None, *, eps=EPS, atol=1e-5, rtol=1e-3, gen_non_contig_grad_outputs=False,
                  raise_exception=True, nondet_tol=0.0, check_undefined_grad=True, check_grad_dtypes=False,
                  check_batched_grad=False, check_fwd_over_rev=False, check_rev_over_rev=True, fast_mode=False, masked=False):
    """gradcheck() of the gradient of func, as a function of the inputs and of grad_outputs (random ones if None)."""
    _refuse("gradgradcheck", check_batched_grad=check_batched_grad, check_fwd_over_rev=check_fwd_over_rev, masked=masked)
    _demand("gradgradcheck", check_rev_over_rev=check_rev_over_rev)
    inputs = _as_tuple(inputs, "gradgradcheck")
    if grad_outputs is not None:
        grad_outputs = [u.array for u in ([grad_outputs] if isinstance(grad_outputs, Tensor) else grad_outputs)]
    report = check(func, inputs, 2, start=2, grad_outputs=grad_outputs, strided=gen_non_contig_grad_outputs,
                   atol=atol, rtol=rtol, step=None if eps == EPS else eps, nondet_tol=nondet_tol,
                   check_undefined_grad=check_undefined_grad, chosen=_requires_grad)
    return _answer(report, raise_exception)


MISSING = {"masked": "sparse tensors", "check_forward_ad": "forward mode", "check_fwd_over_rev": "forward mode",
           "check_batched_grad": "vmap", "check_batched_forward_grad": "vmap"}


def _refuse(call, **wanted):
    """Switches that would check what minidl does not have."""
    for name, value in wanted.items():
        if value:
            raise explained(ArgumentError, call, f"{name} cannot be checked: minidl has no {MISSING[name]}.", [f"{name}={value!r}"],
                            f"Leave {name} out.")


def _demand(call, **wanted):
    """The one thing there is to check."""
    for name, value in wanted.items():
        if not value:
            raise explained(ArgumentError, call, f"with {name} off there is nothing to check.", [f"{name}={value!r}"],
                            "Backward is the only way minidl differentiates.")


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
