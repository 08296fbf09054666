"""Training of one network on parts of every batch: by several processes, or one after another.

`torchrun` starts them and gives each a rank; the first process has rank 0. They talk by gloo on
CPUs and NCCL on GPUs. In a process that torchrun did not start, these functions have no effect.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

T = TypeVar("T")

# How long a process that hangs is waited for. When one ends, torchrun ends the others in seconds.
STEP_TIMEOUT = timedelta(minutes=10)
LONG_TIMEOUT = timedelta(days=2)  # while the first process simulates recordings or writes shards
_long_group: list[dist.ProcessGroup] = []  # all processes, with LONG_TIMEOUT
_in_parts: list["Parts"] = []  # the batch that is being computed, where that is in parts


class Lost(Exception):
    """Another process of this run has ended or does not answer."""


def is_first() -> bool:
    """Whether this process is the only one or has rank 0; only it writes files and prints."""
    return not dist.is_torchelastic_launched() or os.environ["RANK"] == "0"


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Connect the processes that torchrun started, if it did; only the first one prints meanwhile.

    Raises:
        Lost: if another process fails while this one waits for it.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=STEP_TIMEOUT)
    _long_group.append(
        cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=LONG_TIMEOUT))
    )
    try:
        with contextlib.ExitStack() as stack:
            if not is_first():
                devnull = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(devnull))
            if device.type == "cuda":  # or every process would take memory of the first GPU too
                torch.cuda.set_device(own_device(device))
            yield
    except RuntimeError as error:
        if _is_connection_error(error):
            raise Lost(
                "another process of this run has ended or does not answer, so this one stops "
                "too; continue with --resume, with any number of processes"
            ) from error
        raise
    finally:
        leave()


def leave() -> None:
    """Disconnect from the other processes; each then computes and prints by itself."""
    if dist.is_initialized():
        _long_group.clear()
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """The device of this process; of several GPUs the one numbered as the process is."""
    if not dist.is_initialized() or device.type != "cuda":
        return device
    number, n_devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= n_devices or (device.index is not None and dist.get_world_size() > 1):
        raise ValueError(
            f"{os.environ['LOCAL_WORLD_SIZE']} processes here for device {str(device)!r}, and "
            f"{n_devices} GPU(s): start at most one per GPU, with device=cuda or auto"
        )
    return torch.device("cuda", number if device.index is None else device.index)


def share(batches: Tensor) -> Tensor:
    """This process's part of every row; lengths of the parts differ by at most one."""
    if not dist.is_initialized():
        return batches
    if batches.shape[1] < dist.get_world_size():
        raise ValueError(
            f"a batch of {batches.shape[1]} cannot be split over {dist.get_world_size()} "
            "processes; start fewer, or raise batch_size"
        )
    return batches.tensor_split(dist.get_world_size(), dim=1)[dist.get_rank()]


def over_all(*sums: Float[Tensor, ""]) -> tuple[Float[Tensor, ""], ...]:
    """Sums over the whole batch, from sums over one part of it.

    Gradients are those of this part, times the number of parts. Their average over the parts is
    the gradient of the whole batch for any function of the sums. (A mean of the parts' means would
    give too much weight to parts with few observations.)
    """
    if not (dist.is_initialized() or _in_parts):
        return sums
    own = torch.stack(sums)
    if _in_parts:
        whole, n_parts = _in_parts[-1].whole(own.detach()), _in_parts[-1].count
    else:
        whole, n_parts = own.detach().clone(), 1
        dist.all_reduce(whole)
    if dist.is_initialized():
        n_parts *= dist.get_world_size()
    return (whole + n_parts * (own - own.detach())).unbind()


class Parts:
    """A batch that is computed in parts, one after another, and twice: first for its sums.

    Meanwhile `over_all` returns, for each of its calls, the sum over all parts. So every part
    calls it for the same sums in the same order.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.sums: list[Tensor] = []
        self.called = 0  # times, for the present part
        self.complete = False

    @contextlib.contextmanager
    def part(self) -> Iterator[None]:
        """In which one part is computed."""
        self.called = 0
        _in_parts.append(self)
        try:
            yield
        finally:
            _in_parts.pop()

    def add_up(self) -> None:
        """After the first time: from now on sums are those of all parts of all processes."""
        self.complete = True
        if dist.is_initialized():
            whole = torch.cat(self.sums)
            dist.all_reduce(whole)
            self.sums = list(whole.split([len(sums) for sums in self.sums]))

    def whole(self, own: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The sums of all parts, as far as they have been computed."""
        if not self.complete and self.called == len(self.sums):
            self.sums.append(torch.zeros_like(own))
        if not self.complete:
            self.sums[self.called] += own
        self.called += 1
        return self.sums[self.called - 1]


def start_alike(module: nn.Module) -> None:
    """Give the module the weights that it has in the first process."""
    if dist.is_initialized():
        for weight in module.state_dict().values():
            dist.broadcast(weight, 0)


def average_gradients(module: nn.Module) -> None:
    """Average the gradients over all processes, in one message.

    Every process has gradients of the same weights; those without stay without. (Not left to
    DistributedDataParallel, which cannot both find those and be silent until the last part.)
    """
    if not dist.is_initialized():
        return
    own = [p.grad for p in module.parameters() if p.grad is not None]
    whole = torch.cat([gradient.flatten() for gradient in own]) / dist.get_world_size()
    dist.all_reduce(whole)
    for gradient, average in zip(own, whole.split([g.numel() for g in own]), strict=True):
        gradient.copy_(average.view_as(gradient))


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns in the first process; the others wait up to LONG_TIMEOUT for it."""
    if not dist.is_initialized():
        return make()
    box = [make() if is_first() else None]
    dist.broadcast_object_list(box, group=_long_group[0])
    return cast(T, box[0])


def wait() -> None:
    """Wait until all processes have called this."""
    if dist.is_initialized():
        dist.barrier(group=_long_group[0])


def highest(*numbers: int) -> tuple[int, ...]:
    """The maximum of each number over all processes."""
    if not dist.is_initialized():
        return numbers
    box = torch.tensor(numbers)  # on the CPU, so as not to wait for a GPU
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return tuple(box.tolist())


def let_first_print(seconds: float = 5.0) -> None:
    """Wait before printing an error message, in all processes but the first.

    torchrun ends all processes as soon as one has failed. So where the first process fails in the
    same way, only its message is printed; others are printed where it does not fail.
    """
    if not is_first():
        time.sleep(seconds)


def _is_connection_error(error: RuntimeError) -> bool:
    # gloo raises a plain RuntimeError whose message begins with the path of its source file
    return isinstance(error, dist.DistError) or "gloo" in str(error)
