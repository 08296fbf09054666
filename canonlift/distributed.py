"""Several processes that train one network on one batch: what they share, and who may speak.

`torchrun` starts them and tells each its number. Gradients are averaged by torch's
DistributedDataParallel, over gloo on CPUs and NCCL on GPUs. In a process that torchrun did not
start, everything here does nothing.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

T = TypeVar("T")

# A process that dies takes the others with it in seconds. Only one that hangs is waited for.
STEP_TIMEOUT = timedelta(minutes=10)
PATIENCE = timedelta(days=2)  # while the first process films, or copies a session to shards
_patient: list[dist.ProcessGroup] = []  # the same processes, with more time


class Lost(Exception):
    """Another process of this run has ended or hangs."""


def is_first() -> bool:
    """Whether this process writes and prints: the only one, or number 0."""
    return not dist.is_torchelastic_launched() or os.environ["RANK"] == "0"


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, if it did; only the first prints meanwhile.

    Raises:
        Lost: if another process fails while this one needs it.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=STEP_TIMEOUT)
    _patient.append(dist.new_group(backend="gloo", timeout=PATIENCE))
    try:
        with contextlib.ExitStack() as quiet:
            if not is_first():
                nowhere = quiet.enter_context(open(os.devnull, "w"))
                quiet.enter_context(contextlib.redirect_stdout(nowhere))
            yield
    except RuntimeError as error:
        if _is_about_others(error):
            raise Lost(
                "another process of this run has ended or does not answer, so this one stops "
                "too; continue with --resume, with any number of processes"
            ) from error
        raise
    finally:
        leave()


def leave() -> None:
    """Leave the others: from here on this process computes and speaks for itself."""
    if dist.is_initialized():
        _patient.clear()
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """The device of this process: of several GPUs the one with its number.

    Raises:
        ValueError: if there are more processes than GPUs, or all are sent to the same one.
    """
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
    """This process's part of every row; the parts differ in length by one at most.

    Raises:
        ValueError: if some process would have nothing to do.
    """
    if not dist.is_initialized():
        return batches
    if batches.shape[1] < dist.get_world_size():
        raise ValueError(
            f"a batch of {batches.shape[1]} cannot be split over {dist.get_world_size()} "
            "processes; start fewer, or raise batch_size"
        )
    return batches.tensor_split(dist.get_world_size(), dim=1)[dist.get_rank()]


def over_all(*sums: Float[Tensor, ""]) -> tuple[Float[Tensor, ""], ...]:
    """Sums over this process's part of a batch -> sums over the whole batch, in every process.

    Gradients are those of this process's part, times the number of processes: averaged, as
    DistributedDataParallel does, they are the gradient of the whole, whatever is made of the
    sums. A mean of the processes' means would weigh a rarely observed part like any other.
    """
    if not dist.is_initialized():
        return sums
    own = torch.stack(sums)
    whole = own.detach().clone()
    dist.all_reduce(whole)
    return (whole + dist.get_world_size() * (own - own.detach())).unbind()


def distribute(module: nn.Module) -> nn.Module:
    """The same module, whose backward pass averages gradients over all processes.

    All start from the weights of the first. What the graph of a step reaches must not change
    from step to step; parameters that it never reaches are left without gradient.
    """
    if not dist.is_initialized():
        return module
    return nn.parallel.DistributedDataParallel(module, static_graph=True)


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns in the first process; the others wait as long as it takes."""
    if not dist.is_initialized():
        return make()
    box = [make() if is_first() else None]
    dist.broadcast_object_list(box, group=_patient[0])
    return box[0]


def wait() -> None:
    """Go on when all processes are here."""
    if dist.is_initialized():
        dist.barrier(group=_patient[0])


def highest(*numbers: int) -> tuple[int, ...]:
    """The highest of what the processes give for each number, in all of them."""
    if not dist.is_initialized():
        return numbers
    box = torch.tensor(numbers)  # on the CPU, so that no GPU is waited for
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return tuple(box.tolist())


def let_first_speak(seconds: float = 5.0) -> None:
    """Before an error message: where the first process fails in the same way, it alone speaks.

    torchrun ends all processes as soon as one has failed, so what is said afterwards is what
    the first does not know.
    """
    if not is_first():
        time.sleep(seconds)


def _is_about_others(error: RuntimeError) -> bool:
    # gloo raises a bare RuntimeError that begins with its own source file
    return isinstance(error, dist.DistError) or "gloo" in str(error)
