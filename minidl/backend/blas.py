"""The BLAS libraries in this process, and the switches for their own threads; threads.py keeps them to one while it works."""

import ctypes
import itertools


def libraries():
    """[(how many threads has it? , let it have so many)] of the BLAS libraries in this process."""
    import threadpoolctl  # 5 ms, paid at the first use

    return [_switches(library) for library in threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers]


def _switches(library):
    """OpenBLAS's own functions where we find them: threadpoolctl lets the thread that came first change the number, and no other
    as long as that one lives. A network trained in a second thread would keep both.
    """
    if library.internal_api == "openblas" and library.threading_layer == "pthreads":
        functions = ctypes.PyDLL(library.filepath)  # keeps the interpreter's lock: nobody else is to go first
        # as NumPy's wheels and the distributions name them
        for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64", "_64_")):
            names = [f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set")]
            if all(hasattr(functions, name) for name in names):
                return tuple(getattr(functions, name) for name in names)
    return library.get_num_threads, library.set_num_threads
