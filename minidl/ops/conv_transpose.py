"""Transposed convolution: conv2d's gradient with respect to its image, used as a layer that makes images larger."""

from minidl import backend
from minidl.core.errors import ArgumentError, ShapeError, explained, match_shapes
from minidl.core.examples import normal
from minidl.core.op import example, needs_grad, op
from minidl.ops.broadcast import same_device
from minidl.ops.conv import beside_one, conv2d, conv2d_grad_w
from minidl.ops.shape import unsqueeze
from minidl.ops.window import AXES, check_groups, pair, same_dtype, unbatched


@unbatched(4)
@op("x weight bias",
    examples=[example(normal(2, 3, 4, 3), normal(3, 2, 3, 2), normal(2), stride=2, padding=1, output_padding=1),
              example(normal(1, 4, 3, 2), normal(4, 1, 2, 3), None, stride=(1, 2), dilation=2, groups=2, output_padding=(1, 0))],
    tex=r"y_{nohw} = b_o + \sum_{c,\;ps+id-\mathrm{pad}=h,\;qs+jd-\mathrm{pad}=w} x_{ncpq}\; w_{coij}")
def conv_transpose2d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Every pixel stamps its filters into a larger image, s apart; where stamps overlap they add.

        y[n,o,h,w] = b[o] + Σ x[n,c,p,q] · w[c,o,i,j]
        over all c of o's group and all p, i, q, j with p·s + i·d − pad = h and q·s + j·d − pad = w

    Shapes:    x (N, C, H, W),  w (C, O/groups, KH, KW),  b (O,)  ->  y (N, O, OH, OW),
               OH = (H − 1)·s − 2·pad + d·(KH − 1) + output_padding + 1
    Backward:  it is conv2d_grad_x with x in the place of grad_y, so with y2 the gradient that arrives:
               grad_x = conv2d(y2, w), grad_w = conv2d_grad_w(y2, x), grad_b = Σ y2.
    """
    y_shape, how = _checked("conv_transpose2d", x, weight, bias, stride, padding, output_padding, groups, dilation)
    y = backend.run("conv2d_grad_x", x.array, weight.array, x_shape=y_shape, **how)
    if bias is not None:
        y += bias.array.reshape(-1, 1, 1)
    w_shape = weight.shape
    need_x, need_w, need_b = needs_grad(x, weight, bias)
    x_saved, w_saved = (x if need_w else None), (weight if need_x else None)

    def backward(y2):
        grad_x = conv2d(y2, w_saved, **how) if need_x else None
        grad_w = conv2d_grad_w(y2, x_saved, w_shape, **how) if need_w else None
        grad_b = y2.sum((0, 2, 3)) if need_b else None
        return grad_x, grad_w, grad_b

    return y, backward


def conv_transpose1d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Transposed convolution along one axis: x (N, C, L) or (C, L), w (C, O/groups, K) -> y (N, O, OL)."""
    match_shapes("conv_transpose1d", x=(input, "C L" if input.ndim == 2 else "N C L"), w=(weight, "C O K"))
    stride, dilation = beside_one(stride, 1), beside_one(dilation, 1)
    padding, output_padding = beside_one(padding, 0), beside_one(output_padding, 0)
    y = conv_transpose2d(unsqueeze(input, -2), unsqueeze(weight, -2), bias, stride, padding, output_padding, groups, dilation)
    return y.squeeze(-2)


def _checked(call, x, weight, bias, stride, padding, output_padding, groups, dilation):
    """The output's shape and the settings of the conv2d whose image it would be, if the tensors fit together."""
    if x.ndim == weight.ndim == 4:
        check_groups(call, groups, C=x.shape[1])
    sizes = match_shapes(call, x=(x, "N C H W"), w=(weight, "C O/groups KH KW"), groups=groups, b=(bias, "O"))
    same_device(call, *(t for t in (x, weight, bias) if t is not None))
    same_dtype(call, x=x, w=weight, b=bias)
    stride, dilation = pair(call, "stride", stride, 1), pair(call, "dilation", dilation, 1)
    pads, extra = pair(call, "padding", padding, 0), pair(call, "output_padding", output_padding, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise explained(ArgumentError, call, "output_padding must be smaller than stride or dilation.",
                        [f"output_padding: {extra}", f"stride: {stride}", f"dilation: {dilation}"],
                        "It only says which of the image sizes with the same convolution result is meant.")
    size = []
    for axis, (name, letter) in enumerate(AXES):
        length, kernel, s, d, pad, e = x.shape[2 + axis], weight.shape[2 + axis], stride[axis], dilation[axis], pads[axis], extra[axis]
        size.append((length - 1) * s - 2 * pad + d * (kernel - 1) + e + 1)
        if size[-1] < 1:
            raise explained(ShapeError, call, f"the output would have no {name}.",
                            [f"O{letter} = ({length} − 1)·{s} − 2·{pad} + {d}·({kernel} − 1) + {e} + 1 = {size[-1]}"],
                            "Use less padding, a larger kernel, or a larger image.")
    # The rows that output_padding adds are seen by no window: to the convolution they are missing padding.
    padding = tuple((pad, pad - e) for pad, e in zip(pads, extra, strict=True))
    return (sizes["N"], sizes["O"], *size), {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


__all__ = ["conv_transpose1d", "conv_transpose2d"]
