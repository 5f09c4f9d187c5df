"""The differentiable ops, one topic a file. Importing this package fills the registry, minidl.core.op.OPS."""

from minidl.ops.activation import *  # noqa: F403
from minidl.ops.closeness import *  # noqa: F403
from minidl.ops.compare import *  # noqa: F403
from minidl.ops.conv import *  # noqa: F403
from minidl.ops.conv_transpose import *  # noqa: F403
from minidl.ops.diagonal import *  # noqa: F403
from minidl.ops.dropout import *  # noqa: F403
from minidl.ops.elementwise import *  # noqa: F403
from minidl.ops.embedding import *  # noqa: F403
from minidl.ops.functions import *  # noqa: F403
from minidl.ops.image import *  # noqa: F403
from minidl.ops.index import *  # noqa: F403
from minidl.ops.linear import *  # noqa: F403
from minidl.ops.linear_algebra import *  # noqa: F403
from minidl.ops.loss import *  # noqa: F403
from minidl.ops.losses import *  # noqa: F403
from minidl.ops.matmul import *  # noqa: F403
from minidl.ops.nonlinear import *  # noqa: F403
from minidl.ops.normalize import *  # noqa: F403
from minidl.ops.normalize_rows import *  # noqa: F403
from minidl.ops.order import *  # noqa: F403
from minidl.ops.pass_on import *  # noqa: F403
from minidl.ops.pool import *  # noqa: F403
from minidl.ops.rearrange import *  # noqa: F403
from minidl.ops.reduce import *  # noqa: F403
from minidl.ops.scatter import *  # noqa: F403
from minidl.ops.select import *  # noqa: F403
from minidl.ops.shape import *  # noqa: F403
from minidl.ops.softmax import *  # noqa: F403
from minidl.ops.statistics import *  # noqa: F403
from minidl.ops.unfold import *  # noqa: F403

# a star import takes the ops that people call; gradients of ops (conv2d_grad_x) go by their full name
__all__ = sorted(name for name, value in globals().items() if callable(value) and "_grad" not in name)
