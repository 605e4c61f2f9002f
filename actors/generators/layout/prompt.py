"""Layout prompts (GeoDiffusion, arXiv 2306.04607, Sec. 3.2, Eqs. 3-4; attribute: DetDiffusion, 2403.13304, Sec. 3.2).

A layout is written as a sentence: ``An image with person <2> <23> [hard] person <17> <59> [easy]``. For each box it
gives the class, the location tokens of the top left and bottom right corners, and the difficulty. Location token
``<i>`` is bin ``i = y_bin * columns + x_bin`` of a grid over the image.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, PositiveInt

from actors import boxes as geometry
from actors.config import Config
from actors.records import Annotation, Difficulty

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import CLIPTextModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

Grid = tuple[int, int]  # columns, rows
_LOCATION = re.compile(r"<\d+>")


class LayoutPromptConfig(Config):
    """Format of the prompts. A model fitted with one format cannot read the prompts of another."""

    grid: tuple[PositiveInt, PositiveInt] = (32, 32)
    """Columns and rows of the location grid. The paper uses 256 x 256 for 118,000 images; in a few hundred, most
    of those 65,536 tokens would never occur. With 32 x 32, a token occurs 4 times per epoch on average in 200 images
    of 10 boxes, and a bin of a 64 px image is 2 px wide, as in the paper's best setting (Table 7)."""
    prefix: str = "An image with"
    """First words of a prompt."""
    attribute: bool = True
    """Each box is followed by [easy] or [hard]; false gives GeoDiffusion's prompt."""
    max_tokens: int = Field(77, ge=8)
    """Largest number of tokens of a prompt, begin and end included; further boxes are cut. CLIP's encoder reads 77."""

    @property
    def location_tokens(self) -> tuple[str, ...]:
        """The location tokens, one for each bin of the grid, row by row."""
        return tuple(f"<{index}>" for index in range(self.grid[0] * self.grid[1]))

    @property
    def attribute_tokens(self) -> tuple[str, ...]:
        """The tokens of the difficulties; none without ``attribute``."""
        return tuple(f"[{difficulty}]" for difficulty in Difficulty if self.attribute)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutPrompt:
    """The text of a layout, and the positions of its objects in it."""

    text: str
    kept: tuple[int, ...]  # [k] positions in the annotation, in the order of the text
    spans: tuple[tuple[int, int], ...]  # [k] first token and the one after the last, of the encoded prompt; bos is 0
    num_cut: int  # boxes for which there were no tokens left; ignored ones are not counted


def locations(boxes: geometry.Boxes, width: int, height: int, grid: Grid) -> "NDArray[np.int64]":
    """Location tokens ``[n, 2]`` of the top left and bottom right corners of boxes ``[n, 4]`` px (Eqs. 3-4).

    ``x_bin = floor(x / W * W_bin)``; corners on or beyond the image's border fall into the outermost bins.
    """
    bins = np.floor(boxes.reshape(-1, 2, 2) / np.array([width, height], np.float64) * grid).astype(np.int64)
    x_bin, y_bin = np.moveaxis(bins.clip(0, np.array(grid) - 1), -1, 0)
    return np.asarray(y_bin * grid[0] + x_bin, np.int64)


def located(tokens: "NDArray[np.int64]", width: int, height: int, grid: Grid) -> geometry.Boxes:
    """Boxes ``[n, 4]`` px whose corners are the centres of the bins of ``tokens`` ``[n, 2]``.

    For corners inside the image, each is at most half a bin from the one given to ``locations``.
    """
    y_bin, x_bin = np.divmod(tokens, grid[0])
    centres = (np.stack([x_bin, y_bin], axis=-1) + 0.5) / grid * (width, height)
    return centres.reshape(-1, 4).astype(np.float32)


def flipped(annotation: Annotation, width: int) -> Annotation:
    """The annotation of an image ``width`` px wide after mirroring it left to right; apply it before tokenising."""
    left, top, right, bottom = annotation.boxes.T
    return replace(annotation, boxes=np.stack([width - right, top, width - left, bottom], axis=1).astype(np.float32))


def class_words(classes: Sequence[str]) -> tuple[str, ...]:
    """Class names as written in prompts, with spaces for hyphens and underscores.

    Raises ValueError if a name is then empty, or if two are equal in lower case, which tokenizers use.
    """
    words = tuple(" ".join(re.split(r"[\s_-]+", name)).strip() for name in classes)
    if not all(words) or len({word.lower() for word in words}) < len(words):
        raise ValueError(f"classes {tuple(classes)} read as {words}: each needs words of its own; rename some")
    return words


class PromptWriter:
    """Writes prompts of layouts of ``classes`` for a tokenizer that has the config's tokens.

    Raises ValueError if it lacks some (see ``extend_vocabulary`` and ``word_tokenizer``).
    """

    def __init__(
        self, config: LayoutPromptConfig, classes: Sequence[str], tokenizer: "PreTrainedTokenizerBase"
    ) -> None:
        self.config, self.words = config, class_words(classes)
        absent = {*config.location_tokens, *config.attribute_tokens} - tokenizer.get_vocab().keys()
        if absent:
            raise ValueError(f"the tokenizer lacks {len(absent)} tokens of the layout, e.g. {min(absent)}; add them")
        lengths = [len(ids) for ids in tokenizer([config.prefix, *self.words], add_special_tokens=False).input_ids]
        self._begin = 1 + lengths[0]
        self._lengths = np.array(lengths[1:]) + 2 + config.attribute
        if self._begin + 1 > config.max_tokens:
            raise ValueError(f"prefix {config.prefix!r} takes {lengths[0]} of {config.max_tokens} tokens; shorten it")

    def write(
        self,
        annotation: Annotation,
        width: int,
        height: int,
        difficulties: Sequence[Difficulty],
        rng: np.random.Generator,
    ) -> LayoutPrompt:
        """The prompt of an image of ``width`` x ``height`` px; ``difficulties`` has one for each of its boxes.

        Boxes are written in random order, without the ignored ones. The first box that exceeds ``max_tokens`` and all
        boxes after it are cut.
        """
        order = rng.permutation(np.flatnonzero(~annotation.ignore))
        ends = self._begin + np.cumsum(self._lengths[annotation.labels[order]])
        kept = order[ends < self.config.max_tokens]
        corners = locations(annotation.boxes[kept], width, height, self.config.grid)
        objects = [
            self._object(int(annotation.labels[index]), corner, difficulties[index])
            for index, corner in zip(kept, corners, strict=True)
        ]
        starts = ends - self._lengths[annotation.labels[order]]
        return LayoutPrompt(
            text=" ".join([self.config.prefix, *objects]),
            kept=tuple(kept.tolist()),
            spans=tuple(zip(starts[: len(kept)].tolist(), ends[: len(kept)].tolist(), strict=True)),
            num_cut=len(order) - len(kept),
        )

    def _object(self, label: int, corners: "NDArray[np.int64]", difficulty: Difficulty) -> str:
        attribute = [f"[{difficulty}]"] if self.config.attribute else []
        return " ".join([self.words[label], *(f"<{corner}>" for corner in corners), *attribute])


def object_states(states: "Tensor", prompts: Sequence[LayoutPrompt]) -> tuple["Tensor", "Tensor"]:
    """Mean text state of each object's tokens ``[B, K, D]``, and which objects exist ``[B, K]`` bool.

    ``states`` ``[B, T, D]`` are the text encoder's for ``prompts``. K is the largest number of objects, at least 1.
    """
    import torch

    num_objects = max(1, *(len(prompt.spans) for prompt in prompts))
    shares = np.zeros((len(prompts), num_objects, states.shape[1]), np.float32)
    for row, prompt in zip(shares, prompts, strict=True):
        for place, (start, stop) in enumerate(prompt.spans):
            row[place, start:stop] = 1 / (stop - start)
    weights = torch.from_numpy(shares).to(states.device)
    return torch.bmm(weights.to(states.dtype), states), weights.any(dim=-1)


def location_embeddings(grid: Grid, size: int) -> "NDArray[np.float32]":
    """2-D sine-cosine embeddings ``[columns * rows, size]`` of a grid's bins: half for x, half for y, of equal norm.

    Raises ValueError if ``size`` is no multiple of 4.
    """
    if size % 4:
        raise ValueError(f"embeddings of size {size} cannot be split in four; use a multiple of 4")
    frequencies = 10_000.0 ** -(np.arange(size // 4) / (size // 4))
    y_bin, x_bin = np.divmod(np.arange(grid[0] * grid[1]), grid[0])
    angles = [place[:, None] * frequencies for place in (x_bin, y_bin)]
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1).astype(np.float32)


def extend_vocabulary(
    tokenizer: "PreTrainedTokenizerBase", text_encoder: "CLIPTextModel", config: LayoutPromptConfig
) -> int:
    """Add the config's tokens to a pretrained pair, in place; returns the number of tokens new to the tokenizer.

    New location embeddings are 2-D sine-cosine, scaled to the mean norm of the words'; an attribute's is initialised
    with its word's (the papers do not say). All are trained like the rest. Existing tokens, as of a model fitted
    before, keep their embeddings. Raises ValueError if they are of another grid, or if the encoder reads fewer tokens
    than ``config.max_tokens``.
    """
    from transformers import AddedToken

    _check_fits(tokenizer, text_encoder, config)
    known = tokenizer.get_vocab()
    absent = [one for one in (*config.location_tokens, *config.attribute_tokens) if one not in known]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in absent])
    if len(tokenizer) > len(_embeddings(text_encoder)):
        text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if config.location_tokens[0] in absent:
        place_locations(tokenizer, text_encoder, config)
    for token in set(config.attribute_tokens) & set(absent):
        words = tokenizer(token.strip("[]"), add_special_tokens=False).input_ids
        weight = _embeddings(text_encoder)
        weight[tokenizer.convert_tokens_to_ids(token)] = weight[words].mean(dim=0)
    return len(absent)


def _check_fits(
    tokenizer: "PreTrainedTokenizerBase", text_encoder: "CLIPTextModel", config: LayoutPromptConfig
) -> None:
    num_known = sum(_LOCATION.fullmatch(word) is not None for word in tokenizer.get_vocab())
    if num_known not in (0, len(config.location_tokens)):
        raise ValueError(f"the tokenizer has {num_known} location tokens, of another grid than {config.grid}")
    limit = text_encoder.config.max_position_embeddings
    if config.max_tokens > limit:
        raise ValueError(f"max_tokens: {config.max_tokens}, but the text encoder reads at most {limit}")


def place_locations(
    tokenizer: "PreTrainedTokenizerBase", text_encoder: "CLIPTextModel", config: LayoutPromptConfig
) -> None:
    """Set the location tokens' embeddings to sine-cosine ones with the other tokens' mean norm, in place."""
    import torch

    weight = _embeddings(text_encoder)
    places = torch.tensor(tokenizer.convert_tokens_to_ids(list(config.location_tokens)), device=weight.device)
    words = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
    words[places] = False
    waves = torch.from_numpy(location_embeddings(config.grid, weight.shape[1])).to(weight.device)
    norm = weight[words].float().norm(dim=1).mean()
    weight[places] = (waves / waves.norm(dim=1, keepdim=True) * norm).to(weight.dtype)


def _embeddings(text_encoder: "CLIPTextModel") -> "Tensor":
    """The token embeddings ``[num_tokens, D]``, writable."""
    table: Any = text_encoder.get_input_embeddings()
    weights: Tensor = table.weight.data
    return weights


def word_tokenizer(config: LayoutPromptConfig, classes: Sequence[str]) -> "PreTrainedTokenizerFast":
    """A new tokenizer, whose vocabulary is the words of prompts of ``classes``.

    It is called, saved and loaded like CLIP's, and raises on unknown words.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = " ".join([config.prefix, *class_words(classes)]).lower().split()
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    known = dict.fromkeys([*special.values(), *words, *config.attribute_tokens, *config.location_tokens])
    vocabulary = {word: index for index, word in enumerate(known)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(name, vocabulary[name]) for name in ("<bos>", "<eos>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=config.max_tokens, **special)
