"""The engine: tensors, the graph, the one backward algorithm, the op registry, the gradient check. README.md is the tour."""
