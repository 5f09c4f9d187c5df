"""minidl.cuda: is there a GPU, which one, how much of its memory is in use? PyTorch's names where it has them.

Memory is CuPy's pool: what arrays hold is allocated, what the pool keeps for the next ones besides is reserved.
"""

from minidl.core import later
from minidl.core.device import Device, module_for, why_no_cuda


def is_available():
    """Can tensors be put on a GPU here?"""
    return not why_no_cuda()


def device_count():
    """How many GPUs can be used."""
    return 0 if why_no_cuda() else module_for("cuda").cuda.runtime.getDeviceCount()


def current_device():
    """The number of the GPU that "cuda" means in this thread."""
    return module_for("cuda").cuda.Device().id


def _number(device):
    """The number of a GPU from a number, a name, a Device or None."""
    if device is None:
        return current_device()
    return device if isinstance(device, int) else Device(device).index or 0


def get_device_properties(device=None):
    """What the driver says of a GPU: a dictionary."""
    found = module_for("cuda").cuda.runtime.getDeviceProperties(_number(device))
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def get_device_name(device=None):
    """The name of a GPU."""
    return get_device_properties(device)["name"]


def get_device_capability(device=None):
    """(major, minor): (9, 0) is sm_90."""
    found = get_device_properties(device)
    return found["major"], found["minor"]


def synchronize(device=None):
    """Wait until the GPU has done all it was given; checks of labels and indices that were put off answer now."""
    module = module_for("cuda")
    with module.cuda.Device(_number(device)):
        module.cuda.runtime.deviceSynchronize()
    later.settle()


def memory_allocated(device=None):
    """Bytes that arrays hold."""
    return _pool(device, "used_bytes")


def memory_reserved(device=None):
    """Bytes that the pool has taken from the GPU, in use or not."""
    return _pool(device, "total_bytes")


def mem_get_info(device=None):
    """(free, total) bytes of the GPU, all its users counted."""
    module = module_for("cuda")
    with module.cuda.Device(_number(device)):
        return tuple(module.cuda.runtime.memGetInfo())


def empty_cache():
    """Give the memory back that no array holds."""
    module = module_for("cuda")
    module.get_default_memory_pool().free_all_blocks()
    module.get_default_pinned_memory_pool().free_all_blocks()


def _pool(device, what):
    module = module_for("cuda")
    with module.cuda.Device(_number(device)):
        return getattr(module.get_default_memory_pool(), what)()


def memory_summary(device=None):
    """The memory of a GPU as a few lines of text."""
    free, total = mem_get_info(device)
    rows = [("in arrays", memory_allocated(device), "memory_allocated()"), ("in the pool", memory_reserved(device), "memory_reserved()"),
            ("free", free, "for everybody; empty_cache() adds what the pool keeps unused"), ("in all", total, "")]
    lines = [f"cuda:{_number(device)}  {get_device_name(device)}"]
    return "\n".join(lines + [f"    {what:<12}{size / 2**20:>12,.1f} MiB   {note}".rstrip() for what, size, note in rows])


__all__ = ["current_device", "device_count", "empty_cache", "get_device_capability", "get_device_name", "get_device_properties",
           "is_available", "mem_get_info", "memory_allocated", "memory_reserved", "memory_summary", "synchronize", "why_no_cuda"]
