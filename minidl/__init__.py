"""minidl: a deep-learning engine you can read, step through and trust. Public names only.

What costs time at import (nn, models, stepper, ...) is imported when it is first asked for.
"""
# ruff: noqa: F401 - the imports are the public names

import difflib
import importlib
import importlib.util
import warnings
from math import e, inf, nan, pi

from minidl.backend.threads import get_num_threads, set_num_threads
from minidl.core.config import enable_grad, is_grad_enabled, no_grad, set_grad_enabled, use_backend, use_fusion, use_tf32, use_winograd
from minidl.core.create import *  # noqa: F403
from minidl.core.device import Device as device  # noqa: N813 - PyTorch's name
from minidl.core.dtypes import bool_ as bool
from minidl.core.dtypes import float16, float32, float64, int8, int16, int32, int64, promote_types, result_type, uint8
from minidl.core.errors import MinidlError
from minidl.core.rng import Generator, default_generator, initial_seed, manual_seed
from minidl.core.tensor import Tensor
from minidl.core.version import __version__
from minidl.ops import *  # noqa: F403

# Ops that PyTorch has in nn.functional, or only as methods of Tensor, and what they are built from.
NOT_HERE = (
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "batch_norm", "batch_norm_eval", "batch_norm_train",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "cross_entropy", "dropout", "dropout2d", "elu",
    "embed", "embedding", "expand", "fold", "gelu", "getitem", "glu", "group_norm", "hardsigmoid", "hardswish", "hardtanh", "huber",
    "huber_loss", "instance_norm", "interpolate", "kl_div", "l1_loss", "layer_norm", "leaky_relu", "linear", "local_response_norm",
    "logsigmoid", "masked_scale", "max_pool2d_at", "mish", "mse_loss", "neighbour_sum", "nll_loss", "normalize", "normalize_over", "pad",
    "raw_index", "relu6", "resample", "rms_norm", "silu", "smooth_l1_loss", "softmin", "softplus", "softshrink", "softsign",
    "stochastic_depth", "tanhshrink", "to", "unfold", "view",
)
for _name in NOT_HERE:
    globals().pop(_name, None)

inference_mode = no_grad
half, float, double, short, int, long = float16, float32, float64, int16, int32, int64  # PyTorch's short names

SUBMODULES = ("autograd", "backend", "bench", "core", "cuda", "data", "lessons", "models", "nn", "ops", "optim", "planted",
              "stepper", "train")
ELSEWHERE = {  # public names whose files are imported when first used
    "check": "minidl.core.gradcheck", "debug": "minidl.core.debug", "detect_anomaly": "minidl.core.anomaly",
    "explain": "minidl.core.explain",
    "flight_recorder": "minidl.stepper", "load": "minidl.core.files", "profile": "minidl.core.profile", "save": "minidl.core.files",
    "step": "minidl.stepper"}


# Overflow, 0/0 and their like give inf and NaN in silence, as in PyTorch: detect_anomaly() is what finds their cause.
# Only for NumPy's warnings that start in minidl's own files, and for free; np.errstate would cost 0.6 µs in every op.
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"minidl\.")


def __getattr__(name):
    if name in SUBMODULES and importlib.util.find_spec(f"minidl.{name}"):
        return importlib.import_module(f"minidl.{name}")
    if name in ELSEWHERE:
        return getattr(importlib.import_module(ELSEWHERE[name]), name)
    functional = importlib.import_module("minidl.nn.functional").__all__
    near = difflib.get_close_matches(name, {*__dir__(), *functional}, 1)
    if not near:
        raise AttributeError(f"minidl has no {name!r}.")
    path = near[0] if near[0] in __dir__() else f"nn.functional.{near[0]}"
    raise AttributeError(f"minidl has no {name!r}. The nearest name it has is minidl.{path}.")


def __dir__():
    submodules = {name for name in SUBMODULES if importlib.util.find_spec(f"minidl.{name}")}
    own = {name for name in globals() if not name.startswith("_") and name not in _NOT_PUBLIC}
    return sorted(own | set(ELSEWHERE) | submodules)


_NOT_PUBLIC = {"difflib", "importlib", "warnings", "SUBMODULES", "ELSEWHERE", "NOT_HERE", "cli", "commands", "summary",
               "summary_table"}
