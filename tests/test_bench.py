"""The bench: right before quick, formulas that know, times that are honest about noise, files, comparisons, and the command."""

import json
import os
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

import minidl
from benchmarks import record
from minidl import backend, cli
from minidl.backend import IMPLEMENTATIONS, implements
from minidl.bench import breakdown, cases, compare, exact, machine, measure, page, steps, table, timing, torch_calls, torch_twins, training
from minidl.core.errors import ArgumentError, FileError

SMALL = {"conv2d": {"shape": (2, 6, 9, 8), "out": 4, "kernel": 3, "stride": 2, "groups": 2}, "matmul": {"shape": (5, 7, 3)},
         "pool": {"shape": (2, 3, 9, 7)}, "batch_norm": {"shape": (2, 3, 5, 4), "add": True}, "softmax": {"shape": (3, 7)}}


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    monkeypatch.setattr(timing, "wake", lambda contender: None)
    monkeypatch.setattr(timing.Rounds.__init__, "__defaults__", (0.0, 1, None))
    monkeypatch.setattr(machine, "ceilings", lambda: {"copy_gb_s": 20.0, "gemm_gflop_s": 200.0, "copy_bytes": 1, "gemm_size": 1})


@pytest.fixture
def planted():
    """planted(op, function, name): an implementation that is gone after the test, and preferred to all others."""
    before = {op: listed[:] for op, listed in IMPLEMENTATIONS.items()}

    def plant(op, function, name="cpu/planted"):
        implements(op, name)(function)
        listed = IMPLEMENTATIONS[op]
        listed.insert(0, listed.pop(next(k for k, i in enumerate(listed) if i.name == name)))

    yield plant
    for op, listed in before.items():
        IMPLEMENTATIONS[op][:] = listed


def measured(name, vs_torch=False, **settings):
    run = measure.Run(rounds=2, vs_torch=vs_torch)
    run.prepare()
    run.case(cases.make(name, **{**SMALL[name], **settings}))
    return run.finish()


def rows_of(result, op):
    return {row["implementation"]: row for row in result["rows"] if row["op"] == op}


# --- right before quick -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", SMALL)
def test_every_implementation_is_right(name):
    """The formulas, the loops and the vectorised bodies agree, each written on its own."""
    for _, op, arrays, how in cases.make(name, **SMALL[name]).requests():
        right = exact.exact(op, arrays, how)
        judged = [(i.name, right.judge(i.function(*arrays, **how))[0]) for i in IMPLEMENTATIONS[op] if not i.refusal(arrays, how)]
        assert len(judged) >= (1 if op in ("add_at", "running_averages") else 2) and all(not wrong for _, wrong in judged), judged


def test_settings_of_convolutions_are_in_the_formulas():
    for settings in ({"stride": 1, "padding": 0}, {"stride": 3, "padding": 2}, {"groups": 1, "kernel": 2, "padding": 1}):
        case = cases.make("conv2d", **{**SMALL["conv2d"], **settings})
        assert [op for _, op, _, _ in case.requests()] == ["conv2d", "conv2d_grad_x", "conv2d_grad_w"]
        for _, op, arrays, how in case.requests():
            reference = next(i for i in IMPLEMENTATIONS[op] if i.name == "reference")
            assert exact.exact(op, arrays, how).judge(reference.function(*arrays, **how))[0] == ""


WRONG = {
    "a factor": lambda y: y * np.float32(1.001),
    "one element": lambda y: np.concatenate([y.reshape(-1)[:-1], y.reshape(-1)[-1:] + 1]).reshape(y.shape),
    "NaN": lambda y: y * np.float32("nan"),
    "the wrong shape": lambda y: y[:1],
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_wrong_implementation_gets_no_speed(planted, change):
    generic = next(i for i in IMPLEMENTATIONS["conv2d"] if i.name == "generic/im2col").function
    planted("conv2d", lambda *arrays, **how: change(generic(*arrays, **how)))
    result = measured("conv2d", shape=(2, 6, 24, 24), kernel=3)
    row = rows_of(result, "conv2d")["cpu/planted"]
    assert row["status"] == "wrong" and row.get("median") is None and row["why"]
    assert rows_of(result, "conv2d")["generic/im2col"]["median"] > 0
    assert rows_of(result, "whole call")["minidl"]["why"] == "its conv2d is wrong"
    json.dumps(result, allow_nan=False)
    assert "✗ wrong" in table.text(result) and "✗ wrong" in page.html(result)


def test_an_implementation_that_raises_is_a_row(planted):
    def broken(*arrays, **how):
        raise ValueError("not today")

    planted("softmax", broken)
    row = rows_of(measured("softmax"), "softmax")["cpu/planted"]
    assert (row["status"], row["why"]) == ("wrong", "ValueError: not today")


def bfloat(a):
    """Rounded to bfloat16's 8 digits."""
    return ((np.ascontiguousarray(a).view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)


def half(a):
    return a.astype(np.float16).astype(np.float32)


SIZES = [("conv2d", {"shape": (8, 64, 28, 28)}), ("conv2d", {"shape": (2, 96, 14, 14), "out": 32}),
         ("conv2d", {"shape": (1, 8, 5, 5), "out": 8}),
         ("conv2d", {"shape": (2, 32, 56, 56), "out": 16, "stride": 2}), ("conv2d", {"shape": (2, 256, 7, 7), "out": 32, "kernel": 1}),
         ("matmul", {"shape": (64, 64, 64)}), ("matmul", {"shape": (8, 50_000, 4)}), ("matmul", {"shape": (3, 4, 5)}),
         ("pool", {"shape": (2, 16, 56, 56)}), ("batch_norm", {"shape": (8, 16, 56, 56)}),
         ("batch_norm", {"shape": (2, 3, 5, 4), "add": True}),
         ("softmax", {"shape": (256, 1000)}), ("softmax", {"shape": (3, 7)})]


@pytest.mark.parametrize("name, settings", SIZES)
def test_half_precision_is_refused_and_float32_is_not(name, settings):
    """Inputs cut to bfloat16 or float16 are wrong arithmetic at every size; what is computed in float32 passes with room."""
    for _, op, arrays, how in cases.make(name, **settings).requests():
        right = exact.exact(op, arrays, how)
        listed = [i for i in IMPLEMENTATIONS[op] if not i.refusal(arrays, how)]
        for i in listed:
            if i.backend != "reference" or exact.operations(op, arrays, how) < 3e5:
                _, found = right.judge(i.function(*arrays, **how), exact.allowance(i.name))
                assert all(error <= 0.7 * allowed for error, allowed in found), (op, i.name, found)
        generic = next(i for i in listed if i.backend == "generic")
        for cut in (bfloat, half):
            less = [cut(a) if a is not None and a.dtype == np.float32 else a for a in arrays]
            for factor in (1, exact.WINOGRAD) if op.startswith("conv2d") else (1,):
                assert right.judge(generic.function(*less, **how), factor)[0], (op, cut.__name__, factor)


@pytest.mark.parametrize("cut", [bfloat, half])
def test_every_output_is_judged_by_its_own_bound(cut):
    """Batch norm's grad_w and grad_b from cut numbers, behind a grad_x that is right."""
    _, op, arrays, how = next(r for r in cases.make("batch_norm", shape=(8, 16, 56, 56)).requests() if r[1] == "batch_norm_grad")
    generic = next(i for i in IMPLEMENTATIONS[op] if i.backend == "generic").function
    honest, less = generic(*arrays, **how), generic(cut(arrays[0]), cut(arrays[1]), *arrays[2:], **how)
    right = exact.exact(op, arrays, how)
    for k in (1, 2):
        mixed = tuple(less[j] if j == k else y for j, y in enumerate(honest))
        assert right.judge(mixed)[0].startswith(f"output {k} off by")
    row = rows_of(measured("batch_norm"), op)["generic"]
    assert len(row["outputs"]) == 4 and "outputs at" in table.cells(row)[-1]


def test_one_small_number_among_large_ones_is_judged_by_its_own_size():
    """A bound from the largest number of an output would let it pass."""
    a, b = np.ones((2, 4), np.float32), np.ones((4, 3), np.float32)
    a[1] = 1e-6
    y = a @ b
    y[1, 2] *= np.float32(1.01)
    assert "off by" in exact.exact("matmul", [a, b], {}).judge(y)[0]


def test_winograds_own_bound_is_said():
    row = {**measure.row_of(cases.make("softmax", **SMALL["softmax"]), "forward", "conv2d", "cpu/winograd"), "status": "ok", "median": 1.0}
    measure.judged(row, exact.Exact([np.ones(1)], [1e-6]), np.ones(1, np.float32) + np.float32(3e-6))
    assert row["why"] == "" and "bound: 4 times a direct sum's" in table.cells({**row, "p20": 1.0, "p80": 1.0, "n": 1})[-1]
    assert exact.Exact([np.ones(1)], [1e-6]).judge(np.ones(1, np.float32) + np.float32(3e-6))[0]


def test_loops_are_timed_where_they_are_tiny():
    assert rows_of(measured("matmul"), "matmul")["reference"]["median"] > 0
    large = cases.make("matmul", shape=(256, 256, 256))
    _, op, arrays, how = large.requests()[0]
    rows = measure.Run(1).request(large, "forward", op, arrays, how, 1)
    assert "plain loops: about" in next(row["why"] for row in rows if row["implementation"] == "reference")


def test_a_row_has_what_it_claims():
    result = measured("conv2d")
    row = rows_of(result, "conv2d")["generic/im2col"]
    y, w = 2 * 4 * 5 * 4, 3 * 3 * 3
    assert row["operations"] == 2 * y * w and row["bytes"] == 4 * (2 * 6 * 9 * 8 + 4 * w + y)
    assert row["gflop_s"] == pytest.approx(row["operations"] / row["median"] / 1e9)
    assert row["p20"] <= row["median"] <= row["p80"] and row["n"] == 2
    assert row["share"] == pytest.approx(max(row["gflop_s"] / 200, row["gb_s"] / 20))
    e = result["environment"]
    assert e["threads"] >= 1 and e["commit"] and e["numpy"] == np.__version__ and "blas" in e


def test_what_only_writes_is_no_row():
    """Batch norm's running averages are written in place: there is nothing to judge, and timing it would change it."""
    assert {row["op"] for row in measured("batch_norm")["rows"]} == {"batch_norm_train", "batch_norm_grad", "whole call"}


def test_operations_of_the_two_gradients_equal_the_forwards():
    counts = {op: exact.operations(op, arrays, how) for _, op, arrays, how in cases.make("conv2d", **SMALL["conv2d"]).requests()}
    assert len(set(counts.values())) == 1


# --- the GPU's rows -----------------------------------------------------------------------------------------------------

def test_a_missing_gpu_is_said(planted, monkeypatch):
    monkeypatch.setattr("minidl.bench.on_device.why_no_cuda", lambda: "nobody bought one")
    planted("softmax", lambda x, dim: x, "cuda/planted")
    row = rows_of(measured("softmax"), "softmax")["cuda/planted"]
    assert (row["status"], row["why"], row["device"]) == ("missing", "no GPU here: nobody bought one", "cuda")


def test_cuda_rows_on_the_stand_in(planted):
    """The whole path of a GPU's row: moved, judged, timed by events, launch and first call apart; and a wrong one is caught."""
    from minidl.backend.cuda import stand_in

    generic = next(i for i in IMPLEMENTATIONS["matmul"] if i.backend == "generic").function
    planted("matmul", lambda a, b: generic(a, b), "cuda/planted")
    planted("matmul", lambda a, b: generic(a, b) + 1, "cuda/off_by_one")
    with stand_in.installed():
        rows = rows_of(measured("matmul"), "matmul")
    assert rows["cuda/planted"]["status"] == "ok" and rows["cuda/planted"]["n"] == 2
    assert rows["cuda/planted"]["median"] > 0 and rows["cuda/planted"]["launch_s"] > 0
    assert rows["cuda/off_by_one"]["status"] == "wrong"


# --- timing -------------------------------------------------------------------------------------------------------------

def test_rounds_are_interleaved_and_warm():
    order = []
    rounds = timing.Rounds({name: lambda name=name: order.append(name) or 1.0 for name in "ab"}, 3, pause=0)
    assert rounds.run() == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert "".join(order) == "abba" * 2  # who comes first alternates; one round to warm up, not counted


def test_a_pause_comes_before_each_timing(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    timing.Rounds({"a": lambda: 1.0, "b": lambda: 1.0}, 2, pause=0.12).run()
    assert slept == [0.12] * 6


def test_ctrl_c_keeps_what_was_measured():
    count = iter(range(100))

    def contender():
        if next(count) == 5:
            raise KeyboardInterrupt
        return 1.0

    rounds = timing.Rounds({"a": contender}, 50, pause=0)
    assert rounds.run() == {"a": [1.0] * 4} and rounds.interrupted


def test_short_calls_are_repeated(monkeypatch):
    now = 0.0  # a clock of our own: the first call decides, and the real one is interrupted at times

    def call():
        nonlocal now
        now += 1e-5

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert timing.timed(call, 1e-3)() == pytest.approx(1e-5)
    assert now == pytest.approx(1e-3 + 1e-5)


@pytest.mark.parametrize("seconds, noisy", [([1.0, 1.0, 1.01, 1.02, 1.0], False), ([1.0, 1.0, 1.5, 1.6, 1.0], True)])
def test_noise_is_told(seconds, noisy):
    assert timing.is_noisy(timing.summary(seconds)) is noisy


def test_quantiles():
    assert timing.summary([5, 1, 2, 4, 3]) == {"median": 3, "p20": pytest.approx(1.8), "p80": pytest.approx(4.2), "n": 5}


# --- comparing ------------------------------------------------------------------------------------------------------------

def slowed(result, factor):
    times = ("median", "p20", "p80")
    return json.loads(json.dumps(result)) | {"rows": [{**row, **({key: row[key] * factor for key in times} if row.get("median") else {})}
                                                     for row in result["rows"]]}


def test_compare_finds_what_became_slower():
    """What minidl takes decides; loops and implementations left aside are shown."""
    result = measured("softmax")
    lines, slower = compare.compare(slowed(result, 1e-3), result, 0.1)
    assert len(slower) == sum(bool(row.get("median")) and row["chosen"] for row in result["rows"]) < len(lines)
    assert sum("not judged" in line for line in lines) == len(lines) - len(slower)
    assert compare.compare(result, slowed(result, 1.09), 0.1)[1] == []


def test_times_that_overlap_are_noise():
    result = measured("softmax")
    for row in result["rows"]:
        row |= {"p20": row["median"] * 0.7, "p80": row["median"] * 1.4} if row.get("median") else {}
    lines, slower = compare.compare(result, slowed(result, 1.5), 0.1)
    assert slower == [] and "within the noise" in lines[0]
    assert compare.compare(result, slowed(result, 3), 0.1)[1]


def test_new_and_gone_rows_are_told():
    result = measured("softmax")
    kept = [row for row in result["rows"] if row["op"] != "softmax"]
    lines, failed = compare.compare(result, {**result, "rows": kept}, 1)
    assert sum("gone" in line for line in lines) >= 1 and len(failed) == 1
    lines, failed = compare.compare({**result, "rows": []}, result, 1)
    assert sum("new" in line for line in lines) == sum(bool(row.get("median")) for row in result["rows"])
    assert failed == ["nothing can be compared"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"minidl_bench": 2}', '{"minidl_bench": 1, "environment": {}, "rows": [1], "steps": []}',
                                  '{"minidl_bench": 1, "environment": {}, "rows": [], "steps": [{"label": 1}]}', "[" * 100_000,
                                  '{"minidl_bench": true, "environment": {}, "rows": [], "steps": []}',
                                  '{"minidl_bench": 1, "environment": {}, "rows": [], "steps": [{"label": "a", "contenders": {"b": {"step":'
                                  ' {"median": 1' + "0" * 400 + "}}}}]}"])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "old.json").write_text(text)
    with pytest.raises(FileError):
        compare.read(tmp_path / "old.json")


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_what_is_no_file_is_not_read(path):
    with pytest.raises(FileError, match="no regular file"):
        compare.read(path)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(FileError, match="cannot be written"):
        compare.write("text", tmp_path / "none" / "a.json")
    compare.write("text", tmp_path / "a.json")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_links_are_followed_and_devices_stay_devices(tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    compare.write("new", tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "real.json").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    compare.write("text", tmp_path / "pipe")
    assert (os.read(reader, 100), stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)) == (b"text", True)
    os.close(reader)


@pytest.mark.parametrize("path", ["-", "/dev/stdout"])
def test_json_to_stdout_is_json_alone(tmp_path, path):
    """Run through a shell as users do, into a regular file: /dev/stdout then leads to it, and must not be swapped under the shell."""
    script = "import sys; from minidl.bench import compare; compare.write('[1]', sys.argv[1]); print(); print('[2]')"
    with open(tmp_path / "out", "w") as out:
        subprocess.run([sys.executable, "-c", script, path], stdout=out, check=True, cwd=tmp_path)
    assert (tmp_path / "out").read_text() == "[1]\n[2]\n"
    assert os.listdir(tmp_path) == ["out"]


# --- whole steps ------------------------------------------------------------------------------------------------------------

def test_a_step_and_where_it_goes():
    run = measure.Run(rounds=1)
    entry = steps.measure(run, "lenet5", batch=4)
    assert entry["status"] == "ok" and entry["contenders"]["minidl"]["step"]["median"] > 0
    split = entry["breakdown"]
    assert sum(split["by_op"].values()) == pytest.approx(split["seconds"], rel=0.02)
    assert set(split["by_kind"]) == set(breakdown.KINDS)
    assert "conv2d" in split["by_op"]


def test_a_step_that_computes_something_else_gets_no_speed(planted):
    generic = next(i for i in IMPLEMENTATIONS["conv2d"] if i.name == "generic/im2col").function
    planted("conv2d", lambda *arrays, **how: generic(*arrays, **how) * np.float32(1.1))
    entry = steps.measure(measure.Run(rounds=1), "lenet5", batch=4)
    assert entry["status"] == "wrong" and entry["contenders"] == {}


def test_kinds_of_lines():
    kinds = {}
    for part in ("backend/generic/conv.py", "backend/generic/im2col.py", "core/graph.py", "nn/module.py", "optim/sgd.py"):
        file = f"{breakdown.PACKAGE}/{part}"
        with open(file, encoding="utf-8") as lines:
            kinds[part] = {breakdown.kind_of_line(file, "f", k + 1) for k, _ in enumerate(lines)}
    assert "products" in kinds["backend/generic/conv.py"] and "gathers" in kinds["backend/generic/im2col.py"]
    assert "element-wise" in kinds["optim/sgd.py"] and kinds["nn/module.py"] == {"Python"}
    assert breakdown.kind_of_line("/usr/lib/python3/x.py", "f", 1) is None


def test_waiting_threads_are_idle_and_a_section_is_what_runs_in_it():
    file = f"{breakdown.PACKAGE}/backend/threads.py"
    with open(file, encoding="utf-8") as lines:
        kinds = {line.strip(): breakdown.kind_of_line(file, "f", number) for number, line in enumerate(lines, 1)}
    assert kinds["context, section = tasks.get()"] == kinds["np.add.reduce(_idle, None)"] == kinds["time.sleep(1e-4)"] == "idle"
    assert kinds["turn.body(item)"] is None and kinds["self.call_helpers()"] == "Python"


def test_losses_are_judged_by_pytorchs_own_distance():
    same = {"torch NCHW": [1.0, 0.9], "torch NHWC": [1.0, 0.91]}
    assert steps.compare_losses({**same, "minidl": [1.0, 0.93]})[2] == ""
    assert "loss 2" in steps.compare_losses({**same, "minidl": [1.0, 0.95]})[2]
    assert "loss 1" in steps.compare_losses({**same, "minidl": [float("nan"), 0.9]})[2]


LARGE = [pytest.param(name, size, marks=pytest.mark.slow) for name, size in (("resnet18", 64), ("resnet50", 96), ("vgg16", 224))]


@pytest.mark.parametrize("name, size", [("resnet20", 32), ("googlenet", 64), *LARGE])
def test_twins_say_what_the_networks_say(name, size):
    """The PyTorch side of the steps is the same network. The others are compared before each timing, as these are."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    _, contenders = training.steps(name, batch=4, size=size)
    losses = {key: step()["loss"] for key, step in contenders.items()}
    assert losses["minidl"] == pytest.approx(losses["torch NCHW"], rel=2e-5) == pytest.approx(losses["torch NHWC"], rel=2e-5)
    assert set(torch_twins.TWINS) <= set(minidl.models.MODELS)


def test_pytorchs_calls_are_the_same_calls():
    """What stands beside minidl's whole calls computes the same."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for name, settings in SMALL.items():
        case = cases.make(name, **settings)
        leaves = {key: torch.from_numpy(array.copy()).requires_grad_() for key, array in case.arrays.items()}
        theirs = torch_calls.FUNCTIONS[name](case.settings, leaves)(**leaves)
        mine = case.function(**case.tensors()).detach().numpy()
        np.testing.assert_allclose(mine, theirs.numpy(force=True), rtol=0, atol=2e-5, err_msg=name)
        assert all(min(call()) > 0 for call in torch_calls.contenders(case).values())


# --- the command ------------------------------------------------------------------------------------------------------------

def bench(*args):
    return CliRunner().invoke(cli.main, ["bench", *args], prog_name="minidl")


TINY = ("softmax", "--shape", "3,7", "--rounds", "2")


def test_the_command_writes_all_its_files(tmp_path):
    paths = [tmp_path / name for name in ("r.json", "r.md", "r.html")]
    done = bench(*TINY, "--json", str(paths[0]), "--markdown", str(paths[1]))
    assert done.exit_code == 0, done.output
    assert done.output.index("bench: softmax") < done.output.index("correct")
    result = json.loads(paths[0].read_text())
    assert result["minidl_bench"] == measure.VERSION and "| correct |" in paths[1].read_text()
    assert compare.read(paths[0]) == result


def test_tables_make_way_for_json_on_stdout():
    done = CliRunner().invoke(cli.main, ["bench", *TINY, "--json", "-"], prog_name="minidl")
    assert json.loads(done.stdout)["minidl_bench"] == measure.VERSION and "correct" in done.stderr


def test_the_threshold_decides_the_exit_code(tmp_path):
    path = tmp_path / "old.json"
    assert bench(*TINY, "--json", str(path)).exit_code == 0
    old = json.loads(path.read_text())
    path.write_text(json.dumps(slowed(old, 1e-3)))
    assert bench(*TINY, "--compare", str(path), "--fail-over", "10%").exit_code == 1
    path.write_text(json.dumps(slowed(old, 1e3)))
    done = bench(*TINY, "--compare", str(path))
    assert done.exit_code == 0 and "against the result of" in done.output


def test_another_environment_is_refused_unless_forced(tmp_path):
    path = tmp_path / "old.json"
    bench(*TINY, "--json", str(path))
    old = json.loads(path.read_text())
    old["environment"]["processor"] = "an abacus"
    path.write_text(json.dumps(slowed(old, 1e3)))
    done = bench(*TINY, "--compare", str(path))
    assert done.exit_code == 2 and "processor: an abacus then" in done.output
    assert bench(*TINY, "--compare", str(path), "--force").exit_code == 0


@pytest.mark.parametrize("args, text", [
    (["conv3d"], "There are: conv2d"), (["step"], "needs a model"), (["step", "resnet19"], "no model 'resnet19'"),
    (["--shape", "3,4"], "name it"), (["softmax", "--shape", "3,x"], "whole numbers"), (["softmax", "--kernel", "3"], "its settings are"),
    (["matmul", "--shape", "3,4"], "N,K,M"), ([*TINY, "--compare", "nowhere.json"], "cannot be read"),
    ([*TINY, "--fail-over", "much"], "10%"), (["pool", "--shape", "1,1,2,2", "--kernel", "9", "--padding", "0"], "max_pool2d")])
def test_mistakes_are_answered(args, text):
    done = bench(*args)
    assert done.exit_code == 2 and text in done.output, done.output


def test_a_wrong_row_fails_the_command(planted):
    planted("softmax", lambda x, dim: x)
    done = bench(*TINY)
    assert done.exit_code == 1 and "✗ wrong" in done.output


def test_ctrl_c_prints_what_there_is(monkeypatch):
    original = measure.Run.whole

    def whole(self, case):
        if case.name == "matmul":
            raise KeyboardInterrupt
        return original(self, case)

    monkeypatch.setattr(measure.Run, "whole", whole)
    done = bench("softmax", "matmul", "--rounds", "1")
    assert done.exit_code == 130 and "interrupted" in done.output and "softmax 256×1000" in done.output


def test_a_wrong_case_is_told_before_anything_is_measured():
    with pytest.raises(ArgumentError, match="its shape is N,C,H,W"):
        cases.make("conv2d", shape=(1, 2))


# --- pages written from result files ----------------------------------------------------------------------------------------

def test_tables_in_pages_are_what_the_result_files_say():
    for name in record.PAGES:
        text = (record.RESULTS.parents[1] / name).read_text(encoding="utf-8")
        assert record.filled(text) == text, f"{name}: python -c 'from benchmarks import record; record.fill()'"


def test_a_stale_table_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    page = "<!-- results: a of x, y -->\nold\n<!-- end of results -->"
    assert "Not measured yet" in record.filled(page)
    result = {"rows": [{"x": 1, "y": 2.5, "z": 3}], "device": "d", "versions": {}, "commit": "c", "date": "t", "load": None}
    (tmp_path / "a.json").write_text(json.dumps(result))
    fresh = record.filled(page)
    assert "| x | y |\n|---|---|\n| 1 | 2.5 |" in fresh and "old" not in fresh and record.filled(fresh) == fresh


# --- hostile text -------------------------------------------------------------------------------------------------------------

def test_text_from_a_result_stays_text():
    result = measured("softmax")
    evil = "</script><script>alert(1)</script>\x1b[2J"
    result["rows"][0] |= {"why": evil, "status": "wrong", "median": None, "implementation": evil}
    result["environment"]["processor"] = evil
    text = page.html(result)
    assert "<script>alert" not in text and text.count("<script") == 2
    assert "\\|" in table.markdown({**result, "notes": [], "rows": [{**result["rows"][0], "why": "a|b"}]})


def test_backend_listeners_are_gone_afterwards():
    assert backend.LISTENERS == []
