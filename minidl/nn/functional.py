"""The functions of networks, under the names of torch.nn.functional. They are ops; their source is in minidl/ops."""
# ruff: noqa: F401 - the imports are the public names

from minidl.core.create import one_hot
from minidl.ops.activation import *  # noqa: F403
from minidl.ops.conv import *  # noqa: F403
from minidl.ops.conv_transpose import *  # noqa: F403
from minidl.ops.dropout import dropout, dropout2d, stochastic_depth
from minidl.ops.embedding import embedding
from minidl.ops.image import channel_shuffle, interpolate, pad, pixel_shuffle, pixel_unshuffle
from minidl.ops.linear import bilinear, linear
from minidl.ops.loss import *  # noqa: F403
from minidl.ops.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    nll_loss,
    smooth_l1_loss,
)
from minidl.ops.nonlinear import *  # noqa: F403
from minidl.ops.normalize import batch_norm
from minidl.ops.normalize_rows import (
    cosine_similarity,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    normalize,
    rms_norm,
)
from minidl.ops.pool import *  # noqa: F403
from minidl.ops.softmax import log_softmax, softmax
from minidl.ops.unfold import *  # noqa: F403

__all__ = sorted(name for name, value in globals().items() if callable(value) and "_grad" not in name and name != "max_pool2d_at")
