"""What ``detloop init --detector torchvision`` writes is a detector that can be built."""

import pytest
import yaml
from tiny_torchvision import tiny, write

from actors.detectors.base import SCRATCH, Starter
from actors.detectors.torchvision import starter as module
from actors.detectors.torchvision.component import TorchvisionConfig


def detector(starter: Starter) -> TorchvisionConfig:
    return TorchvisionConfig(**yaml.safe_load(starter.section.replace(" ## ", " # ")))


@pytest.mark.parametrize(
    ("weights", "keys"),
    [
        ("coco", {"backbone": "resnet50", "weights": "coco", "fpn_channels": 256}),
        ("imagenet", {"backbone": "efficientnet_lite0", "backbone_weights": "imagenet"}),
        (SCRATCH, {"backbone": "efficientnet_lite0", "backbone_weights": None}),
    ],
)
def test_the_section_says_what_the_detector_starts_from(weights, keys):
    found = TorchvisionConfig.starter(weights)
    config = detector(found)
    assert {key: getattr(config, key) for key in keys} == keys
    assert found.weights == (None if weights == SCRATCH else weights)
    assert found.note == ""


@pytest.mark.parametrize("installed", [True, False])
def test_the_default_depends_on_the_package(installed, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: installed or None)
    found = TorchvisionConfig.starter()
    assert detector(found).has_weights == installed
    assert bool(found.note) != installed


def test_a_checkpoint_gives_its_own_architecture(tmp_path):
    config = tiny("retinanet", backbone="timm:resnet10t")
    uri = write(config, tmp_path)
    found = detector(TorchvisionConfig.starter(uri))
    assert found.architecture_name == config.architecture_name
    assert found.weights == uri


def test_what_is_no_checkpoint_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="--weights no: there is no such file; give coco, imagenet"):
        TorchvisionConfig.starter("no")
    (tmp_path / "other.pth").touch()
    with pytest.raises(ValueError, match="no checkpoint of a torchvision detector"):
        TorchvisionConfig.starter(str(tmp_path / "other.pth"))
