"""Where a sliding window goes: the arithmetic of convolution and pooling, plain integers, one axis at a time.

Window p and kernel cell i meet pixel h = p·stride + i·dilation − pad.
"""


def positions(size, kernel, stride, pad, dilation):
    """How many places a kernel has along an axis with pad = (before, after)."""
    return (size + pad[0] + pad[1] - dilation * (kernel - 1) - 1) // stride + 1


def output_size(x_shape, kernel, stride, padding, dilation):
    """(OH, OW) of a convolution."""
    return tuple(map(positions, x_shape[-2:], kernel, stride, padding, dilation))


def kernel_cells(image, size, kernel, stride, pad, dilation):
    """Every kernel cell (i, j) with the outputs and the pixels it connects; cells that fall outside are left out.

        for i, j, outputs, pixels in kernel_cells((H, W), (OH, OW), ...):
            y[outputs] += x[pixels] * w[i, j]                                    # a convolution

    outputs = (..., slice of p, slice of q) and pixels = (..., slice of h, slice of w) select equally many elements.
    """
    for i in range(kernel[0]):
        p, h = _connected(i, image[0], size[0], stride[0], pad[0], dilation[0])
        for j in range(kernel[1]):
            q, w = _connected(j, image[1], size[1], stride[1], pad[1], dilation[1])
            yield i, j, (..., p, q), (..., h, w)


def _connected(cell, size, places, stride, before, dilation):
    """The windows for which this cell falls on a pixel, and those pixels: two slices of equal length."""
    offset = cell * dilation - before                      # h = p·stride + offset, wanted in 0 … size − 1
    first = max(0, -(offset // stride))                    # the smallest p with h >= 0
    last = max(first, min(places, (size - 1 - offset) // stride + 1))
    h = first * stride + offset
    return slice(first, last), slice(h, h + (last - first) * stride, stride)


def window_sizes(size, places, kernel, stride, pad, count_include_pad):
    """How many cells of each window average pooling counts: those in the image, or in the image and its padding."""
    edge, start = (pad, -pad) if count_include_pad else (0, 0)
    counts = []
    for p in range(places):
        h = p * stride - pad
        counts.append(min(h + kernel, size + edge) - max(h, start))
    return counts


def adaptive_bounds(size, places):
    """(first, past the last) pixel of each window of adaptive pooling: they cover the axis, and may overlap by one."""
    return [(p * size // places, -(-(p + 1) * size // places)) for p in range(places)]
