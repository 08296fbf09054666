"""How the modules may depend on each other, and what none of them may do."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up: a module imports from lower floors, and from its own without a cycle. A name
# that ends in a dot is a whole folder.
FLOORS = (
    ("files", "suggestions", "distributed", "time_windows", "computed_once"),
    ("geometry.", "body."),
    ("types",),
    ("metrics", "data."),
    ("models.", "simulation."),
    ("solver.",),
    ("methods.",),
    ("readers.", "training."),
    ("inference.",),
    ("output.",),
    ("evaluation.",),
    ("api", "cli."),
    ("__main__", "train", "eval"),
)


@cache
def modules():
    """Dotted name, without `canonlift`, of every module and program -> its syntax tree."""
    paths = {f"{name}": ROOT / f"{name}.py" for name in FLOORS[-1]}
    for path in sorted((ROOT / "canonlift").rglob("*.py")):
        parts = path.relative_to(ROOT / "canonlift").with_suffix("").parts
        paths[".".join(part for part in parts if part != "__init__")] = path
    return {name: ast.parse(path.read_text(), str(path)) for name, path in paths.items()}


UNPICKLE = "readers.datasets.unpickle"
# The package's own file only hands on the API, when it is first used.
each_module = pytest.mark.parametrize("name", [name for name in modules() if name])


def floors_of(name):
    """Every floor that claims the module."""
    return [
        number
        for number, members in enumerate(FLOORS)
        if any(name == m or (m.endswith(".") and f"{name}.".startswith(m)) for m in members)
    ]


def imports(name):
    """Modules of ours that a module imports anywhere in its text."""
    found = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import in line {node.lineno}"
            # `from canonlift import files` names a module, `from canonlift.files import write`
            # something in one.
            full = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        for target in full:
            first, _, rest = target.partition(".")
            ours = rest if first == "canonlift" else target
            if first in ("canonlift", *FLOORS[-1]) and ours in modules():
                found.add(ours)
    return found - {"", name}


def calls(name):
    return [node for node in ast.walk(modules()[name]) if isinstance(node, ast.Call)]


def test_the_reader_of_imports_reads_them():
    assert {"methods.fusion", "models.network", "types"} <= imports("methods.passes")
    assert {"files", "body.skeleton"} <= imports("data.recording")
    assert {"training.checkpoint", "data.frames"} <= imports("training.session")


@each_module
def test_every_module_stands_on_one_floor(name):
    assert len(floors_of(name)) == 1, (
        f"{name} is on floors {floors_of(name)}; put it on one in {Path(__file__).name}"
    )


def test_every_place_on_a_floor_is_taken():
    for member in (m for floor in FLOORS for m in floor):
        assert any(f"{name}.".startswith(member.rstrip(".") + ".") for name in modules()), member


@each_module
def test_imports_never_point_upwards(name):
    for other in imports(name):
        assert floors_of(other) <= floors_of(name), f"{name} imports {other}, which is above it"


def test_imports_have_no_cycle():
    try:
        TopologicalSorter({name: imports(name) for name in modules()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("name", [n for n in modules() if n.startswith("geometry")])
def test_geometry_knows_nothing_about_people(name):
    assert all(other.startswith("geometry.") for other in imports(name))


@each_module
def test_no_module_moves_tensors_to_a_device_of_its_own_choice(name):
    for call in calls(name):
        method = getattr(call.func, "attr", None)
        assert method != "cuda", f"{name}: .cuda() in line {call.lineno}; use .to(device)"


@each_module
def test_no_pickle_can_run_code(name):
    """Only `unpickle` opens pickles of others, by an `Unpickler` that refuses what could call."""
    text = {ast.unparse(node) for node in ast.walk(modules()[name]) if isinstance(node, ast.expr)}
    assert not text & {"pickle.load", "pickle.loads"}
    for node in ast.walk(modules()[name]):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for forbidden in ("pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"):
            assert forbidden not in names or (name, forbidden) == (UNPICKLE, "pickle")
    if UNPICKLE in imports(name):
        openers = (
            "readers.datasets.",
            "readers.detectors.deeplabcut",
            "readers.detectors.detectron",
        )
        assert name.startswith(openers), f"{name} opens pickles"
    for call in calls(name):
        options = {
            k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)
        }
        assert options.get("allow_pickle", False) is False, f"{name}, line {call.lineno}"
        if ast.unparse(call.func) == "torch.load":
            assert options.get("weights_only") is True, f"{name}, line {call.lineno}"


def test_the_one_unpickler_chooses_what_it_makes():
    classes = [node for node in ast.walk(modules()[UNPICKLE]) if isinstance(node, ast.ClassDef)]
    made = [c for c in classes if "pickle.Unpickler" in map(ast.unparse, c.bases)]
    assert made
    for one in made:
        assert "find_class" in [getattr(part, "name", "") for part in one.body]


STATE = """
import random, sys, warnings
import matplotlib, numpy, torch

def state():
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "printing": repr(torch.full((3,), 1 / 3)),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "torch's dice": torch.random.get_rng_state().tolist(),
        "numpy's dice": [str(part) for part in numpy.random.get_state()],
        "python's dice": random.getstate(),
        "numpy's errors": numpy.geterr(),
        "plots": dict(matplotlib.rcParams),
    }

before = state()
for name in sys.argv[1:]:
    __import__(name)
after = state()
print(*[key for key in before if before[key] != after[key]], sep=", ")
"""


@pytest.mark.slow
def test_importing_everything_changes_no_global_state():
    names = [f"canonlift.{name}".rstrip(".") for name in modules() if name not in FLOORS[-1]]
    found = subprocess.run(
        [sys.executable, "-c", STATE, *names, "train", "eval"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout.strip()) == (0, ""), found.stderr
