"""The differentiable ops, one topic a file. Importing this package fills the registry, minidl.core.op.OPS."""

from minidl.ops.elementwise import *  # noqa: F403
