"""Ultralytics' releases of detectors: their names, the folder that they are kept in, and names that are none."""

import os
from difflib import get_close_matches
from pathlib import Path

_YOLOV5 = {"yolov5{}": {"n": 7.7, "s": 24.0, "m": 64.2, "l": 135.0, "x": 246.4}}
_LATER = {
    "yolov8{}": {"n": 8.7, "s": 28.6, "m": 78.9, "l": 165.2, "x": 257.8},
    "yolov9{}": {"t": 7.7, "s": 26.4, "m": 76.3, "c": 102.1, "e": 189.0},
    "yolov10{}": {"n": 6.7, "s": 21.6, "m": 59.1, "b": 92.0, "l": 120.3, "x": 160.4},
    "yolo11{}": {"n": 6.5, "s": 21.5, "m": 68.0, "l": 86.9, "x": 194.9},
    "yolo12{}": {"n": 6.5, "s": 21.4, "m": 67.5, "l": 88.9, "x": 199.0},
    "yolo26{}": {"n": 5.4, "s": 20.7, "m": 68.2, "l": 86.4, "x": 193.9},
    "rtdetr-{}": {"l": 110.0, "x": 234.0},
}

GFLOPS = {
    f"{family.format(size)}.yaml": gflops
    for family, sizes in (_YOLOV5 | _LATER).items()
    for size, gflops in sizes.items()
}
"""Billions of floating-point operations for an image of 640 px, as ultralytics publishes them, by model YAML."""

GFLOP_S = 30.0
"""Billions of floating-point operations of the forward pass that one thread trains in a second."""
IMAGE_S = 0.005
"""Seconds of a thread to load and augment a training image."""

_OLD = ("yolov3", "yolov3-spp", "yolov3-tiny", *(f"yolov5{size}{large}" for size in "nsmlx" for large in ("", "6")))

MODELS = {
    **{f"{name}u.pt": f"{name}.yaml" for name in _OLD},
    **{f"{family.format(size)}.pt": f"{family.format(size)}.yaml" for family in _LATER for size in _LATER[family]},
    **{f"yolov8{size}-oiv7.pt": f"yolov8{size}.yaml" for size in "nsmlx"},
}
"""The model YAML of each release."""

_TASKS = {
    "seg": "segmentation",
    "cls": "classification",
    "pose": "poses",
    "obb": "rotated boxes",
    "sem": "segmentation",
    "depth": "depth",
    "world": "open vocabularies",
    "worldv2": "open vocabularies",
}


def releases_folder() -> Path:
    """Where named releases are kept; a machine without a network takes them from here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "detloop" / "weights"


def is_release(place: str, *, trust_pickle: bool) -> bool:
    """Whether ``place`` names a release and not a file, which only a trusted one can be.

    Raises ValueError if it can be neither: a name that is no release, or a pickled file that is not trusted.
    """
    if place.endswith(".safetensors"):
        return False
    is_file = Path(place).is_file()
    if place in MODELS and not (trust_pickle and is_file):
        return True
    if not is_file and Path(place).name == place:
        raise ValueError(f"detector.weights: no file {place}, and it is {_other(place)}")
    if is_file and not trust_pickle:
        raise ValueError(
            f"detector.weights: {place} is a pickled file and no named release of ultralytics. Unpickling runs code "
            "that the file brings along. Set detector.trust_pickle: true if you made it or trust who did"
        )
    return False


def _other(name: str) -> str:
    """What a name that is no release stands for, and the release that may be meant."""
    stem = name.removesuffix(".pt")
    base, _, task = stem.partition("-")
    likely = [one for one in (f"{stem}u.pt", f"{base}.pt") if one in MODELS]
    near = likely or get_close_matches(name, MODELS, n=3, cutoff=0.75)
    advice = f"; try {' or '.join(near)}" if near else ""
    purpose = _TASKS.get(task)
    return f"a model for {purpose} and not for detection{advice}" if purpose else f"no release of ultralytics{advice}"
