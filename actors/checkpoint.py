"""Checkpoints: one .safetensors file with float32 tensors and a JSON header. Reading one runs no code of the file."""

import json
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NewType

from upath import UPath

from actors.config import Config
from actors.records import Difficulty
from actors.storage import write_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

Checkpoint = NewType("Checkpoint", str)
"""Path or fsspec URI of a checkpoint, as a type of its own so that other paths are not mistaken for one."""

Misfit = Literal["missing", "other_shape", "other_classes", "not_of_backbone"]
"""Why a tensor of a network does not take another model's weights."""

FORMAT_VERSION = 1
MAX_HEADER_BYTES = 100_000_000  # that safetensors reads
KEY = "detloop"  # a single metadata entry: safetensors does not keep the order of several


class Header(Config):
    """The header of a checkpoint."""

    version: int = FORMAT_VERSION
    family: str
    model: str
    """Name of the architecture within the family."""
    classes: tuple[str, ...]
    image_size_px: int
    """Image size of the training."""
    attributes: dict[str, tuple[Difficulty, ...]] | None = None
    """Difficulties of the boxes of its training images, by image id, for a generator conditioned on difficulty."""


def write_checkpoint(uri: str, header: Header, tensors: Mapping[str, "Tensor"]) -> None:
    """Write a checkpoint to a path or fsspec URI, atomically. Equal tensors give equal bytes.

    Floating-point tensors are stored as float32.
    """
    from safetensors.torch import save

    about = header.model_dump_json(exclude_none=True)
    plain = {name: (t.float() if t.is_floating_point() else t).cpu().contiguous() for name, t in tensors.items()}
    write_bytes(UPath(uri), save(plain, metadata={KEY: about}))


def read_checkpoint(uri: str) -> tuple[Header, dict[str, "Tensor"]]:
    """Header and tensors on the CPU. Raises FileNotFoundError, or ValueError if it is no checkpoint of detloop."""
    header, tensors = read_tensors(uri)
    if header is None:
        raise ValueError(f"{uri}: not a checkpoint of detloop (it has no header); give a file that it wrote")
    return header, tensors


def read_tensors(uri: str) -> tuple[Header | None, dict[str, "Tensor"]]:
    """Header and tensors on the CPU of a .safetensors file; no header if detloop did not write it.

    Raises FileNotFoundError, or ValueError if it is no such file or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(UPath(uri).read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{uri}: not a checkpoint of detloop ({error!r}); give a file that it wrote") from error
    return read_header(uri), tensors


def read_header(uri: str) -> Header | None:
    """The header of a .safetensors file; None if detloop did not write it.

    Raises FileNotFoundError, or ValueError if it is no such file or of another version.
    """
    try:
        with UPath(uri).open("rb") as file:
            num_bytes = min(int.from_bytes(file.read(8), "little"), MAX_HEADER_BYTES)
            metadata = json.loads(file.read(num_bytes)).get("__metadata__") or {}
        header = Header.model_validate_json(metadata[KEY]) if KEY in metadata else None
    except (ValueError, AttributeError) as error:  # pydantic and JSON raise ValueErrors
        raise ValueError(f"{uri}: not a checkpoint of detloop ({error!r}); give a file that it wrote") from error
    if header and header.version != FORMAT_VERSION:
        raise ValueError(f"{uri}: checkpoint format {header.version}; this version of detloop reads {FORMAT_VERSION}")
    return header


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedWeights:
    """The outcome of loading the weights of another model."""

    source: str
    num_loaded: int
    left_fresh: tuple[tuple[str, Misfit], ...]  # name and reason

    @property
    def counts(self) -> dict[str, int]:
        """Number of tensors by outcome: loaded, or the reason why not."""
        return {"loaded": self.num_loaded, **Counter(reason for _, reason in self.left_fresh)}


def transfer(
    model: "nn.Module", tensors: Mapping[str, "Tensor"], source: str, head: str, by_class: AbstractSet[str]
) -> LoadedWeights:
    """Load the ``tensors`` that fit into ``model``, in place, except those named in ``by_class``.

    Raises ValueError, and leaves ``model`` unchanged, if a tensor does not fit whose name does not begin with ``head``.
    """
    own = model.state_dict()
    reasons = {name: _misfit(name, tensor, tensors.get(name), by_class) for name, tensor in own.items()}
    body = [name for name, why in reasons.items() if why and not name.startswith(head)]
    if body:
        raise ValueError(
            f"{source}: weights of another architecture: {len(body)} of {len(own)} tensors do not fit, e.g. {body[0]}"
        )
    model.load_state_dict({name: tensors[name] for name, why in reasons.items() if not why}, strict=False)
    left = tuple((name, why) for name, why in reasons.items() if why)
    return LoadedWeights(source=source, num_loaded=len(own) - len(left), left_fresh=left)


def _misfit(name: str, own: "Tensor", other: "Tensor | None", by_class: AbstractSet[str]) -> Misfit | None:
    if other is None:
        return "missing"
    if own.shape != other.shape:
        return "other_shape"
    return "other_classes" if name in by_class else None
