"""What every network can do: the base of those in the table of models."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from canonlift.types import Lifted, Views


class Network(nn.Module, ABC):
    """Lifts every view by itself; whoever adds a network writes these."""

    @abstractmethod
    def forward(self, views: Views) -> Lifted:
        """Poses of windows; those of views with nothing observed are finite."""

    def poses(self, views: Views) -> Float[Tensor, "B V *T J 3"]:
        """The poses of `forward` alone, by less work where there is a way."""
        return self(views).pose

    @abstractmethod
    def mirror(self) -> None:
        """Become the exact mirror image in depth: poses S X, and rotations S R S."""
