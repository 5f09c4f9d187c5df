"""profile(): calls, time and bytes per op and call site."""

import json

import numpy as np

import minidl
from minidl.core.profile import profile


def test_the_table_counts_calls_bytes_and_peak():
    x = minidl.tensor(np.ones((100, 100))).requires_grad_()      # 80 000 bytes
    with profile() as p:
        for _ in range(3):
            h = x * x
            y = (h + 1.0).sum()
            y.backward()
            del h, y
    rows = {r["op"]: r for r in p.rows()}
    assert rows["mul"]["calls"] == rows["add"]["calls"] == rows["sum"]["calls"] == 3
    assert rows["mul"]["allocated_bytes"] == 3 * 80_000
    assert rows["mul"]["kept_bytes"] == 80_000         # x itself, once
    assert rows["add"]["kept_bytes"] == 0
    assert rows["mul"]["backward_s"] > 0 and rows["mul"]["forward_s"] > 0
    assert all(r["site"].startswith(__file__) for r in rows.values())
    assert 2 * 80_000 <= p.peak <= 6 * 80_000          # not the sum over the rounds
    assert json.loads(p.json())["rows"][0]["op"] in rows
    assert "kept" in str(p).splitlines()[0] and "peak of live results" in str(p).splitlines()[-1]


def test_views_allocate_nothing():
    x = minidl.tensor(np.ones((100, 100)))
    with profile() as p:
        x.reshape(10_000).reshape(50, 200)
    assert sum(r["allocated_bytes"] for r in p.rows()) == 0 and p.peak == 0


def test_nothing_is_watched_afterwards():
    with profile() as p:
        pass
    minidl.tensor([1.0]) * 2
    assert p.rows() == []
