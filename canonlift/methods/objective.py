"""What a phase minimises: a weighted sum of terms over a pass."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from canonlift.methods.passes import Method, Pass
from canonlift.methods.terms import MEASURES, TERMS
from canonlift.models.network import Network
from canonlift.types import Views


class Objective(nn.Module):
    """From views to the loss and its terms."""

    def __init__(
        self,
        network: Network,
        method: Method,
        weights: Mapping[str, float],
        measures: Sequence[str] = (),
    ) -> None:
        """Take the terms with a weight other than 0; nothing else is computed.

        Args:
            network: what is trained.
            method: how views are related and repaired.
            weights: rows of TERMS.
            measures: rows of MEASURES to log beside them.
        """
        super().__init__()
        self.network, self.method = network, method
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.measures = tuple(measures)

    def forward(self, views: Views) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The total, and each term without its weight and each measure."""
        result = Pass(views, self.network, self.method)
        terms = {name: TERMS[name].compute(result) for name in self.weights}
        parts = [self.weights[name] * value for name, value in terms.items()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        for name in self.measures:
            if MEASURES[name].part in vars(result):
                terms[name] = MEASURES[name].compute(result)
        return total, {name: value.detach() for name, value in terms.items()}
