"""The command line as a user meets it: quick to help and to say what is wrong, and true to what it promises."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from PIL import Image
from upath import UPath

from loop import cli
from loop.config import LoopConfig
from loop.config_files import load, validate
from loop.data.config import DataConfig
from loop.data.importing import import_data
from loop.state import RunFolder

CONFIGS = Path(__file__).parents[1] / "configs"
QUICKSTART = CONFIGS / "quickstart.yaml"
HEAVY = {"torch", "ray", "ultralytics", "mlflow", "cv2", "scipy", "matplotlib", "pandas", "pyarrow", "diffusers"}

PROBE = """\
import sys, time
start = time.process_time()
from loop.cli import main
sys.argv[0] = "detloop"
try:
    main()
except SystemExit as end:
    status = end.code or 0
print(f"status {status}, {time.process_time() - start} s, loaded", *sorted(sys.modules), file=sys.stderr)
"""


def probe(folder, *arguments):
    """A command line in a process of its own: exit status, CPU seconds, what is loaded, output."""
    command = [sys.executable, "-c", PROBE, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)  # noqa: S603 - our own
    *said, last = done.stderr.splitlines()
    status, seconds, modules = re.fullmatch(r"status (\d+), (\S+) s, loaded (.*)", last).groups()
    loaded = {name.split(".")[0] for name in modules.split()}
    return int(status), float(seconds), loaded, done.stdout + "\n".join(said)


@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        (["--help"], 0, ["run", "ablate", "check", "init", "export", "ui", "data"]),
        (
            ["run", QUICKSTART, "--set", "mining.policy=worst"],
            2,
            ["mining.policy", "'hardest', 'balanced', 'ranked', 'random' or 'utility'", "seen: 'worst'"],
        ),
        (["run", QUICKSTART, "--set", "minig.budget=3"], 2, ["minig: unknown key", "known here: data, detector,"]),
        (["check", QUICKSTART], 0, ["real images", "train", "(rendered)"]),
    ],
    ids=["help", "wrong value", "unknown key", "check"],
)
def test_help_and_config_errors_come_in_under_a_second_without_anything_heavy(tmp_path, arguments, status, parts):
    """CPU seconds, the best of three: a busy machine makes all waiting longer."""
    tries = [probe(tmp_path, *arguments) for _ in range(3)]
    assert {one[0] for one in tries} == {status}
    assert not HEAVY & tries[0][2]
    assert not [part for part in parts if part not in tries[0][3]], tries[0][3]
    assert min(one[1] for one in tries) < 1.0
    assert list(tmp_path.iterdir()) == []


def test_the_console_script_is_there():
    script = Path(sys.executable).with_name("detloop")
    done = subprocess.run([script, "--help"], check=True, capture_output=True, text=True)  # noqa: S603 - our own
    assert "Find what a detector gets wrong" in done.stdout


def test_the_version_is_that_of_the_installed_package(detloop):
    assert detloop("--version") == (0, f"detloop {version('detloop')}\n", "")


@pytest.mark.parametrize("command", ["run", "ablate", "check", "init", "export", "ui", "data validate"])
def test_the_help_of_a_command_gives_its_exit_status(detloop, command):
    status, said, _ = detloop(*command.split(), "--help")
    assert status == 0
    assert re.search(r"Exit status: (0 when|that of)", " ".join(said.split()))


def test_the_shell_completes_commands():
    completion = {"_DETLOOP_COMPLETE": "complete_bash", "COMP_WORDS": "detloop ex", "COMP_CWORD": "1"}
    script = Path(sys.executable).with_name("detloop")
    done = subprocess.run([script], check=False, capture_output=True, text=True, env={**os.environ, **completion})  # noqa: S603 - our own
    assert done.stdout.split() == ["export", "export-model"]


def test_check_says_what_a_run_would_do_and_starts_nothing(detloop, tmp_path):
    root = tmp_path / "runs"
    changes = (
        "rounds=2",
        "training.start=previous",
        "training.steps=80",
        "generation.copies=3",
        "mining.budget=30",
        f"root={root}",
    )
    status, said, _ = detloop("check", QUICKSTART, *(part for change in changes for part in ("--set", change)))
    assert status == 0
    assert f"{root}/quickstart (new), fingerprint " in said
    assert re.search(r"trainings +5 of 80 steps", said)  # two rounds, and three controls
    assert re.search(r"draw up to 60 candidates \(inpaint\) for 3 filters", said)
    resolved = yaml.safe_load(said[said.index("\nname: ") :])
    assert resolved["mining"]["score_threshold"] == 0.3
    assert not root.exists()


def test_check_says_what_is_fitted_first(detloop, easy_data):
    painter = "generator.painter={kind: crop, fit_steps: 70, fit_batch_size: 8}"
    plain = ("--set", "data.format=coco", "--set", "data.subset=null")
    arguments = ("check", CONFIGS / "bccd.yaml", "--set", f"data.root={easy_data}", *plain)
    status, said, _ = detloop(*arguments, "--set", "generator.kind=inpaint", "--set", painter)
    assert status == 0
    assert re.search(r"fit +the generator first, 70 steps of 8 on 16 real boxes", said)
    again = detloop(*arguments, "--set", painter, "--set", "rounds=6", "--set", "fit.every=2")[1]
    assert re.search(r"fit +the generator in 3 of 6 rounds, each time from its current weights, 70 steps of 8", again)
    for other in ("generator={kind: copy_paste}", "rounds=0"):
        assert "\nfit " not in detloop(*arguments, "--set", other)[1]


def test_check_of_the_layout_model_says_what_it_fits_and_needs(detloop, easy_data):
    status, said, _ = detloop("check", CONFIGS / "detdiffusion.yaml", "--set", f"data.root={easy_data}")
    assert status == 0
    assert re.search(r"fit +the generator first, 110900 steps of 64 on 16 real boxes", said)
    assert "weights of the layout model: stable-diffusion-v1-5/stable-diffusion-v1-5 (downloaded on first use" in said


def test_check_names_the_weights_that_a_run_needs_and_whether_they_are_there(detloop, easy_data, tmp_path):
    there = tmp_path / "lora.safetensors"
    there.touch()
    aesthetic = "{kind: aesthetic, head: /nowhere/head.pth}"
    alignment = "{kind: alignment, features: clip, clip: {weights: 's3://bucket/clip.pt'}}"
    changes = (
        f"data.root={easy_data}",
        f"generator.painter.lora.path={there}",
        f"filters=[{aesthetic}, {alignment}]",
    )
    status, said, _ = detloop("check", CONFIGS / "gen2det.yaml", *(part for one in changes for part in ("--set", one)))
    needs = said[said.index("\nneeds") : said.index("\n\n")].removeprefix("\nneeds").splitlines()
    download = "(downloaded on first use, unless cached)"
    assert status == 0
    assert [line.strip() for line in needs] == [
        f"weights of the painter: masterful/gligen-1-4-inpainting-text-box {download}",
        f"LoRA: {there} (found)",
        "aesthetic head: /nowhere/head.pth (MISSING)",
        f"CLIP weights of ViT-L-14-quickgelu: openai {download}",
        "CLIP weights: s3://bucket/clip.pt (remote, not checked)",
    ]
    plain = [f"--set={one}" for one in ("data.format=coco", "data.subset=null", "generator={kind: copy_paste}")]
    plain.append("--set=filters=[{kind: aesthetic, head: fitted}]")
    status, said, _ = detloop("check", CONFIGS / "bccd.yaml", "--set", f"data.root={easy_data}", *plain)
    assert said.count(download) == 1  # CLIP's
    assert "\nneeds" not in detloop("check", QUICKSTART)[1]


def test_missing_weights_stop_a_run_before_its_control_is_trained(detloop, monkeypatch, tmp_path):
    arguments = [QUICKSTART, "--set", "filters=[{kind: aesthetic, head: /nowhere/head.pth}]"]
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    status, _, said = detloop("run", *arguments, "--set", f"root={tmp_path / 'runs'}")
    assert status == 2
    assert "missing: aesthetic head: /nowhere/head.pth." in said
    assert not (tmp_path / "runs").exists()


def test_a_file_in_the_place_of_a_folder_is_missing(detloop, tmp_path):
    for place, state in ((tmp_path, "found"), (QUICKSTART, "MISSING")):
        generator = f"generator={{kind: insertion_gan, places: masks, place_masks: {place}}}"
        status, said, _ = detloop("check", QUICKSTART, "--set", "data.world.clean=2", "--set", generator)
        assert (status, f"folder of masks of places: {place} ({state})" in said) == (0, True)


@pytest.mark.parametrize("command", ["check", "run"])
def test_too_few_images_for_a_fit_stop_a_run_before_its_control_is_trained(detloop, easy_data, tmp_path, command):
    data = ("data.format=coco", f"data.root={easy_data}", "data.subset=1", f"root={tmp_path / 'runs'}")
    changes = [f"--set={one}" for one in (*data, "generator={kind: insertion_gan}")]
    status, _, said = detloop(command, QUICKSTART, *changes)
    assert status == 2
    assert "the unrolled step takes two images with boxes at least, and there is one" in said
    assert not list((tmp_path / "runs").glob("controls/*"))
    assert detloop("check", QUICKSTART, *changes, "--set=rounds=0")[0] == 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("yolo99n.yaml", "no file 'yolo99n.yaml' and no model of ultralytics"),
        ("yolo11n.pt", "'yolo11n.pt' is no model YAML; weight files go into detector.weights"),
        ("yolo11n-seg.yaml", "no detector: its last layer is none of Detect"),
    ],
)
@pytest.mark.parametrize("key", ["detector", "mining.detector"])
def test_a_model_that_is_not_known_is_refused_before_the_run_takes_its_name(detloop, tmp_path, key, model, message):
    change = f"{key}={{kind: ultralytics, model: {model}}}"
    for command in ("check", "run"):
        status, _, said = detloop(command, QUICKSTART, "--set", change, "--set", f"root={tmp_path / 'runs'}")
        assert (status, message in said) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_check_lists_the_weights_that_detectors_start_from(detloop, tmp_path):
    own = tmp_path / "own.safetensors"
    other = f"mining.detector={{kind: ultralytics, model: yolov8n.yaml, weights: {own}}}"
    named, start = ("--set", "detector.weights=yolo11n.pt"), ("--set", "training.start=weights")
    release = "weights of the detector: yolo11n.pt (downloaded on first use, unless cached)"
    said = detloop("check", QUICKSTART, *named, *start, "--set", other)[1]
    assert re.search(rf"needs +{re.escape(release)}\n +weights of the detector: {own} \(MISSING\)", said)
    control = detloop("check", QUICKSTART, *named, *start, "--set", other, "--set", "rounds=0")[1]
    assert (release in control, str(own) + " (" in control) == (True, False)
    unused = detloop("check", QUICKSTART, *named)[1]
    assert release not in unused
    assert "note         training.start: scratch does not use the weights of the detector" in unused


@pytest.mark.parametrize(
    ("kind", "setting", "message"),
    [
        ("torchvision", "lr=-1", "training.overrides.lr: Input should be greater than 0; seen: -1"),
        ("torchvision", "schedule=foo", "training.overrides.schedule: Input should be 'cosine' or 'step'; seen: 'foo'"),
        ("torchvision", "lr0=0.1", "training.overrides.lr0: torchvision's detectors have no such setting; near it: lr"),
        ("ultralytics", "lr=0.1", "training.overrides.lr: ultralytics has no such setting; near it: lr"),
    ],
)
def test_a_setting_that_the_family_does_not_take_is_refused_before_the_run_takes_its_name(
    detloop, tmp_path, kind, setting, message
):
    tree = {"name": "r", "root": str(tmp_path / "runs"), "data": {"format": "world"}, "detector": {"kind": kind}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    for command in ("check", "run"):
        status, _, said = detloop(command, tmp_path / "run.yaml", "--set", f"training.overrides.{setting}")
        assert (status, message in said) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_a_backbone_release_that_is_not_there_is_refused_before_the_run_takes_its_name(detloop, tmp_path):
    detector = {"kind": "torchvision", "backbone": "resnet18", "backbone_weights": "IMAGENET1K_V9"}
    tree = {"name": "r", "root": str(tmp_path / "runs"), "data": {"format": "world"}, "detector": detector}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**tree, "training": {"start": "weights"}}))
    for command in ("check", "run"):
        status, _, said = detloop(command, tmp_path / "run.yaml")
        assert (status, "IMAGENET1K_V9 is neither a .pth or" in said, "IMAGENET1K_V1" in said) == (2, True, True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kind", ["torchvision", "ultralytics"])
@pytest.mark.parametrize("at", ["detector", "mining.detector"])
def test_check_refuses_weights_of_another_architecture(detloop, small_model, tmp_path, kind, at):
    keys = {"model": str(small_model)} if kind == "ultralytics" else {"backbone": "resnet18", "fpn_channels": 64}
    other = {"model": "yolo11n.yaml"} if kind == "ultralytics" else {"fpn_channels": 96}
    weights = str(tmp_path / "weights.safetensors")
    data = {"format": "world"}
    detector = validate(LoopConfig, {"name": "r", "data": data, "detector": {"kind": kind, **keys}}, "test").detector
    detector.save_checkpoint(detector.architecture(3), ("a", "b", "c"), weights)
    fitting, changed = ({"kind": kind, "weights": weights, **keys, **more} for more in ({}, other))
    tree = {"name": "r", "data": data, "detector": fitting, "training": {"start": "weights"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    status, said, _ = detloop("check", tmp_path / "run.yaml")
    assert (status, f"weights of the detector: {weights} (found)" in said) == (0, True)
    status, _, said = detloop("check", tmp_path / "run.yaml", "--set", f"{at}={json.dumps(changed)}")
    assert (status, f"{weights}: weights of another architecture: " in said) == (2, True)


def test_check_estimates_the_time_from_model_and_sizes_before_a_first_run(detloop, small_model, tmp_path):
    def minutes(*changes):
        arguments = [part for one in (f"root={tmp_path}", *changes) for part in ("--set", one)]
        plan = detloop("check", QUICKSTART, *arguments)[1]
        said = re.search(r"\ntime +about (\d+) min of training on an idle.* \((under|\d+ min to) (\d+) min, by", plan)
        assert said is None or int(said[1]) < int(said[3])
        return int(said[1]) if said else None

    assert minutes("training.steps=10", "training.epoch_steps=10") == 1
    few, more = minutes("training.steps=8000"), minutes("training.steps=16000")
    assert more == pytest.approx(2 * few, abs=1)
    assert minutes("training.steps=8000", "detector.image_size_px=256") > 2 * few
    assert minutes("training.steps=8000", "detector.model=yolo11s.yaml") > 1.5 * few
    assert minutes(f"detector.model={small_model}") is None  # unknown
    assert minutes("hosting.train.num_gpus=1") is None


@pytest.mark.parametrize("name", ["yolov5n.pt", "yolo11n-seg.pt"])
def test_check_refuses_a_name_that_is_no_release_of_a_detector(detloop, name):
    status, _, said = detloop("check", QUICKSTART, "--set", f"detector.weights={name}", "--set=training.start=weights")
    assert status == 2
    assert f"detector.weights: no file {name}, and it is" in said


def test_check_says_when_there_are_too_few_validation_images(detloop):
    plans = {num: detloop("check", QUICKSTART, "--set", f"data.world.val={num}")[1] for num in (19, 20)}
    assert "note         with 19 validation images the interval of the gain is unreliable" in plans[19]
    assert "\nnote" not in plans[20]


@pytest.mark.parametrize("name", ["bccd", "deeppcb"])
def test_init_writes_a_config_that_check_accepts(detloop, real_data, tmp_path, name):
    out = tmp_path / "mine.yaml"
    status, said, _ = detloop("init", real_data / name, "--weights", "none", "--out", out)
    assert (status, f"Next: detloop check {out}" in said) == (0, True)
    config = load([out])
    assert config.data.root == str(real_data / name)
    status, said, _ = detloop("check", out)
    assert status == 0
    images = {"bccd": "205 train, 87 val", "deeppcb": "train"}[name]
    assert images in said
    status, _, said = detloop("init", real_data / name, "--out", out)
    assert status == 2
    assert f"{out} exists already" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: no such config file"),
        (["check", CONFIGS / "bccd.yaml", "--set", "data.root=/nowhere"], "data.root: /nowhere is no folder"),
        (["data", "validate", CONFIGS / "bccd.yaml", "--set", "data.root=/nowhere"], "/nowhere is no folder"),
        (["init", "/nowhere"], "/nowhere"),
        (["export", "/nowhere", "--out", "out"], "/nowhere holds no run"),
        (["ui", "https://mlflow.example.org"], "open that address in a browser"),
        (["ui", "nowhere"], "nowhere holds no mlflow.db: no run was tracked there"),
        (["run", QUICKSTART, "--set", "tracking.uri=http://127.0.0.1:9"], "does not answer ([Errno 111] Connection"),
    ],
    ids=["config", "check", "validate", "init", "export", "ui", "ui of nothing", "server"],
)
def test_what_a_user_can_mend_is_one_message_and_status_2(detloop, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, said = detloop(*arguments)
    assert (status, out) == (2, "")
    assert said.startswith("detloop: ")
    assert message in said
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def run_folder(easy_config, new_root, tmp_path_factory):
    """A run of one round that keeps all its candidates."""
    root = new_root()
    training = {**easy_config["training"], "steps": 2, "epoch_steps": 2}
    tree = {**easy_config, "rounds": 1, "filters": [], "training": training, "root": str(root)}
    file = tmp_path_factory.mktemp("config") / "easy.yaml"
    file.write_text(yaml.safe_dump(tree))
    cli.run([file], [])
    return root / "easy"


@pytest.mark.parametrize("command", ["check", "run", "ablate", "export"])
def test_no_command_runs_the_code_in_a_model_yaml(detloop, easy_config, small_model, tmp_path, command):
    model, ran = tmp_path / "model.yaml", tmp_path / "ran"
    shutil.copy(small_model, model)
    config = {**easy_config, "root": str(tmp_path), "detector": {"model": str(model), "image_size_px": 64}}
    RunFolder.claim(LoopConfig.model_validate(config))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "ablation.yaml").write_text("name: a\narms: {only: {}}\n")
    code = f"[__import__('pathlib').Path({str(ran)!r}).touch(), nn.SiLU()][1]"
    model.write_text(model.read_text() + f'activation: "{code}"\n')
    arguments = {"ablate": [tmp_path / "run.yaml", tmp_path / "ablation.yaml"]}
    arguments["export"] = [tmp_path / "easy", "--out", tmp_path / "out"]
    status, _, error = detloop(command, *arguments.get(command, [tmp_path / "run.yaml"]))
    assert status == 2
    assert "detector.model: " in error
    assert "activation: " in error
    assert not ran.exists()


@pytest.mark.parametrize("fmt", ["coco", "yolo", "voc"])
def test_an_export_reads_back_with_what_is_synthetic_in_it(detloop, run_folder, tmp_path, fmt):
    out = tmp_path / fmt
    status, said, _ = detloop("export", run_folder, "--format", fmt, "--out", out)
    assert (status, said) == (0, f"Data set written. Its card: {out}/README.md\n")
    kept = [json.loads(file.read_text()) for file in run_folder.glob("rounds/001/kept/*.json")]
    assert len(kept) > 10
    data = import_data(DataConfig(root=str(out)), UPath(out), 0)
    assert data.report.format == fmt
    assert data.report.dropped == ()
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 8 + len(kept), "val": 8}
    assert {origin.lineage.id for origin in data.synthetic.values()} == {sample["id"] for sample in kept}
    real = {image.id for image in data.splits["train"]} - data.synthetic.keys()
    assert {origin.source for origin in data.synthetic.values()} <= real
    assert len(real) == 8


def test_an_export_refuses_what_it_does_not_know_or_would_overwrite(detloop, run_folder, tmp_path):
    status, _, said = detloop("export", run_folder, "--format", "tfrecord", "--out", tmp_path / "out")
    assert (status, "choose one of coco, yolo, voc" in said) == (2, True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep me")
    status, _, said = detloop("export", run_folder, "--out", tmp_path / "mine")
    assert (status, "is not empty" in said) == (2, True)
    assert (tmp_path / "mine/notes.txt").read_text() == "keep me"


@pytest.fixture
def broken_data(easy_data, tmp_path):
    """A copy of ``easy_data`` to break, its training pictures as JPEG, and a config for it."""
    folder = tmp_path / "data"
    shutil.copytree(easy_data, folder)
    for file in folder.glob("train/*.png"):
        Image.open(file).save(file.with_suffix(".jpg"), quality=95)
        file.unlink()
    annotations = folder / "annotations/train.json"
    annotations.write_text(annotations.read_text().replace(".png", ".jpg"))
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"name": "broken", "data": {"root": str(folder)}}))
    return config, folder


def test_validate_finds_nothing_wrong_with_whole_pictures(detloop, broken_data):
    config, _ = broken_data
    status, said, _ = detloop("data", "validate", config)
    assert status == 0
    assert "Dropped: nothing" in said
    assert "Undecodable pictures: 0" in said


def test_validate_names_a_picture_that_is_cut_off_and_fails(detloop, broken_data):
    config, folder = broken_data
    file = folder / "train/3.jpg"
    file.write_bytes(file.read_bytes()[:900])
    status, said, _ = detloop("data", "validate", config)
    assert status == 1
    assert "unreadable file" in said
    assert "train/3.jpg" in said


def test_validate_decodes_every_picture_and_fails_where_one_is_broken_inside(detloop, broken_data):
    config, folder = broken_data
    file = folder / "val/5.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:2000] + bytes(200) + whole[2200:])  # head and end mark are there
    status, said, _ = detloop("data", "validate", config)
    assert status == 1
    assert "Undecodable pictures: 1\n" in said
    assert "val/5.png" in said


def test_the_ui_is_for_this_machine_alone(monkeypatch, tmp_path):
    called = []
    (tmp_path / "mlflow.db").touch()
    monkeypatch.setattr(os, "execv", lambda *arguments: called.append(arguments))
    cli.ui(str(tmp_path), port=5001)
    ((program, command),) = called
    assert program == command[0] == sys.executable
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5001"
    assert command[command.index("--backend-store-uri") + 1] == f"sqlite:///{tmp_path}/mlflow.db"


def yolo_without_names(root):
    for index in range(6):
        for folder in ("images", "labels"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.effect_noise((64, 64), 60 + index).save(root / f"images/{index}.png")
        (root / f"labels/{index}.txt").write_text("0 .5 .5 .4 .4 .9\n1 .3 .3 .2 .2 .8\n")
    (root / "labels/0.txt").write_text("0 .5 .5 .4 .4 .9\n0 .5 .5 .4 .4 .9\n")  # a box twice
    return root


def test_init_and_check_tell_what_is_left_out_and_changed(detloop, tmp_path):
    root, out = yolo_without_names(tmp_path / "data"), tmp_path / "mine.yaml"
    status, _, said = detloop("init", root, "--weights", "none", "--out", out)
    assert status == 2
    assert "the class names are not known" in said
    assert not out.exists()
    options = ("--format", "yolo", "--classes", "red,blue", "--weights", "none", "--out", out)
    status, said, _ = detloop("init", root, *options)
    assert status == 0
    _, plan, _ = detloop("check", out)
    for text in (said, plan):
        assert "Dropped: 1 x box: exact duplicate" in text
        assert "12 of 12 label rows have numbers after the box" in text
        assert "no validation split: 1 training image held out" in text
        assert "fewer than 5 training boxes" in text
    assert load([out]).data.classes == ("red", "blue")
    assert "left out: 1, changed: 0" in out.read_text()


def test_init_says_what_was_looked_for_where_nothing_can_be_used(detloop, tmp_path):
    root = yolo_without_names(tmp_path / "data")
    for file in (root / "images").iterdir():
        file.write_bytes(b"no picture")
    status, _, said = detloop(
        "init", root, "--classes", "red,blue", "--weights", "none", "--out", tmp_path / "mine.yaml"
    )
    assert status == 2
    assert "0 usable images cannot be split" in said
    assert "Dropped: 6 x image: unreadable file" in said
