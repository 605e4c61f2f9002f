"""The trainer of the family: plain torch on the batches of the job's mixture."""

import time

from loop.hosting.records import Progress
from loop.training.base import Trained


def check_settings(overrides):
    if unknown := overrides.keys() - {"rate"}:
        raise ValueError(f"training.overrides: {sorted(unknown)}: unknown to tiny; known: rate")


def train(job, network, place, _memory, progress):
    import torch
    from tiny_detectors import cell_loss

    from loop.training.batches import MixedImages, MixtureSampler

    plan, mixture = job.training, job.mixture()
    loader = torch.utils.data.DataLoader(
        MixedImages.of(job, Images),
        batch_size=mixture.batch_size // place.num_workers,
        sampler=MixtureSampler(mixture, plan.epoch_steps, place.rank, place.num_workers),
        collate_fn=list,
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=job.training.overrides.get("rate", 0.01))
    network.train()
    losses, began = [], time.perf_counter()
    for step, batch in enumerate(loader, start=1):
        logits = network["head"](network["body"](torch.stack([one["pixels"] for one in batch])))
        loss = cell_loss(logits, [one["annotation"] for one in batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % plan.epoch_steps == 0:
            losses.append({"step": step, "loss": loss.item()})
            progress(Progress(step=step, steps=plan.steps, loss=loss.item(), images_per_s=0.0))
    return Trained(
        network=network,
        losses=tuple(losses),
        seconds=time.perf_counter() - began,
        images=plan.steps * plan.batch_size,
        precision="float32",
    )


class Images:
    """Images at their own size, mirrored half of the time by the draw's random numbers."""

    def __init__(self, records):
        self.records = records

    def __getitem__(self, index):
        import torch

        from actors import images

        record = self.records[index]
        pixels = torch.from_numpy(images.read(record.uri).copy()).permute(2, 0, 1).float() / 255
        return {"pixels": pixels, "annotation": record.annotation}
