"""The networks against what is published: names, shapes, counts, sizes, depth, work, how weights start, files, messages."""

import hashlib
import json
import time

import numpy as np
import pytest

import minidl
from minidl import models, nn
from minidl.core.config import no_grad, use_backend
from minidl.core.count import multiply_adds, observed
from minidl.core.errors import ArgumentError, StateError
from minidl.core.rng import draw_normal
from minidl.models import manifest, zoo
from minidl.models.densenet import modern_names
from minidl.models.googlenet import Inception, centred
from minidl.models.lenet import drawings
from minidl.models.resnet import BasicBlock, PadChannels
from minidl.nn import init
from minidl.summary import summarize

TORCHVISION = {  # parameters, buffer elements, 10⁹ multiply-adds, names in the state dict, SHA-256 of names and shapes in order
    "alexnet": (61100840, 0, 0.7142, 16, "e6491fc73865f86e"),
    "vgg11": (132863336, 0, 7.6091, 22, "1bbb26fb14777547"),
    "vgg11_bn": (132868840, 5512, 7.6091, 62, "15d5ec541669d241"),
    "vgg13": (133047848, 0, 11.3085, 26, "83ce653fdc647dd8"),
    "vgg13_bn": (133053736, 5898, 11.3085, 76, "9eb70232bee7c944"),
    "vgg16": (138357544, 0, 15.4703, 32, "905349280414af50"),
    "vgg16_bn": (138365992, 8461, 15.4703, 97, "f2e40d51ccfe940c"),
    "vgg19": (143667240, 0, 19.6321, 38, "f89996df6d12b2f8"),
    "vgg19_bn": (143678248, 11024, 19.6321, 118, "45114cb3a8b743f1"),
    "googlenet_noaux": (6624904, 14617, 1.4984, 344, "4c8a998b8faf624a"),
    "googlenet": (13004888, 15131, 1.5067, 364, "405b6c1ef46f0f2e"),
    "inception_v3_noaux": (23834568, 34526, 5.7132, 566, "41e2e5eb649a9cba"),
    "inception_v3": (27161264, 36320, 5.7189, 580, "72d28297464b5ae3"),
    "resnet18": (11689512, 9620, 1.8141, 122, "ee7a67a94df88219"),
    "resnet34": (21797672, 17060, 3.6638, 218, "560e815d542c9f3d"),
    "resnet50": (25557032, 53173, 4.0892, 320, "b16eb9b46153f1f3"),
    "resnet101": (44549160, 105448, 7.8014, 626, "ef97dd14ba0f32b9"),
    "resnet152": (60192808, 151579, 11.5136, 932, "d04fa535adb93f13"),
    "resnext50_32x4d": (25028904, 68277, 4.2305, 320, "a0e5b3439ae534c7"),
    "resnext101_32x8d": (88791336, 202984, 16.414, 626, "fc70d266565f8e62"),
    "resnext101_64x4d": (83455272, 202984, 15.4603, 626, "9682c020af7f606f"),
    "wide_resnet50_2": (68883240, 68277, 11.398, 320, "1debc5e658b5373a"),
    "wide_resnet101_2": (126886696, 137960, 22.7531, 626, "e0328f4e622eabc4"),
}
PARAMETERS = {  # published, or computed from the papers, apart from this code
    "lenet5": 61706, "lenet5_paper": 60000, "alexnet_paper": 60965224, "zfnet": 62357608, "googlenet_paper": 13378280,
    "googlenet_5x5": 13385816, "bn_inception": 11295240, "inception_v4": 42679816, "squeezenet1_0": 1248424, "squeezenet1_1": 1235496,
    "densenet121": 7978856, "densenet169": 14149480, "densenet201": 20013928, "densenet161": 28681000, "cats_and_dogs": 3453121,
    "resnet20": 269722, "resnet32": 464154, "resnet44": 658586, "resnet56": 853018, "resnet110": 1727962, "resnet1202": 19421274,
    "resnet20_shortcut_b": 272474, "resnet56_shortcut_b": 855770, "resnet110_shortcut_b": 1730714,
    "resnet20_shortcut_c": 283962, "resnet56_shortcut_c": 900858, "resnet110_shortcut_c": 1826202,
    "vgg11_bn_small": 9231114, "vgg13_bn_small": 9416010, "vgg16_bn_small": 14728266, "vgg19_bn_small": 20040522,
    "vgg11_small": 9225610, "vgg13_small": 9410122, "vgg16_small": 14719818, "vgg19_small": 20029514,
}
MEGA_MULTIPLY_ADDS = {"resnet20": 40.6, "resnet32": 68.9, "resnet44": 97.2, "resnet56": 125.5, "resnet110": 252.9, "resnet1202": 2829,
                      "vgg11_bn_small": 153, "vgg13_bn_small": 228, "vgg16_bn_small": 313, "vgg19_bn_small": 398,
                      "resnet50_paper": 3858}


# --- counts and names -----------------------------------------------------------------------------------------------------

def test_every_network_is_as_the_manifest_says():
    assert list(manifest.read()) == list(zoo.listed())
    assert {name: faults for name in zoo.listed() if (faults := manifest.faults(name))} == {}


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_manifest_is_as_torchvision_says(name):
    entry = manifest.read()[name]
    digest = hashlib.sha256(json.dumps(entry["state_dict"], separators=(",", ":")).encode()).hexdigest()[:16]
    assert (entry["parameters"], entry["buffers"], round(entry["multiply_adds"] / 1e9, 4), len(entry["state_dict"]), digest) == \
        TORCHVISION[name]


def test_published_counts():
    known = manifest.read()
    assert {name: known[name]["parameters"] for name in PARAMETERS} == PARAMETERS
    for name, millions in MEGA_MULTIPLY_ADDS.items():
        assert round(known[name]["multiply_adds"] / 1e6, 1 if isinstance(millions, float) else None) == millions
    assert all(known[f"plain{n}"]["parameters"] == known[f"resnet{n}"]["parameters"] for n in (20, 32, 44, 56, 110))
    no_heads = models.googlenet(variant="paper", aux_logits=False, init_weights=False)
    assert sum(p.numel() for p in no_heads.parameters()) == 6998552


PLANTED = {
    "parameters: ": lambda entry: entry.update(parameters=7),
    "multiply_adds: ": lambda entry: entry.update(multiply_adds=7),
    "conv1.weight [6, 1, 5, 5]: not in the manifest": lambda entry: entry["state_dict"].pop(0),
    "extra [3]: only in the manifest": lambda entry: entry["state_dict"].append(["extra", [3]]),
    "fc1.bias: [120] here, [121]": lambda entry: entry["state_dict"][5][1].__setitem__(0, 121),
    "the order of the state dict differs: conv1.weight here": lambda entry: entry["state_dict"].reverse(),
}


@pytest.mark.parametrize("line, plant", PLANTED.items(), ids=PLANTED)
def test_a_planted_difference_is_found(line, plant):
    entry = json.loads(json.dumps(manifest.read()["lenet5"]))
    plant(entry)
    assert any(fault.startswith(line) for fault in manifest.faults("lenet5", {"lenet5": entry}))


def test_layers_of_the_lecture_network():
    counts = [layer["parameters"] for layer in summarize(zoo.find("cats_and_dogs").build(drawn=False), (3, 150, 150)).as_dict()["layers"]]
    assert [n for n in counts if n] == [896, 18496, 73856, 147584, 3211776, 513]


# --- sizes, depth and work -----------------------------------------------------------------------------------------------

def sizes(name, *paths, **settings):
    """The height of what modules give, one image."""
    model = zoo.find(name)
    summary = summarize(model.build(drawn=False, **settings), model.input)
    found = {}

    def walk(row):
        found[row.path] = row.outputs[0][2:]
        for inner in row.rows:
            walk(inner)

    walk(summary.root)
    assert all(len(set(found[path])) == 1 for path in paths)  # square
    return [found[path][0] for path in paths]


def numbered(*numbers):
    return [f"features.{n}" for n in numbers]


SIZES = {
    ("alexnet", *numbered(0, 2, 5, 12)): [55, 27, 13, 6],
    ("alexnet_paper", *numbered(0, 3, 7, 14)): [55, 27, 13, 6],
    ("zfnet", *numbered(0, 2, 4, 6, 12, 14)): [110, 55, 26, 13, 13, 6],
    ("vgg16", *numbered(1, 9, 16, 23, 30)): [224, 56, 28, 14, 7],
    ("googlenet", "conv1", "maxpool1", "maxpool2", "inception3b", "inception4e", "inception5b"): [112, 56, 28, 28, 14, 7],
    ("googlenet_paper", "conv1", "maxpool1", "maxpool2", "inception3b", "inception4e", "inception5b"): [112, 56, 28, 28, 14, 7],
    ("bn_inception", "conv1", "maxpool2", "inception.3b", "inception.3c", "inception.4d", "inception.4e", "inception.5b"):
        [112, 28, 28, 14, 14, 7, 7],
    ("inception_v3", "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2",
     "Mixed_5d", "Mixed_6e", "Mixed_7c"): [149, 147, 147, 73, 73, 71, 35, 35, 17, 8],
    ("inception_v4", *numbered(0, 1, 2, 3, 4, 5, 9, 10, 17, 18, 21)): [149, 147, 147, 73, 71, 35, 35, 17, 17, 8, 8],
    ("resnet50", "conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"): [112, 56, 56, 28, 14, 7],
    ("resnet20", "conv1", "layer1", "layer2", "layer3"): [32, 32, 16, 8],
    ("densenet121", "features.pool0", "features.transition1", "features.transition2", "features.transition3", "features.norm5"):
        [56, 28, 14, 7, 7],
    ("squeezenet1_0", "features.0", "features.2", "features.6", "features.11", "features.12"): [109, 54, 27, 13, 13],
    ("cats_and_dogs", *numbered(0, 2, 3, 5, 6, 8, 9, 11)): [148, 74, 72, 36, 34, 17, 15, 7],
    ("lenet5", "conv1", "pool1", "conv2", "pool2"): [28, 14, 10, 5],
}


@pytest.mark.parametrize("call", SIZES, ids=lambda call: call[0])
def test_spatial_sizes(call):
    assert sizes(*call) == SIZES[call]


def weighted_layers(name):
    """The most layers with weights on any way from the image to the scores."""
    depth, alive = {}, []

    def follow(call):
        before = max((depth.get(id(x), 0) for x in call.inputs if isinstance(x, minidl.Tensor)), default=0)
        for y in call.outputs:
            depth[id(y)] = before + (multiply_adds(call) > 0)
            alive.append(y)  # so that no other tensor gets its id

    model = zoo.find(name)
    with use_backend("shapes"), no_grad(), observed(follow):
        return depth[id(model.build(drawn=False).eval()(minidl.zeros(1, *model.input)))]


@pytest.mark.parametrize("name, layers", [
    ("lenet5", 5), ("alexnet", 8), ("zfnet", 8), ("vgg11", 11), ("vgg13_bn", 13), ("vgg16", 16), ("vgg19", 19), ("googlenet", 22),
    ("resnet18", 18), ("resnet34", 34), ("resnet50", 50), ("resnet101", 101), ("resnet152", 152), ("plain34", 34), ("resnet20", 20),
    ("resnet56", 56), ("resnet110", 110), ("densenet121", 121), ("cats_and_dogs", 6)])
def test_depth_is_in_the_name(name, layers):
    assert weighted_layers(name) == layers


@pytest.mark.parametrize("name, stages", [("resnet18", 4), ("resnet50", 4), ("resnet152", 4), ("resnet20", 3), ("plain34", 4)])
def test_every_stage_costs_the_same_per_block(name, stages):
    rows = {row.path: row for row in summarize(zoo.find(name).build(drawn=False), zoo.find(name).input).rows(depth=2)}
    assert len({rows[f"layer{stage + 1}.1"].total("multiply_adds") for stage in range(stages)}) == 1


def test_work_of_an_inception_block():
    """1×1·128, 3×3·192, 5×5·96 on 28×28×256: 854 million multiply-adds naive, 271 million behind 64-wide reductions."""
    def work(block):
        with init.skipped():
            return summarize(block, (256, 28, 28)).multiply_adds

    naive = sum(work(nn.Conv2d(256, o, k, padding=k // 2)) for o, k in ((128, 1), (192, 3), (96, 5)))
    with init.skipped():
        reduced = Inception(256, 128, (64, 192), (64, 96), 64, true_5x5=True)
    assert naive == 854196224 and work(reduced) == 271351808


# --- how they start -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, seconds", [("resnet50", 0.3), ("inception_v3", 1.0)])
def test_building_is_quick(name, seconds):
    def once():
        start = time.process_time()
        zoo.find(name).make()
        return time.process_time() - start

    assert min(once() for _ in range(3)) < seconds


def values(module):
    return module.weight.detach().numpy()


def test_starts():
    minidl.manual_seed(0)
    net = models.resnet18(zero_init_residual=True)
    conv = net.layer3[1].conv1
    assert abs(values(conv).std() / np.sqrt(2 / (256 * 9)) - 1) < 0.01 and abs(values(conv).mean()) < 1e-3
    assert (values(net.layer1[0].bn2) == 0).all() and (values(net.layer1[0].bn1) == 1).all()
    assert abs(values(net.fc)).max() <= 1 / np.sqrt(512) and abs(values(net.fc)).max() > 0.99 / np.sqrt(512)
    assert (net.bn1.running_var.numpy() == 1).all() and net.bn1.num_batches_tracked.item() == 0
    net = models.vgg11_bn(small=True)
    assert abs(values(net.classifier).std() / 0.01 - 1) < 0.05 and (net.features[0].bias.detach().numpy() == 0).all()
    net = models.inception_v3()
    assert abs(values(net.Mixed_7c.branch3x3_1.conv).std() / 0.1 - 1) < 0.01
    assert abs(values(net.AuxLogits.conv1.conv).std() / 0.01 - 1) < 0.01 and abs(values(net.AuxLogits.fc).std() / 0.001 - 1) < 0.01
    net = models.googlenet()
    assert abs(values(net.inception5b.branch2[1].conv).std() / 0.01 - 1) < 0.01
    net = models.squeezenet1_1()
    assert abs(values(net.classifier[1]).std() / 0.01 - 1) < 0.01
    net = models.alexnet(variant="paper", num_classes=2)
    assert [float(c.bias[0]) for c in net.modules() if isinstance(c, (nn.Conv2d, nn.Linear))] == [0, 1, 0, 1, 1, 1, 1, 0]


def test_nothing_stays_undrawn():
    for name in ("lenet5_paper", "resnet20", "resnet18_preact", "squeezenet1_1", "densenet121", "bn_inception", "googlenet", "tiny_cnn"):
        for path, tensor in zoo.find(name).build().state_dict().items():
            array = tensor.numpy()
            assert np.isfinite(array).all() and abs(array).max() < 20, path
            if array.size > 100 and array.ndim > 1 and "drawings" not in path:
                assert 1e-4 < array.std() < 2, path


def test_init_weights_false_starts_as_layers_do():
    net = models.vgg11(init_weights=False, small=True, num_classes=3)
    bound = 1 / np.sqrt(512 * 9)
    assert 0.99 * bound < abs(values(net.features[18])).max() <= bound


def test_a_seed_repeats():
    first, again = (minidl.manual_seed(3) and models.resnet20().conv1.weight for _ in range(2))
    assert np.array_equal(first.array, again.array)


def test_many_normals_are_normal():
    numbers = draw_normal((400001,), np.float32, generator=minidl.Generator().manual_seed(0))
    assert numbers.dtype == np.float32 and len(np.unique(numbers)) > 390000
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        assert abs((numbers.astype(float) ** power).mean() - moment) < 6 * np.sqrt(np.prod(np.arange(1, 2 * power, 2)) / numbers.size)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.01


# --- what comes out ---------------------------------------------------------------------------------------------------------

def test_auxiliary_heads_are_named():
    with use_backend("shapes"):
        net = zoo.find("googlenet").build(drawn=False)
        out = net(minidl.zeros(2, 3, 64, 64))
        assert type(out).__name__ == "GoogLeNetOutputs" and out._fields == ("logits", "aux_logits2", "aux_logits1")
        assert net.eval()(minidl.zeros(2, 3, 64, 64)).shape == (2, 1000)
        net = zoo.find("inception_v3").build(drawn=False)
        out = net(minidl.zeros(2, 3, 299, 299))
        assert type(out).__name__ == "InceptionOutputs" and out._fields == ("logits", "aux_logits") and out.aux_logits.shape == (2, 1000)
        assert models.inception_v3(aux_logits=False, init_weights=False)(minidl.zeros(2, 3, 75, 75)).shape == (2, 1000)


def test_transform_input_is_per_channel():
    """Five images: the first version of it elsewhere indexed the batch, and was right for one image only."""
    x = np.random.default_rng(0).normal(size=(5, 3, 4, 4)).astype(np.float32)
    mean, std = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1), np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    pixels = x * std + mean
    y = centred(minidl.tensor(x)).numpy()
    assert abs(y - (pixels - 0.5) / 0.5).max() < 1e-6


def test_option_a_has_no_parameters_and_keeps_every_second_pixel():
    x = minidl.arange(2 * 3 * 5 * 4).reshape(2, 3, 5, 4).float()
    y = PadChannels(3, 5, 2)(x).numpy()
    assert y.shape == (2, 5, 3, 2) and (y[:, 3:] == 0).all() and (y[:, :3] == x.numpy()[:, :, ::2, ::2]).all()


def test_drawings_of_digits():
    assert drawings().shape == (10, 84) and set(np.unique(drawings())) == {-1.0, 1.0}
    assert min(np.sum(drawings()[a] != drawings()[b]) for a in range(10) for b in range(a)) >= 6


def test_networks_take_other_layers_and_sizes():
    net = models.ResNet(BasicBlock, (1, 1, 1, 1), num_classes=3, norm_layer=lambda c: nn.GroupNorm(2, c))
    assert net(minidl.randn(1, 3, 32, 32)).shape == (1, 3)
    net = models.resnet50(num_classes=2, replace_stride_with_dilation=(False, True, True), init_weights=False)
    layer4 = next(row for row in summarize(net, (3, 64, 64)).rows(depth=1) if row.path == "layer4")
    assert layer4.outputs == [[1, 2048, 8, 8]]


# --- files ------------------------------------------------------------------------------------------------------------------

def test_weights_from_a_file(tmp_path):
    net = models.resnet20(shortcut="B")
    for ending in ("npz", "safetensors"):
        minidl.save(net, tmp_path / f"net.{ending}", {"model": "resnet20"})
        again = models.resnet20(weights=tmp_path / f"net.{ending}", shortcut="B")
        assert all(np.array_equal(a.array, b.array) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))
        assert all(p.requires_grad for p in again.parameters())
    with pytest.raises(StateError, match=r"fc.weight: the model has \(7, 64\), the state dict \(10, 64\)"):
        models.resnet20(weights=tmp_path / "net.npz", shortcut="B", num_classes=7)


def test_googlenet_takes_what_the_file_has(tmp_path):
    path = tmp_path / "googlenet.safetensors"
    net = models.googlenet(num_classes=3)
    minidl.save(net, path)
    full = models.googlenet(weights=path, num_classes=3)
    assert full.aux_logits and full.transform_input and not net.transform_input
    bare = models.googlenet(weights=path, num_classes=3, aux_logits=False, transform_input=False)
    assert bare.aux1 is None and not bare.transform_input
    minidl.save(bare, path)
    assert not models.googlenet(weights=path, num_classes=3).aux_logits


def test_old_names_of_densenet(tmp_path):
    net = models.DenseNet(4, (2, 2), 8, num_classes=3)
    state = {name.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv1", "conv.1").replace("conv2", "conv.2")
             if "denselayer" in name else name: value for name, value in net.state_dict().items()}
    assert any(".norm.1." in name for name in state)
    modern_names(state, {})
    assert sorted(state) == sorted(net.state_dict())


# --- messages ---------------------------------------------------------------------------------------------------------------

MESSAGES = [
    (lambda: models.resnet18(variant="v2"), ArgumentError,
     "ResNet: there is no such variant.\n    variant: 'v2'\n    known: 'v1.5', 'paper', 'preact'\n    Choose one of these."),
    (lambda: models.resnet18(groups=2), ArgumentError,
     "BasicBlock: it has no groups, no width and no dilation.\n    groups = 2, base_width = 64, dilation = 1\n    Use Bottleneck."),
    (lambda: models.resnet20(shortcut="D"), ArgumentError,
     "CifarResNet: there is no such shortcut.\n    shortcut: 'D'\n    known: 'A', 'B', 'C', 'none'\n    Choose one of these."),
    (lambda: zoo.find("resnet5O"), ArgumentError,
     "minidl.models: there is no model 'resnet5O'.\n    near: resnet56, resnet50, resnet152\n    `minidl models` lists them all."),
    (lambda: models.resnet51, AttributeError, "minidl.models has no 'resnet51'. The nearest name it has is 'resnet56'."),
]


@pytest.mark.parametrize("call, kind, text", MESSAGES, ids=[text.split("\n")[0] for _, _, text in MESSAGES])
def test_messages(call, kind, text):
    with pytest.raises(kind) as raised:
        call()
    assert str(raised.value) == text
