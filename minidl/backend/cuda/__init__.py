"""Our CUDA kernels as implementations of ops: each topic's launcher registers what it can do. The sources are in kernels/.

Launchers come through launch.kernel(), which checks every argument; on_cpu.py runs the same .cu files without a GPU.
Importing this folder imports no cupy and compiles nothing.
"""
