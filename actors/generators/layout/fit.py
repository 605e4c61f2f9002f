"""Fitting the layout model (GeoDiffusion, arXiv 2306.04607, Sec. 3.3; DetDiffusion, arXiv 2403.13304, Eq. 5).

Text encoder and U-Net are trained; the VAE is not. The checkpoint is the exponential moving average of the weights.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors import boxes as geometry
from actors.fitting import NUM_PREVIEWS, FitData, Preview, Worker, read_fitted
from actors.generators.diffusion.box_masks import box_masks
from actors.generators.diffusion.instance_masks import instance_masks
from actors.generators.diffusion.learner import Learner, last_timestep, noise_of, target_of
from actors.generators.diffusion.mask_loss import FeatureTap, MaskHead, perception_loss, stack_masks
from actors.generators.layout.arrangement import ArrangementConfig
from actors.generators.layout.config import LayoutSettings, StableDiffusionConfig
from actors.generators.layout.foreground_weight import foreground_weight
from actors.generators.layout.generator import LayoutGenerator, network_input, stretched
from actors.generators.layout.network import Denoiser, LayoutNetwork, save_network
from actors.generators.layout.prompt import LayoutPrompt, PromptWriter, flipped, object_states
from actors.images import Pixels, read
from actors.precision import autocast
from actors.records import Annotation, Difficulty, LabeledImage, Lineage
from actors.seeds import derive_seed

_CACHE_BYTES = 2**30  # of pictures in memory; in larger data sets, many are read again each time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """One real image as an example for the model."""

    picture: NDArray[np.float32]  # [3, S, S] in [-1, 1]
    prompt: LayoutPrompt
    boxes: geometry.Boxes  # [k, 4] px of the real image, mirrored with the picture: those of the prompt, in its order
    masks: tuple[str, ...]  # of the boxes, as in ``LabeledImage``, never mirrored; () where the image has none
    mirrored: bool
    size: tuple[int, int]  # width and height of the real image, px
    timestep: int
    noise_seed: int

    def object_masks(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Masks ``[K, h, w]`` of the prompt's objects on a grid of ``size`` (h, w)."""
        kept = slice(len(self.prompt.spans))
        return instance_masks(self.masks[kept], self.boxes[kept], *self.size, size, mirrored=self.mirrored)


class Examples:
    """Endless examples; the one at a place in a step depends on the seed, the step and the place alone."""

    def __init__(self, config: LayoutSettings, data: FitData, writer: PromptWriter) -> None:
        self.config, self.data, self.writer = config, data, writer
        self.size_px, self.empty = config.network.size_px, LayoutPrompt(text="", kept=(), spans=(), num_cut=0)
        self.noisiest = last_timestep(config.strength)
        self.picture = lru_cache(_CACHE_BYTES // (3 * self.size_px**2))(self._picture)

    def batch(self, step: int, places: Sequence[int]) -> list[Example]:
        """The examples at ``places`` in a step."""
        return [self._example(np.random.default_rng(derive_seed(self.data.seed, "fit", step, p))) for p in places]

    def _example(self, rng: np.random.Generator) -> Example:
        number = int(rng.integers(len(self.data.images)))
        mirrored = bool(rng.integers(2)) and self.config.arrangement.flip
        image = self.data.images[number]
        annotation = flipped(image.annotation, image.width) if mirrored else image.annotation
        prompt = self._prompt(number, annotation, rng)
        dropped = rng.random() < self.config.fit.null_prompt
        return Example(
            picture=network_input(self.picture(image.uri), mirrored=mirrored),
            prompt=self.empty if dropped else prompt,
            boxes=annotation.boxes[list(prompt.kept)],
            masks=tuple(image.masks[index] for index in prompt.kept) if image.masks else (),
            mirrored=mirrored,
            size=(image.width, image.height),
            timestep=int(rng.integers(self.noisiest + 1)),
            noise_seed=int(rng.integers(2**62)),
        )

    def _picture(self, uri: str) -> Pixels:
        return stretched(read(uri), self.size_px, self.size_px)

    def _prompt(self, number: int, annotation: Annotation, rng: np.random.Generator) -> LayoutPrompt:
        image = self.data.images[number]
        return self.writer.write(annotation, image.width, image.height, self.data.difficulties[number], rng)

    def num_cut(self) -> int:
        """Number of boxes that have no room in their prompts, with each image written once."""
        rng, images = np.random.default_rng(self.data.seed), self.data.images
        return sum(self._prompt(number, image.annotation, rng).num_cut for number, image in enumerate(images))


class LayoutFit:
    """See ``actors.fitting.Fit``."""

    def __init__(self, config: LayoutSettings, data: FitData, worker: Worker) -> None:
        self.config, self.worker, self.fit = config, worker, config.fit
        self.num_steps, self.batch_size = config.fit.steps, config.fit.batch_size
        if self.batch_size % (worker.num_workers * config.fit.accumulate):
            raise ValueError(
                f"fit.batch_size ({self.batch_size}) is no multiple of {worker.num_workers} workers times "
                f"fit.accumulate ({config.fit.accumulate})"
            )
        torch.manual_seed(derive_seed(data.seed, "fit weights"))
        self.network = LayoutNetwork(config, data.classes, data.attributes, worker.device)
        self.examples = Examples(config, data, PromptWriter(config.prompt, data.classes, self.network.tokenizer))
        self.boxes_cut = self.examples.num_cut()
        denoiser = self.network.denoiser
        self.learner = Learner(denoiser, _groups(config, denoiser), self.num_steps, worker)
        if self.network.device.type == "cpu":
            _unfuse_attention(denoiser)  # not the average, which only samples
        self.perception = Perception(denoiser, self.network.device) if config.fit.mask_loss else None
        if self.perception:
            self.learner.add(self.perception.head, config.fit.learning_rate)

    def warm_start(self, uri: str) -> None:
        """Start from the weights at ``uri``."""
        own = self.network.header()
        _, weights = read_fitted(uri, own.family, own.model, own.classes)
        self.learner.warm_start(weights)

    def step(self, number: int) -> float:
        """Forward, backward, update; the mean loss over all workers' examples."""
        places = range(self.worker.rank, self.batch_size, self.worker.num_workers)
        size = len(places) // self.fit.accumulate
        parts = [places[first : first + size] for first in range(0, len(places), size)]
        return self.learner.update([partial(self._loss, number, part) for part in parts])

    def state(self) -> dict[str, Any]:
        """Network, average, optimiser, and the perception-aware loss's head if there is one."""
        return self.learner.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from an earlier ``state``."""
        self.learner.restore(state)

    def preview(self) -> list[Preview]:
        """Layouts of real images, drawn easy and hard with the same noise by the averaged weights."""
        network, average = copy(self.network), self.learner.average
        network.denoiser = cast("Denoiser", average)
        return _previews(self.config, network, self.examples.data)

    def save(self, uri: str) -> None:
        """Write the averaged weights to ``uri``, without the segmentation head."""
        save_network(self.network, self.learner.average, uri)

    def _loss(self, step: int, places: Sequence[int]) -> Tensor:
        """Foreground-weighted squared error, plus lambda times the perception-aware loss."""
        batch, network = self.examples.batch(step, places), self.network
        latents = network.encode(torch.from_numpy(np.stack([example.picture for example in batch])))
        noise = _noise(batch, network)
        timesteps = torch.tensor([example.timestep for example in batch], device=network.device)
        noisy = network.forward.add_noise(latents, noise, timesteps)
        with autocast(network.device):
            states = network.denoiser.read(network.tokens([example.prompt.text for example in batch]))
            predicted = network.denoiser(noisy, timesteps, states)
        weights = torch.from_numpy(np.stack([self._weights(example) for example in batch])).to(network.device)
        errors = (predicted - target_of(network.forward, latents, noise, timesteps)) ** 2
        loss: Tensor = (errors * weights[:, None]).mean()
        if self.perception:
            alphas = network.forward.alphas_cumprod.to(network.device)[timesteps]
            with autocast(network.device):
                loss = loss + self.fit.mask_loss * self.perception.loss(batch, states, alphas)
        return loss

    def _weights(self, example: Example) -> NDArray[np.float32]:
        masks = box_masks(example.boxes, *example.size, self.network.latent_shape[1:])
        return foreground_weight(masks, weight=self.fit.foreground_weight, power=self.fit.foreground_power)


def _unfuse_attention(denoiser: Denoiser) -> None:
    """Compute attention in separate steps: on CPUs, the fused bfloat16 kernel's backward pass is several times slower.

    Its forward pass is faster, so sampling keeps it.
    """
    from diffusers.models.attention_processor import AttnProcessor

    unet: Any = denoiser.unet
    unet.set_attn_processor(AttnProcessor())


class Perception:
    """The segmentation head on the U-Net's decoder, used only while the model is fitted."""

    def __init__(self, denoiser: Denoiser, device: torch.device) -> None:
        text: Any = denoiser.text_encoder
        self.tap = FeatureTap(denoiser.unet)
        self.head = MaskHead(self.tap.channels, text.config.hidden_size).to(device)

    def loss(self, batch: Sequence[Example], states: Tensor, alphas_cumprod_t: Tensor) -> Tensor:
        """The loss of the U-Net's last forward pass; images with an empty prompt have no objects."""
        levels = self.tap.take()
        objects, valid = object_states(states, [example.prompt for example in batch])
        logits = self.head(levels, objects)
        size = (logits.shape[2], logits.shape[3])
        masks, _ = stack_masks([example.object_masks(size) for example in batch])
        return perception_loss(logits, masks.to(logits.device), valid, alphas_cumprod_t)


def _previews(config: LayoutSettings, network: LayoutNetwork, data: FitData) -> list[Preview]:
    """A few real images with boxes, and the network's pictures of their layouts, without variations."""
    order = np.random.default_rng(derive_seed(data.seed, "preview")).permutation(len(data.images))
    boxed = [data.images[place] for place in order if not data.images[place].annotation.ignore.all()]
    images = boxed[:NUM_PREVIEWS]
    requested = tuple(Difficulty) if config.prompt.attribute else ("origin",)
    as_they_are = ArrangementConfig(flip=False, jitter=0.0, recombine=0.0)
    drawn = {}
    for strategy in requested:
        plain = config.model_copy(update={"arrangement": as_they_are, "strategy": strategy})
        drawn[str(strategy)] = LayoutGenerator(plain, images, network).generate([_lineage(one, data) for one in images])
    return [
        Preview(
            real=read(image.uri),
            annotation=variants[0].annotation,
            difficulties=network.attributes[image.id],
            drawn={name: variant.pixels for name, variant in zip(drawn, variants, strict=True)},
        )
        for image, *variants in zip(images, *drawn.values(), strict=True)
    ]


def _lineage(image: LabeledImage, data: FitData) -> Lineage:
    seed = derive_seed(data.seed, "preview", image.id)
    return Lineage(round=0, image_id=image.id, box_indices=(), generator="layout", seed=seed)


def _groups(config: LayoutSettings, denoiser: Denoiser) -> list[dict[str, Any]]:
    """AdamW's groups: the U-Net, and the text encoder with a rate of its own."""
    rate, network = config.fit.learning_rate, config.network
    share = network.text_learning_rate if isinstance(network, StableDiffusionConfig) else 1.0
    parts = (denoiser.unet, rate), (denoiser.text_encoder, rate * share)
    return [{"params": list(part.parameters()), "lr": peak} for part, peak in parts]


def _noise(batch: Sequence[Example], network: LayoutNetwork) -> Tensor:
    drawn = [noise_of(example.noise_seed, network.latent_shape) for example in batch]
    return torch.from_numpy(np.stack(drawn)).to(network.device)
