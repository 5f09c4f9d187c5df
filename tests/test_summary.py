"""minidl summary, models and verify: rows, counts, saved bytes, receptive fields against gradients, folding, errors, text."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import minidl
from minidl import models, nn
from minidl.cli import main
from minidl.core.config import use_backend
from minidl.core.count import multiply_adds, observed
from minidl.models import zoo
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.summary import size_text, summarize
from minidl.summary_table import count_text, render, several


def run(*args, width=120):
    return CliRunner().invoke(main, args, prog_name="minidl", env={"COLUMNS": str(width)})


class Small(nn.Module):
    """Functions, a shared layer, a parameter of its own, a branch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.scale = nn.Parameter(minidl.ones(1, 4, 1, 1))
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = F.relu(self.conv(x)) * self.scale
        return self.fc(self.fc.weight.T.sum() * 0 + x.mean((2, 3)))


def test_rows_and_totals():
    summary = summarize(Small(), (3, 6, 5))
    layers = summary.as_dict()["layers"]
    assert [(row["path"], row["type"]) for row in layers][:4] == [("conv", "Conv2d"), ("relu()", "function"), ("mul()", "function"),
                                                                  ("permute()", "function")]
    assert [row["parameters"] for row in layers if row["parameters"]] == [112, 4, 10 - 2, 2]  # fc.weight is first used by a function
    assert sum(row["parameters"] for row in layers) == summary.parameters == 126
    assert layers[0]["inputs"] == [[1, 3, 6, 5]] and layers[0]["outputs"] == [[1, 4, 6, 5]]
    assert layers[0]["multiply_adds"] == 6 * 5 * 4 * 27 and layers[-1]["multiply_adds"] == 8
    assert layers[0]["output_bytes"] == layers[1]["output_bytes"] == 480
    assert layers[0]["saved_bytes"] == 3 * 6 * 5 * 4  # its input
    assert summary.multiply_adds == 6 * 5 * 4 * 27 + 8


def test_a_summary_changes_nothing():
    net = models.tiny_cnn()
    net[0].eval()
    before = {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}
    summarize(net, (1, 8, 8), batch=2, train=True)
    assert all(np.array_equal(before[name], tensor.numpy()) for name, tensor in net.state_dict().items())
    assert net.training and not net[0].training and net[1].training
    assert all(module._hooks is None or not (module._hooks.before or module._hooks.after) for module in net.modules())
    assert not minidl.core.op.OBSERVERS


@pytest.mark.parametrize("name", ["resnet20", "lenet5_paper", "densenet121", "googlenet", "alexnet_paper"])
def test_rows_add_up(name):
    model = zoo.find(name)
    summary = summarize(model.build(drawn=False), model.input)
    for depth in (None, 1, 2):
        rows = summary.rows(depth)
        assert sum(row.total("multiply_adds") for row in rows) == summary.multiply_adds
        assert len({row.path for row in rows}) >= len(rows) - (name == "googlenet")  # which uses its norm twice


def test_saved_bytes_are_what_the_graph_holds():
    """The same numbers as counting the arrays of a real graph, once each."""
    from minidl.core.count import kept_arrays, owner
    from minidl.core.graph import newest_first

    net = models.resnet20()
    net.train()
    y = net(minidl.randn(2, 3, 16, 16))
    own = {id(owner(t.array)) for t in (*net.parameters(), *net.buffers())}
    kept = {}
    for node in newest_first([y.edge[0]]):
        kept |= {key: array for key, array in kept_arrays(node).items() if key not in own}
    assert summarize(net, (3, 16, 16), batch=2, train=True).root.total("saved_bytes") == sum(a.nbytes for a in kept.values())


# --- shapes without arithmetic ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["resnet20", "tiny_cnn", "lenet5", "squeezenet1_1"])
def test_the_shapes_backend_gives_the_shapes(name):
    model = zoo.find(name)
    net, x = model.build(), minidl.zeros(2, *(model.input if name != "squeezenet1_1" else (3, 40, 40)))

    def seen():
        calls = []
        with observed(lambda call: calls.append((call.op.name, [y.shape for y in call.outputs], [y.dtype for y in call.outputs]))):
            net(x)
        return calls

    real = seen()
    with use_backend("shapes"):
        assert seen() == real


def test_multiply_adds_of_each_op():
    counts = []
    with observed(lambda call: counts.append((call.op.name, multiply_adds(call)))):
        F.conv2d(minidl.zeros(2, 4, 5, 6), minidl.zeros(6, 2, 3, 2), groups=2, padding=1)
        F.conv_transpose2d(minidl.zeros(1, 3, 4, 4), minidl.zeros(3, 2, 5, 5))
        F.linear(minidl.zeros(2, 3, 4), minidl.zeros(5, 4))
        minidl.zeros(2, 3, 4) @ minidl.zeros(4, 5)
        minidl.einsum("nk,km->nm", minidl.zeros(2, 3), minidl.zeros(3, 5))
        minidl.zeros(9).exp()
    assert [c for _, c in counts if c] == [2 * 6 * 5 * 7 * 12, 48 * 50, 6 * 20, 6 * 20, 30]


# --- receptive fields -----------------------------------------------------------------------------------------------------------

class Branched(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 1, 3, padding=1, stride=2), nn.Conv2d(1, 1, (5, 1), stride=2, padding=(2, 0))
        self.last = nn.Conv2d(2, 1, 2, dilation=2)

    def forward(self, x):
        return self.last(minidl.cat([self.a(x), self.b(x)], 1))


FIELDS = {
    "one": nn.Conv2d(1, 1, 3),
    "padded": nn.Conv2d(1, 1, 5, padding=2, stride=2),
    "chain": nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(1, 1, (1, 3), stride=(2, 1)), nn.ReLU()),
    "dilated": nn.Sequential(nn.Conv2d(1, 1, 3, dilation=3, padding=1), nn.AvgPool2d(3, stride=2, padding=1)),
    "same": nn.Conv2d(1, 1, 4, padding="same"),
    "branches": Branched(),
    "adaptive": nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d((11, 1))),
}


@pytest.mark.parametrize("net", FIELDS.values(), ids=FIELDS)
def test_the_field_is_where_the_gradient_is(net):
    """With positive weights no gradient cancels: the pixels that move one output are exactly its field, inside the image."""
    H, W = 24, 21
    summary = summarize(net, (1, H, W))
    field = summary.root.field
    for param in net.parameters():
        param.data.fill_(0.5)
    x = minidl.ones(1, 1, H, W, requires_grad=True)
    y = net(x)
    for p, q in {(0, 0), (min(2, y.shape[2] - 1), min(1, y.shape[3] - 1)), (y.shape[2] - 1, y.shape[3] - 1)}:
        x.grad = None
        y[0, 0, p, q].backward(retain_graph=True)
        rows, columns = np.nonzero(x.grad.numpy()[0, 0])
        for (first, last, stride), place, size, seen in zip(field.axes, (p, q), (H, W), (rows, columns), strict=True):
            assert seen.min() == max(0, first + place * stride) and seen.max() == min(size - 1, last + place * stride)


def test_known_fields():
    rows = {row.path: row for row in summarize(zoo.find("vgg16").build(drawn=False), (3, 224, 224)).rows()}
    assert (rows["features.0"].field.size, rows["features.0"].field.start) == ([3, 3], [-1, -1])
    assert rows["features.30"].field.size == [212, 212] and rows["features.30"].field.stride == [32, 32]
    assert str(rows["classifier.6"].field) == "404 all" and str(rows["features.30"].field) == "212/32/-90"
    rows = {row.path: row for row in summarize(zoo.find("alexnet").build(drawn=False), (3, 224, 224)).rows()}
    assert rows["features.12"].field.size == [195, 195]
    strided = summarize(models.ResNet(models.resnet.BasicBlock, (1, 1, 1, 1), shortcut="A", init_weights=False), (3, 64, 64)).rows()
    assert [row.field.stride for row in strided if row.path == "layer2.0.downsample"] == [[8, 8]]


# --- text -----------------------------------------------------------------------------------------------------------------------

def test_equal_blocks_are_folded():
    text = render(summarize(zoo.find("resnet34").build(drawn=False), (3, 224, 224), title="resnet34"), width=120)
    lines = text.split("\n")
    assert "  1…5 ×5        BasicBlock" in text and sum(line.startswith("  1…5") for line in lines) == 1
    assert len(lines) < 75
    assert render(summarize(zoo.find("resnet34").build(drawn=False), (3, 224, 224)), depth=1, width=120).count("Sequential") == 4


@pytest.mark.parametrize("first, last, text", [("1", "5", "1…5"), ("9", "10", "9…10"), ("Mixed_6c", "Mixed_6d", "Mixed_6c…6d"),
                                               ("layer9", "layer12", "layer9…12"), ("norm", "norm", "norm"), ("10", "12", "10…12")])
def test_names_of_folded_rows(first, last, text):
    assert several(first, last) == text


def test_convolutions_that_differ_are_not_folded():
    """1×7 and 7×1 cost the same."""
    text = render(summarize(zoo.find("inception_v3").build(drawn=False), (3, 299, 299)), depth=2)
    assert all(f"  branch7x7dbl_{k} " in text for k in range(1, 6)) and "Mixed_6c…6d ×2" in text


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("name", ["resnet50", "vgg16", "inception_v3", "lenet5_paper"])
def test_the_table_fits(name, width):
    done = run("summary", name, "--depth", "2", width=width)
    assert done.exit_code == 0 and done.stderr == ""
    assert max(map(len, done.stdout.split("\n"))) <= width
    assert "nan" not in done.stdout


def test_resnet50_table():
    lines = run("summary", "resnet50", "--depth", "1").stdout.split("\n")
    assert lines[0] == "resnet50, input 1×3×224×224, evaluation mode"
    assert lines[2].split() == ["layer", "type", "input", "output", "parameters", "mult-adds", "out", "saved", "field"]
    assert lines[7].split() == ["layer1", "Sequential", "64×56×56", "256×56×56", "215,808", "667.9", "M",
                                "35.3", "MB", "32.9", "MB", "35/4/-17"]
    assert lines[-7:-5] == ["parameters   25,557,032, trainable 25,557,032", "             with 53,173 buffer elements 102 MB"]
    assert "mult-adds    4,089,184,256 per image" in lines


def test_a_shape_error_ends_the_table_with_the_arithmetic():
    done = run("summary", "vgg16", "--input", "3,16,16")
    assert done.exit_code == 1
    assert "  29      ReLU" in done.stdout and "stopped at features.30:" in done.stdout
    assert "OH = (1 + 2·0 − 1·(2 − 1) − 1) // 2 + 1 = 0   with H = 1, KH = 2" in done.stdout
    found = json.loads(run("summary", "vgg16", "--input", "3,16,16", "--json").stdout)
    assert found["error"]["at"] == "features.30" and len(found["layers"]) == 31
    done = run("summary", "lenet5", "--input", "1,32,32")
    assert done.exit_code == 1 and "stopped at fc1:" in done.stdout and "K = 576" in done.stdout


def test_training_mode_runs_the_heads():
    quiet, loud = (json.loads(run("summary", "googlenet", "--json", *more).stdout) for more in ((), ("--train",)))
    assert quiet["totals"]["multiply_adds_per_image"] == 1498376192 and loud["totals"]["multiply_adds_per_image"] == 1506748416
    assert quiet["totals"]["parameters"] - quiet["totals"]["parameters_seen"] == 13004888 - 6624904
    assert "6,379,984 of them in layers that did not run" in run("summary", "googlenet").stdout
    assert loud["totals"]["parameters_seen"] == 13004888 and loud["batch"] == 2 and loud["mode"] == "train"


def test_json_of_a_depth():
    found = json.loads(run("summary", "resnet18", "--depth", "1", "--json").stdout)
    assert [row["path"] for row in found["layers"]] == ["conv1", "bn1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool",
                                                        "flatten()", "fc"]
    assert found["layers"][3]["receptive_field"] == {"size": [43, 43], "stride": [4, 4], "start": [-21, -21]}


def test_a_network_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mine_for_summary.py").write_text("from minidl import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(1, 2, 3))\n"
                                                  "def wrong():\n    return 3\n")
    monkeypatch.chdir(tmp_path)
    done = run("summary", "mine_for_summary:net", "--input", "1,5,5")
    assert done.exit_code == 0 and "2×3×3" in done.stdout
    assert "say the shape of one image." in run("summary", "mine_for_summary:net").stderr
    assert "must return an nn.Module.\n    it returned a int" in run("summary", "mine_for_summary:wrong", "--input", "1").stderr


@pytest.mark.parametrize("args, text", [
    (("summary", "resnet51"), "there is no model 'resnet51'.\n    near: resnet56"),
    (("summary", "resnet50", "--input", "3,x"), "--input '3,x': the shape of one image, without the batch"),
    (("summary", "resnet50", "--input", "3,²,²"), "--input '3,²,²': the shape of one image, without the batch"),
    (("summary", "resnet50", "--input", "3,٣٢,٣٢"), "the shape of one image, without the batch"),
    (("summary", "resnet50", "--input", "0,3"), "--input '0,3': the shape of one image, without the batch"),
    (("verify", "nothing_like_it_at_all"), "there is no model 'nothing_like_it_at_all'."),
])
def test_wrong_calls(args, text):
    done = run(*args)
    assert done.exit_code == 2 and text in done.stderr and done.stdout == ""


def test_models_lists_them():
    done = run("models")
    assert done.exit_code == 0 and done.stderr == "47 networks. minidl summary NAME shows one layer by layer.\n"
    line = next(line for line in done.stdout.split("\n") if line.startswith("resnet50 "))
    assert line.split()[1:8] == ["3×224×224", "25,557,032", "4.089", "G", "22.85", "/", "6.71,"] and "He et al. 2015" in line
    rows = json.loads(run("models", "--json", "--variants").stdout)
    assert [row["name"] for row in rows] == list(zoo.listed())
    assert {row["name"] for row in json.loads(run("models", "densenet", "Huang", "--json").stdout)} == {
        "densenet121", "densenet161", "densenet169", "densenet201"}


def test_verify(monkeypatch):
    done = run("verify", "resnet18", "lenet5")
    assert done.exit_code == 0 and done.stdout.split("\n")[0] == (
        "resnet18: 122 names and shapes, 11,689,512 parameters, 1,814,073,344 multiply-adds: as in the manifest")
    monkeypatch.setitem(zoo.MODELS, "lenet5", zoo.Model("lenet5", lambda: models.LeNet5(num_classes=11), {}, (1, 28, 28), "", ""))
    done = run("verify", "lenet5")
    assert done.exit_code == 1 and "    fc3.bias: [11] here, [10] in the manifest\n" in done.stdout


@pytest.mark.parametrize("count, text", [(0, ""), (7, "7"), (999, "999"), (1500, "1.5 k"), (118013952, "118 M"), (4089184256, "4.089 G")])
def test_counts_as_text(count, text):
    assert count_text(count) == text


@pytest.mark.parametrize("count, text", [(0, "0 B"), (999, "999 B"), (3211264, "3.21 MB"), (553430176, "553 MB"), (2 * 10**9, "2 GB")])
def test_sizes_as_text(count, text):
    assert size_text(count) == text


OWN = """
import minidl
from minidl import nn
class Bare(nn.Module):
    pass
class Broken(nn.Module):
    def forward(self, x):
        return x + undefined
def wide(width):
    return nn.Linear(width, 2)
net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
"""
REFUSED = {"own:Bare": ("3,2,2", "Bare has no forward()."), "own:wide": ("3,2,2", "must be callable without arguments."),
           "own:Broken": ("3,2,2", "its forward failed"), "own:net": ("9999999,9999999,9", "do not fit into memory"),
           "resnet18": ("3,8", "an image of resnet18 has 3 sizes: channels, height, width.")}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_summarized_is_told_in_one_message(name, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    shape, text = REFUSED[name]
    done = run("summary", name.replace("own:", "own.py:"), "--input", shape)
    assert done.exit_code == 2 and text in done.stderr and "Traceback" not in done.output
    assert run("summary", "own.py:net", "--input", "3,2,2").exit_code == 0
