"""The CUDA C sources, one .cu file a topic, readable on their own. No Python here: minidl.core.folders finds this folder.

In a wheel this folder is the package minidl.kernels; in a bare checkout it is kernels/ beside minidl/.
"""
