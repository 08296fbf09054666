"""The most memory that a training step holds, without a machine that has as much.

    python -m benchmarks.activations two_views --views 2 7
    python -m benchmarks.activations two_views model.checkpointing=false batch_size=8 --views 7

Loss, gradients and Adam's step are computed of tensors that have shapes and no contents, so any
config takes seconds. The most that is allocated at once is counted: weights, their gradients and
Adam's moments, and activations. A GPU's allocator needs some tenths more.
"""

import argparse
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from canonlift.training import checkpoint, loop, runs
from canonlift.training import config as configs
from canonlift.training.schedule import Progress
from canonlift.types import Target, Views


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors made within that still exist, and the most of them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        """Compute, and count what is new."""
        found = func(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if isinstance(value, torch.Tensor):
                self._note(value.untyped_storage())
        return found

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def most_held(config: configs.Config, n_views: int) -> int:
    """Bytes of a step of the first phase."""
    shape = config.batch_size, n_views, config.windows.length, len(config.joints)
    with FakeTensorMode(), Held() as held, tempfile.TemporaryDirectory() as folder:
        with mock.patch.object(torch.nn.init, "trunc_normal_"):  # looks at what it has drawn
            network = checkpoint.new_network(config)
        optimiser = runs.optimiser_of(network, config.schedule[0])
        run = runs.Run(Path(folder), config, Progress(), network, optimiser, {}, {})
        target = Target(torch.zeros(*shape, 3), torch.ones(shape))
        rig = torch.zeros(shape[0], dtype=torch.long)
        views = Views(torch.zeros(*shape, 2), torch.ones(shape), rig, target)
        loop.descend(run, loop.objective(run), views, 1e-4)
    return held.most


def main(argv: Sequence[str] | None = None) -> None:
    """Print the gigabytes of a config for each number of views."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="its path or name")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--views", nargs="+", type=int, default=[2, 4, 7])
    args = parser.parse_intermixed_args(argv)
    config = configs.load(args.config, args.overrides)
    for n_views in args.views:
        print(f"{n_views} views: {most_held(config, n_views) / 1e9:.1f} GB", flush=True)


if __name__ == "__main__":
    main()
