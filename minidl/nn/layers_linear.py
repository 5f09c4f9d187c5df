"""Layers around a matrix product or a table: Linear, Bilinear, Embedding."""

import math

from minidl.core.config import no_grad
from minidl.core.errors import ArgumentError, explained
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn import init
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter, empty_parameter


class Linear(Module):
    """y = x · weightᵀ + bias on the last axis of x.

    Shapes:    x (..., in_features), weight (out_features, in_features), bias (out_features)  ->  y (..., out_features)
    """

    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = empty_parameter((out_features, in_features), device, dtype)
        self.register_parameter("bias", empty_parameter((out_features,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Start again, as PyTorch does: uniform between ±1/√in_features."""
        init.layer_weight_(self.weight)
        if self.bias is not None:
            init.layer_bias_(self.bias, self.weight)

    def forward(self, x):
        """x · weightᵀ + bias."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self):
        """The sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Bilinear(Module):
    """y_o = Σ_ij x1_i · weight_oij · x2_j + bias_o.

    Shapes:    x1 (..., in1_features), x2 (..., in2_features)  ->  y (..., out_features)
    """

    def __init__(self, in1_features, in2_features, out_features, bias=True, device=None, dtype=None):
        super().__init__()
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = empty_parameter((out_features, in1_features, in2_features), device, dtype)
        self.register_parameter("bias", empty_parameter((out_features,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Start again: uniform between ±1/√in1_features."""
        bound = 1 / math.sqrt(max(self.in1_features, 1))
        for param in self.parameters():
            init.uniform_(param, -bound, bound)

    def forward(self, x1, x2):
        """The product of both inputs with the weight, plus the bias."""
        return F.bilinear(x1, x2, self.weight, self.bias)

    def extra_repr(self):
        """The sizes."""
        return (f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
                f"out_features={self.out_features}, bias={self.bias is not None}")


class Embedding(Module):
    """A table: y[...] = weight[index[...]]. The row padding_idx starts as 0 and is never trained.

    Shapes:    index (...), weight (num_embeddings, embedding_dim)  ->  y (..., embedding_dim)
    """

    def __init__(self, num_embeddings, embedding_dim, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False,
                 sparse=False, _weight=None, _freeze=False, device=None, dtype=None):
        super().__init__()
        if max_norm is not None or scale_grad_by_freq or sparse:
            raise explained(ArgumentError, "Embedding", "max_norm, scale_grad_by_freq and sparse are not available.",
                            [f"max_norm={max_norm}, scale_grad_by_freq={scale_grad_by_freq}, sparse={sparse}"],
                            "Leave them out; clip_grad_norm_ bounds what one step changes.")
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise explained(ArgumentError, "Embedding", "padding_idx must be a row of the table.",
                            [f"padding_idx = {padding_idx}, num_embeddings = {num_embeddings}"], "Rows count from 0.")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx if padding_idx is None else padding_idx % num_embeddings
        if _weight is None:
            self.weight = empty_parameter((num_embeddings, embedding_dim), device, dtype)
            self.reset_parameters()
        else:
            self.weight = Parameter(_weight)
        self.weight.requires_grad_(not _freeze)

    @classmethod
    def from_pretrained(cls, embeddings, freeze=True, padding_idx=None):
        """A layer around an existing table, by default not trained."""
        return cls(*embeddings.shape, padding_idx=padding_idx, _weight=embeddings, _freeze=freeze)

    def reset_parameters(self):
        """Start again: standard normal, the padding row 0."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    def forward(self, index):
        """The rows that `index` names."""
        return F.embedding(index, self.weight, self.padding_idx)

    def extra_repr(self):
        """The sizes."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


__all__ = ["Linear", "Bilinear", "Embedding"]
