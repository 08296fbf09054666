"""Kind and size of the network, as a config gives them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """Kind and size of the network; a setting that the kind does not read keeps its default."""

    name: str = "mlp"  # row of `models.table.MODELS`
    width: int = 1024
    rotation: str = "axis_angle"  # mlp: row of `models.mlp.ROTATIONS`
    precision: str = "float32"  # of its products in training, row of `models.layers.PRECISIONS`
    checkpointing: bool = False  # over time: activations are computed twice, to hold less of them
    depth: int = 3
    heads: int = 4  # of attention
    head_width: int = 0  # dstformer: of the last layer but one; 0: as `width`

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be positive, got {getattr(self, name)}")
        if self.head_width < 0:
            raise ValueError(f"model.head_width must not be negative, got {self.head_width}")
