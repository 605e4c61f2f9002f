"""Compare the speed of fitting and sampling the layout model with plain diffusers loops. Run by speed.py.

Both sides have the same network, batch, optimiser (AdamW), gradient clipping, moving average of the weights and number
of sampling steps. The plain fit is diffusers' ``train_text_to_image``, with images in memory and prompts written in
advance; ours writes, shuffles and weights each layout at every step. The plain sampling is the loop of
``StableDiffusionPipeline.__call__``, guided in one batch of double size. It ends at the network's images; ours ends at
candidates. The small network has its default size. Stable Diffusion has random weights, once with a quarter of its
channels, and once in the tiny size of the tests, whose figures show the overhead of a step beside the network.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from random_stable_diffusion import stable_diffusion
from speed_sampling import dtypes
from torch import Tensor
from torch.nn import functional
from turns import headline, in_turns, ratio_to_best

from actors.fitting import FitData, Worker
from actors.generators.diffusion.learner import noise_of, sampling_timesteps
from actors.generators.layout.component import LayoutConfig
from actors.generators.layout.fit import LayoutFit
from actors.generators.layout.generator import LayoutGenerator
from actors.generators.layout.network import LayoutNetwork, Order
from actors.images import Pixels
from actors.records import Annotation, Difficulty, LabeledImage, Lineage

CLASSES = ("disc", "square", "triangle")
NUM_PICTURES, NUM_BOXES = 64, 6
FIT_STEPS = 2  # per turn
NUM_DRAWN = 16
SAMPLING_STEPS = 10  # each costs the same

Calls = dict[str, Callable[[], object]]
Figures = dict[str, Any]


def measure_layout() -> Figures:
    """Ours at its default precision. Plain: in float32 and at our precision; the ratios refer to the faster one.

    ``layout_fit_ratio`` is without the perception-aware loss, which plain lacks; the ratio with it, our default, is
    reported separately. Both ratios are for the small network.
    """
    with tempfile.TemporaryDirectory() as folder:
        networks = {
            "small": {"kind": "small", "size_px": 64},
            "narrow_stable_diffusion": stable_diffusion(Path(folder) / "1.5", narrow=True),
            "tiny_stable_diffusion": stable_diffusion(Path(folder) / "tiny", narrow=False),
        }
        cases = {name: compare(network, Path(folder) / name) for name, network in networks.items()}
    return {
        "layout_fit_ratio": headline(cases["small"]["fit"]),
        "layout_sampling_ratio": headline(cases["small"]["sampling"]),
        "layout": cases,
    }


def compare(network: dict[str, Any], folder: Path) -> dict[str, Figures]:
    """Figures of fitting and sampling one network, with files in ``folder``."""
    folder.mkdir()
    data = layouts(folder, network["size_px"])
    config = LayoutConfig.model_validate(
        {"network": network, "sampling_steps": SAMPLING_STEPS, "arrangement": {"flip": False}}
    )
    fit = in_turns(FIT_STEPS * config.fit.batch_size, fit_calls(config, data))
    at_defaults = fit.pop("ours_at_defaults")
    drawing = sampling_calls(config, data, folder)
    sampling = in_turns(NUM_DRAWN, drawing)
    return {
        "fit": {
            **fit,
            **ratio_to_best(fit),
            "at_defaults": {**at_defaults, **ratio_to_best({**fit, "ours": at_defaults})},
        },
        "sampling": {
            **sampling,
            **ratio_to_best(sampling),
            "grey_levels_apart": grey_levels_apart(drawing),
        },
    }


def grey_levels_apart(calls: dict[str, Callable[[], list[Pixels]]]) -> dict[str, float]:
    """Mean pixel difference of ours to each other call: all should give the same images, in several precisions."""
    pictures = {name: np.stack(call()).astype(np.int16) for name, call in calls.items()}
    ours = pictures.pop("ours")
    return {name: round(float(np.abs(others - ours).mean()), 2) for name, others in pictures.items()}


# --- fitting


def fit_calls(config: LayoutConfig, data: FitData) -> Calls:
    """A few steps of ours without and with the perception-aware loss, and of the plain loop."""
    base = config.model_copy(update={"fit": config.fit.model_copy(update={"mask_loss": 0.0})})
    calls: Calls = {
        "ours": partial(take, our_steps(base, data)),
        "ours_at_defaults": partial(take, our_steps(config, data)),
    }
    plain = {f"plain_{name}": partial(take, plain_steps(base, data, dtype)) for name, dtype in dtypes().items()}
    return calls | plain


def take(steps: Iterator[object]) -> None:
    """Take the steps of one turn."""
    for _ in range(FIT_STEPS):
        next(steps)


def our_steps(config: LayoutConfig, data: FitData) -> Iterator[float]:
    """Steps of our fit; each item is the loss of a step."""
    fit = LayoutFit(config, data, Worker(device="cuda" if torch.cuda.is_available() else "cpu"))
    yield from map(fit.step, range(fit.num_steps))


def plain_steps(config: LayoutConfig, data: FitData, dtype: torch.dtype) -> Iterator[Tensor]:
    """Steps of ``train_text_to_image`` with ``--use_ema`` and the text encoder; each item is the loss of a step."""
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    network = seeded_network(config, data)
    denoiser = network.denoiser.to(memory_format=torch.contiguous_format)
    weights = list(denoiser.parameters())
    optimizer = torch.optim.AdamW(weights, lr=config.fit.learning_rate, weight_decay=1e-2)
    rates: Any = get_scheduler(
        "cosine", optimizer, num_warmup_steps=config.fit.steps // 20, num_training_steps=config.fit.steps
    )
    average: Any = EMAModel(weights, decay=0.995, foreach=True)
    for pictures, tokens in plain_batches(config, data, network):
        with torch.autocast(network.device.type, dtype, enabled=dtype != torch.float32):
            loss = plain_loss(network, pictures, tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
        average.step(weights)
        yield loss.detach()


def plain_batches(config: LayoutConfig, data: FitData, network: LayoutNetwork) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless random batches of images ``[b, 3, S, S]`` in [-1, 1] and the tokens ``[b, T]`` of their prompts."""
    generator = LayoutGenerator(config, data.images, network)
    texts = [order.text for order in orders(generator, data)]
    side = config.network.size_px
    loaded = [np.asarray(Image.open(image.uri).resize((side, side))) for image in data.images]
    pictures = torch.from_numpy(np.stack(loaded)).permute(0, 3, 1, 2).to(network.device) / 127.5 - 1
    while True:
        chosen = torch.randint(len(texts), (config.fit.batch_size,))
        yield pictures[chosen.to(network.device)], network.tokens([texts[index] for index in chosen.tolist()])


def plain_loss(network: LayoutNetwork, pictures: Tensor, tokens: Tensor) -> Tensor:
    """Squared error of the prediction, at random timesteps."""
    if network.vae is not None:
        with torch.no_grad():
            vae = network.vae.network
            pictures = vae.encode(pictures).latent_dist.sample() * vae.config.scaling_factor
    noise = torch.randn_like(pictures)
    timesteps = torch.randint(network.forward.config.num_train_timesteps, (len(pictures),), device=pictures.device)
    noisy = network.forward.add_noise(pictures, noise, timesteps)
    states = network.denoiser.text_encoder(tokens, return_dict=False)[0]
    predicted = network.denoiser.unet(noisy, timesteps, states, return_dict=False)[0]
    is_noise = network.forward.config.prediction_type == "epsilon"
    target = noise if is_noise else network.forward.get_velocity(pictures, noise, timesteps)
    return functional.mse_loss(predicted.float(), target.float(), reduction="mean")


# --- sampling


def sampling_calls(config: LayoutConfig, data: FitData, folder: Path) -> dict[str, Callable[[], list[Pixels]]]:
    """Ours: ``generate`` with the default batch size. Plain: the same images in one batch."""
    place, fit = str(folder / f"{config.network.kind}.safetensors"), LayoutFit(config, data, Worker(device="cpu"))
    fit.save(place)
    generator: Any = config.build(data.images, CLASSES, place)
    requested, weights = orders(generator, data)[:NUM_DRAWN], fit.learner.average.state_dict()

    def plain(dtype: torch.dtype) -> Callable[[], list[Pixels]]:
        network = LayoutNetwork(config, CLASSES, {})
        network.denoiser.load_state_dict(weights)
        for part in (network.denoiser, network.vae and network.vae.network):
            if part is not None:
                part.to(dtype=dtype, memory_format=torch.contiguous_format)
        return partial(plain_sampling, network, requested, dtype)

    lineages = [lineage(image) for image in data.images[:NUM_DRAWN]]
    calls: dict[str, Callable[[], list[Pixels]]] = {
        "ours": lambda: [candidate.pixels for candidate in generator.generate(lineages)]
    }
    return calls | {f"plain_{name}": plain(dtype) for name, dtype in dtypes().items()}


@torch.no_grad()
def plain_sampling(network: LayoutNetwork, requested: Sequence[Order], dtype: torch.dtype) -> list[Pixels]:
    """The loop of ``StableDiffusionPipeline.__call__``, with our timesteps and noise."""
    from diffusers import DPMSolverMultistepScheduler

    config, device = network.config, network.device
    tokens = network.tokens([order.text for order in requested])
    negative = network.tokens([""] * len(requested))
    states = network.denoiser.text_encoder(torch.cat([negative, tokens]), return_dict=False)[0]
    scheduler: Any = DPMSolverMultistepScheduler.from_config({**network.forward.config, "final_sigmas_type": "zero"})
    scheduler.set_timesteps(timesteps=sampling_timesteps(config.strength, config.sampling_steps))
    noise = np.stack([noise_of(order.seed, network.latent_shape) for order in requested])
    latents = torch.from_numpy(noise).to(device, dtype) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        both = scheduler.scale_model_input(torch.cat([latents] * 2), timestep)
        without, conditioned = network.denoiser.unet(both, timestep, states, return_dict=False)[0].chunk(2)
        latents = scheduler.step(
            without + config.guidance * (conditioned - without), timestep, latents, return_dict=False
        )[0]
    if network.vae is not None:
        vae = network.vae.network
        latents = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    pictures = ((latents / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy() * 255).round()
    return list(pictures.astype(np.uint8))


# --- inputs of both sides


def seeded_network(config: LayoutConfig, data: FitData) -> LayoutNetwork:
    """A network with the same random weights at every call."""
    torch.manual_seed(0)
    return LayoutNetwork(config, data.classes, data.attributes)


def orders(generator: LayoutGenerator, data: FitData) -> list[Order]:
    """The order of each image."""
    return [generator._draft(lineage(image))[0] for image in data.images]


def lineage(image: LabeledImage) -> Lineage:
    """The lineage of an image generated from the layout of ``image``."""
    return Lineage(round=0, image_id=image.id, box_indices=(), generator="layout", seed=int(image.id))


def layouts(folder: Path, size_px: int) -> FitData:
    """Square images of ``size_px`` with boxes on noise."""
    rng = np.random.default_rng(0)
    images = tuple(write_layout(folder, number, size_px, rng) for number in range(NUM_PICTURES))
    difficulties = tuple(tuple(Difficulty) * (NUM_BOXES // 2) for _ in images)
    return FitData(classes=CLASSES, images=images, difficulties=difficulties, seed=0)


def write_layout(folder: Path, number: int, size_px: int, rng: np.random.Generator) -> LabeledImage:
    """Write one image and return its record."""
    most = size_px // 3
    corners, sides = (rng.integers(*span, (NUM_BOXES, 2)) for span in ((0, size_px - most), (most // 2, most)))
    labels = rng.integers(0, len(CLASSES), NUM_BOXES)
    pixels = rng.integers(80, 140, (size_px, size_px, 3), dtype=np.uint8)
    for (x, y), (w, h), label in zip(corners, sides, labels, strict=True):
        pixels[y : y + h, x : x + w] = label * 80
    path = folder / f"{number}.png"
    Image.fromarray(pixels).save(path)
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    annotation = Annotation(boxes=boxes, labels=labels.astype(np.int64), ignore=np.zeros(NUM_BOXES, np.bool_))
    return LabeledImage(id=str(number), uri=str(path), width=size_px, height=size_px, annotation=annotation)
