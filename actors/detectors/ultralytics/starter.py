"""The detector that ``detloop init`` writes: from weights where there are any, else from random ones."""

import json
import threading
import urllib.request
from http.client import HTTPException
from pathlib import Path

from actors.checkpoint import read_header
from actors.detectors.base import SCRATCH, Starter
from actors.detectors.ultralytics.releases import MODELS, is_release, releases_folder

RELEASE = "yolo11n.pt"
_URL = "https://github.com/ultralytics/assets/releases/download/v8.4.0/"
_WAIT_S = 4.0  # for an answer of the server

_LICENCE = "  kind: ultralytics ## this package is AGPL-3.0: see Licences in the README"


def starter(weights: str | None) -> Starter:
    """The detector for ``weights``: a release, a file, ``SCRATCH``, or the default release if it can be had.

    Raises FileNotFoundError or ValueError where ``weights`` is neither a release nor a file.
    """
    if weights == SCRATCH:
        return _from_scratch("")
    if weights is None and not is_at_hand(RELEASE):
        return _from_scratch(
            f"{RELEASE} is not in {releases_folder()} and cannot be downloaded now, so the detector starts from random "
            "weights and needs many more steps. To start from COCO weights, put the file there and run init again, or "
            "give a file with --weights"
        )
    return _from_weights(weights or RELEASE)


def _from_scratch(note: str) -> Starter:
    lines = [
        _LICENCE,
        "  model: yolo11n.yaml",
        f"  # weights: {RELEASE} ## to start from COCO weights, with training.start: weights",
    ]
    overrides = "{optimizer: AdamW, lr0: 0.002} ## for few steps from random weights; ultralytics would choose less"
    return Starter(section="\n".join(lines), overrides=overrides, weights=None, note=note)


def _from_weights(weights: str) -> Starter:
    trusted = weights.endswith((".pt", ".pth")) and Path(weights).is_file()
    named = is_release(weights, trust_pickle=trusted)
    if not named and not Path(weights).is_file():
        raise FileNotFoundError(f"--weights {weights}: there is no such file")
    place = weights if named else str(Path(weights).absolute())
    lines = [
        _LICENCE,
        f"  model: {_model(weights)} ## the architecture of the weights",
        f"  weights: {json.dumps(place, ensure_ascii=False)} ## the head starts fresh for other classes",
    ]
    if trusted and not named:
        lines.append("  trust_pickle: true ## loading a .pt runs code that it brings along: only for files you trust")
    overrides = "{} ## ultralytics chooses optimizer and learning rate, lower than from random weights"
    return Starter(section="\n".join(lines), overrides=overrides, weights=place, note="")


def _model(weights: str) -> str:
    """The model YAML: by the header of our checkpoints, else by the name, else the default release's."""
    if weights.endswith(".safetensors") and (header := read_header(weights)):
        return header.model
    name = Path(weights).name
    likely = [release for release in MODELS if name.startswith(release.removesuffix(".pt"))]
    return MODELS[max(likely, key=len, default=RELEASE)]


def is_at_hand(release: str) -> bool:
    """Whether a release is in its folder or can be downloaded; asks the server, and waits a few seconds at most."""
    return (releases_folder() / release).is_file() or _is_reachable(_URL + release)


def _is_reachable(url: str) -> bool:
    answers: list[int] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - https, a constant
            with urllib.request.urlopen(request, timeout=_WAIT_S) as answer:  # noqa: S310
                answers.append(answer.status)
        except (OSError, HTTPException):
            return

    thread = threading.Thread(target=ask, daemon=True)  # the look-up of the name has no timeout of its own
    thread.start()
    thread.join(_WAIT_S)
    return bool(answers)
