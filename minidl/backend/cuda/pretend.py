"""a_gpu(): the GPU if there is one, else its stand-in, so that every question about the GPU path has an answer everywhere.

For `minidl explain ... --device cuda`: which kernel would run this call, asked on a machine without a GPU.
"""

import contextlib

from minidl.core.device import standing_in, why_no_cuda


@contextlib.contextmanager
def a_gpu():
    """Inside, x.to("cuda") works. Yields "" on a real GPU, else a line that says what stands in for it."""
    reason = why_no_cuda()
    if not reason:
        yield ""
        return
    from minidl.backend.cuda import stand_in
    with standing_in(stand_in):
        yield f"Asked of a stand-in, which decides as a GPU would: {reason}."
