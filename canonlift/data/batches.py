"""Shuffled batches without end, the same for the same seed and step however a run is cut up."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar, cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from canonlift import distributed
from canonlift.body import skeleton
from canonlift.data.frames import map_views
from canonlift.data.windows import Samples
from canonlift.types import Views

T = TypeVar("T")

BLOCK = 128  # samples that stay together on their way from disk: 0.1 to 1 MB


def stream(
    samples: Samples, batch_size: int, seed: int, first: int
) -> Iterator[tuple[Int[Tensor, " B"], Views]]:
    """Shuffled batches without end: the numbers of their samples, and this process's share."""
    wanted = chunks(len(samples), batch_size, seed, first, samples.capacity)
    loaded_chunks = ((chunk, *samples.load(distributed.share(chunk))) for chunk in wanted)
    if samples.capacity is not None and samples.frames.device.type != "cpu":
        loaded_chunks = ahead(loaded_chunks)  # memory for two chunks
    for chunk, loaded, places in loaded_chunks:
        for numbers, place in zip(chunk, places, strict=True):
            yield numbers, loaded[place]


def ahead(values: Iterator[T]) -> Iterator[T]:
    """The same values, each of which a thread makes while the one before is used."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, values, end)
        while (value := coming.result()) is not end:
            coming = thread.submit(next, values, end)
            yield cast(T, value)


def chunks(
    n_samples: int, batch_size: int, seed: int, first: int, capacity: int | None = None
) -> Iterator[Int[Tensor, "N B"]]:
    """Numbers of the samples of shuffled batches, without end, from batch number `first` on.

    A batch depends on the seed and its number alone, so a resumed run gets what the killed one
    would have got. The few samples left over at the end of an epoch wait for another one.

    A chunk is as many batches as are made of `capacity` samples that are shuffled together:
    blocks of BLOCK neighbours from anywhere. So every epoch has every sample once, but neighbours
    are likelier than others to be in one batch.
    """
    batch_size = min(batch_size, n_samples)
    per_epoch = n_samples // batch_size
    n_chunks = 1 if capacity is None else -(-n_samples // max(capacity, batch_size))
    per_chunk = -(-per_epoch // n_chunks)
    for epoch in itertools.count(first // per_epoch):
        skip = first % per_epoch if epoch == first // per_epoch else 0
        blocks = torch.arange(0, n_samples, BLOCK if n_chunks > 1 else n_samples)
        blocks = blocks[torch.randperm(len(blocks), generator=_generator(seed, epoch, -1))]
        for number in range(skip // per_chunk, -(-per_epoch // per_chunk)):
            begin = number * per_chunk
            end = min(begin + per_chunk, per_epoch)
            until = n_samples if end == per_epoch else end * batch_size
            members = _members(blocks, n_samples, begin * batch_size, until)
            shuffling = _generator(seed, epoch, number)
            order = members[torch.randperm(len(members), generator=shuffling)]
            order = order[: (end - begin) * batch_size].view(-1, batch_size)
            yield order[max(skip - begin, 0) :]


def _members(blocks: Int[Tensor, " N"], n_samples: int, begin: int, end: int) -> Tensor:
    """The `begin`th to the `end`th of the samples in blocks that start there, in their order."""
    if len(blocks) == 1:
        return torch.arange(n_samples)
    before = (n_samples - blocks).clamp_max(BLOCK).cumsum(0)
    place = torch.arange(begin, end)
    block = torch.searchsorted(before, place, right=True)
    start = before[block] - (n_samples - blocks[block]).clamp_max(BLOCK)
    return (blocks[block] + place - start).sort().values


def _generator(seed: int, epoch: int, number: int) -> torch.Generator:
    plain = seed * 1_000_003 + epoch
    if number == 0:  # as it is where everything is one chunk
        return torch.Generator().manual_seed(plain)
    mixed = np.random.SeedSequence((seed, epoch, number + 1)).generate_state(1)
    return torch.Generator().manual_seed(int(mixed[0]))  # torch uses 32 bits of it


def flip(views: Views, joints: Sequence[str]) -> Views:
    """The same people and cameras in a mirror: x changes sign, left and right change names."""
    partner = _partners(tuple(joints), views.keypoints.device)

    def mirror(points: Tensor) -> Tensor:
        points = points[..., partner, :]
        return torch.cat([-points[..., :1], points[..., 1:]], dim=-1)

    return map_views(views, mirror, lambda weights: weights[..., partner])


@cache
def _partners(joints: tuple[str, ...], device: torch.device) -> Int[Tensor, " J"]:
    """Kept, because moving it to a device waits for the device."""
    return torch.tensor(skeleton.mirrored(joints), device=device)
