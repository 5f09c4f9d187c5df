"""unfold and fold: the windows of an image as columns, and columns added back into an image. Each is the other's gradient."""

from minidl import backend
from minidl.core.errors import ShapeError, explained, match_shapes
from minidl.core.examples import normal
from minidl.core.op import example, op
from minidl.ops.window import conv_size, conv_window, pair, unbatched


@unbatched(4)
@op("x", examples=[example(normal(2, 3, 5, 4), (3, 2)), example(normal(1, 2, 6, 5), (2, 3), dilation=(2, 1), padding=1, stride=2)],
    tex=r"y_{n,\,cij,\,pq} = x_{n,c,\,ps+id-\mathrm{pad},\,qs+jd-\mathrm{pad}}")
def unfold(x, kernel_size, dilation=1, padding=0, stride=1):
    """Every window of the image as a column: im2col as an op.

        y[n, c·KH·KW + i·KW + j, p·OW + q] = x[n, c, p·s + i·d − pad, q·s + j·d − pad]

    Shapes:    x (N, C, H, W)  ->  y (N, C·KH·KW, L) with one column for each of the L = OH·OW windows
    Backward:  fold: each entry's gradient goes back to the pixel it was copied from, and overlaps add.
    """
    match_shapes("unfold", x=(x, "N C H W"))
    kernel = pair("unfold", "kernel_size", kernel_size, 1)
    how = conv_window("unfold", kernel, stride, pair("unfold", "padding", padding, 0), dilation)
    conv_size("unfold", x.shape, kernel, **how)
    y = backend.run("unfold", x.array, kernel=kernel, **how)
    image = x.shape[2:]

    def backward(grad_y):
        return fold(grad_y, image, kernel_size, dilation, padding, stride)

    return y, backward


@unbatched(3)
@op("x", examples=[example(normal(2, 12, 6), (4, 3), 2), example(normal(1, 12, 9), (6, 5), (2, 3), dilation=(2, 1), padding=1, stride=2)],
    tex=r"y_{nchw} = \sum_{ps+id-\mathrm{pad}=h,\;qs+jd-\mathrm{pad}=w} x_{n,\,cij,\,pq}")
def fold(x, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """Add columns back into an image: col2im as an op. fold(unfold(x)) is x times the number of windows over each pixel.

        y[n,c,h,w] = Σ x[n, c·KH·KW + i·KW + j, p·OW + q]      over all p, i, q, j with p·s + i·d − pad = h, q·s + j·d − pad = w

    Shapes:    x (N, C·KH·KW, L)  ->  y (N, C, H, W) with (H, W) = output_size and L = OH·OW windows
    Backward:  unfold: each entry receives the gradient of the pixel it was added to.
    """
    match_shapes("fold", x=(x, "N C·KH·KW L"))
    H, W = pair("fold", "output_size", output_size, 1)
    kernel = pair("fold", "kernel_size", kernel_size, 1)
    how = conv_window("fold", kernel, stride, pair("fold", "padding", padding, 0), dilation)
    OH, OW = conv_size("fold", (H, W), kernel, **how)
    N, rows, L = x.shape
    if rows % (kernel[0] * kernel[1]) or L != OH * OW:
        raise explained(ShapeError, "fold", "a column holds one window of every channel, and there is one column per window.",
                        [f"x: {x.shape}", f"axis 1 must be a multiple of KH·KW = {kernel[0]}·{kernel[1]} = {kernel[0] * kernel[1]}",
                         f"axis 2 must be OH·OW = {OH}·{OW} = {OH * OW}"],
                        "Pass the settings that unfold was called with, and the image's size as output_size.")
    y = backend.run("fold", x.array, x_shape=(N, rows // (kernel[0] * kernel[1]), H, W), kernel=kernel, **how)

    def backward(grad_y):
        return unfold(grad_y, kernel_size, dilation, padding, stride)

    return y, backward


__all__ = ["fold", "unfold"]
