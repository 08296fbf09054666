"""The functions of `import canonlift`."""

from collections.abc import Sequence
from pathlib import Path

from canonlift.data import recording as recordings
from canonlift.data.prediction import Fused, Prediction, read_predictions
from canonlift.data.recording import Recording
from canonlift.data.solution import Solution, read_solution
from canonlift.evaluation.evaluate import evaluate
from canonlift.evaluation.report import Results
from canonlift.inference import model as models
from canonlift.inference.model import Model
from canonlift.output.export.exporter import export
from canonlift.readers.convert import convert
from canonlift.solver.solve import solve
from canonlift.training import config as configs
from canonlift.training import train as training

__all__ = [
    "Fused",
    "Model",
    "Prediction",
    "Recording",
    "Results",
    "Solution",
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


def read(path: str | Path) -> Recording:
    """Read a recording, as `canonlift convert` and `Recording.save` write them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a recording, naming the file, the place and the remedy.
    """
    return recordings.load(Path(path))


def train(
    config: str | Path,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
) -> Model:
    """Train a network, and return it ready to be used.

    Args:
        config: a YAML file, or the name of a config that canonlift has, such as "demo".
        out: the run's folder; default: runs/NAME OF THE CONFIG.
        overrides: settings such as "seed=1" or "data.train=[session/*.npz]".
        resume: continue the run in `out`.

    Raises:
        FileExistsError: if `out` holds a run that is not to be resumed.
        FileNotFoundError: if the config or its recordings are not there.
        ValueError: naming the key, file or recording that cannot serve.
        FloatingPointError: if the loss is not finite, naming step, term and recording.
    """
    out = Path("runs") / Path(config).stem if out is None else Path(out)
    read_config = configs.load(config, overrides)
    training.train(read_config, out, resume)
    return load(out, read_config.device)


def load(run: str | Path, device: str = "auto") -> Model:
    """Read the model of a finished run.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the run has not finished, or cannot be read.
    """
    return models.load(run, device)
