"""minidl.cuda: is there a GPU, and if not, why not? PyTorch's names where it has them."""

from minidl.core.device import module_for, why_no_cuda


def is_available():
    """Can tensors be put on a GPU here?"""
    return not why_no_cuda()


def device_count():
    """How many GPUs can be used."""
    return 0 if why_no_cuda() else module_for("cuda").cuda.runtime.getDeviceCount()


__all__ = ["device_count", "is_available", "why_no_cuda"]
