"""The differentiable ops, one topic a file. Importing this package fills the registry, minidl.core.op.OPS."""

from minidl.ops.compare import *  # noqa: F403
from minidl.ops.elementwise import *  # noqa: F403
from minidl.ops.index import *  # noqa: F403
from minidl.ops.matmul import *  # noqa: F403
from minidl.ops.reduce import *  # noqa: F403
from minidl.ops.select import *  # noqa: F403
from minidl.ops.shape import *  # noqa: F403

__all__ = sorted(name for name, value in globals().items() if callable(value))
