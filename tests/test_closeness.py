"""equal, isclose, allclose and their like."""

import numpy as np
import pytest

import minidl


def test_close_and_equal():
    a = minidl.tensor([1.0, 2.0, np.inf, np.nan])
    b = minidl.tensor([1.0 + 1e-6, 2.1, np.inf, np.nan])
    assert minidl.isclose(a, b).tolist() == [True, False, True, False]
    assert minidl.isclose(a, b, equal_nan=True).tolist() == [True, False, True, True]
    assert minidl.isclose(minidl.tensor([1.0]), minidl.tensor([np.inf])).tolist() == [False]
    assert minidl.allclose(a[:1], b[:1]) is True and minidl.allclose(a, b) is False
    assert a[:3].allclose(a[:3], rtol=0, atol=0)
    assert minidl.equal(a[:3], a[:3]) is True and minidl.equal(a[:2], a[:3]) is False and minidl.equal(a[:2], b[:2]) is False
    assert minidl.is_tensor(a) and not minidl.is_tensor([1.0]) and minidl.numel(a) == 4
    assert minidl.clip(b[:2], max=2).tolist() == [pytest.approx(1.000001), 2.0]
    with pytest.raises(TypeError, match="isclose: both must be Tensors"):
        minidl.isclose(a, 1.0)


def test_against_torch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(0)
    for _ in range(50):
        a = rng.standard_normal(20).round(1)
        b = a + rng.choice([0, 1e-9, 1e-6, 1e-3], 20) * rng.standard_normal(20)
        a[rng.integers(20)], b[rng.integers(20)] = np.inf, np.nan
        for how in ({}, {"rtol": 1e-3}, {"atol": 1e-4}, {"equal_nan": True}):
            mine = minidl.isclose(minidl.tensor(a), minidl.tensor(b), **how).tolist()
            assert mine == torch.isclose(torch.tensor(a), torch.tensor(b), **how).tolist()
