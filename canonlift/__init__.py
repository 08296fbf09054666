"""3D human pose from uncalibrated, moving cameras, learned without 3D labels.

    import canonlift

    recording = canonlift.convert(["phone_a.json", "phone_b.json"], fps=60)
    recording = canonlift.read("session.npz")

    solution = canonlift.solve(recording)       # no network: .pose, .rotation, .focal_px, ...

    model = canonlift.train("demo", out="runs/demo")
    model = canonlift.load("runs/demo")

    prediction = model.lift(recording)          # .pose (T, V, J, 3), .joints, .save(path)
    canonlift.export(prediction, "out", formats=["trc", "html"], height=1.75)
    results = canonlift.evaluate(model, ["test/*.npz"])

Paths may be strings or `Path`s. Joints are matched by name, in whatever order they come.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canonlift.api import (
        Fused,
        Model,
        Prediction,
        Recording,
        Results,
        Solution,
        convert,
        evaluate,
        export,
        load,
        read,
        read_predictions,
        read_solution,
        solve,
        train,
    )

__version__ = "0.2.0"

__all__ = [
    "Fused",
    "Model",
    "Prediction",
    "Recording",
    "Results",
    "Solution",
    "__version__",
    "convert",
    "evaluate",
    "export",
    "load",
    "read",
    "read_predictions",
    "read_solution",
    "solve",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: torch takes seconds, `canonlift --help` should not."""
    if name not in __all__:
        raise AttributeError(f"module 'canonlift' has no attribute {name!r}")
    from canonlift import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
