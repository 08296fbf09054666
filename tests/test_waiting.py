"""Nothing that a training step runs makes the CPU wait for a GPU, as far as the text shows."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "canonlift"

# What a step runs. Of other modules, what comes before and after is the most.
HOT = (
    "body/anatomy", "distributed", "geometry/alignment", "geometry/epipolar", "geometry/ridges",
    "geometry/rotations", "geometry/scale", "methods/consistency", "methods/frame_losses",
    "methods/fusion", "methods/objective", "methods/passes", "methods/relations",
    "methods/sequence_losses", "methods/terms", "models/dstformer", "models/layers", "models/mlp",
    "methods/triangulation", "models/table", "models/temporal", "solver/bundle",
    "solver/perspective", "time_windows", "training/loop",
    "types",
)  # fmt: skip

# Where it is seen to, by function: why it may wait.
ALLOWED = {
    ("body/anatomy", "_index"): "once per device",
    ("methods/fusion", "fuse"): "on a CPU alone, by default",
    ("methods/fusion", "to_repair"): "of benchmarks and figures",
    ("geometry/alignment", "align_similarity"): "of evaluation and the mean pose",
    ("models/mlp", "__init__"): "once, on the CPU",
    ("models/mlp", "mirror"): "at the end of a phase",
    ("distributed", "own_device"): "of the environment",
    ("distributed", "highest"): "of numbers on the CPU",
    ("training/loop", "count"): "the one place that reads losses, every LOG_EVERY steps",
    ("training/loop", "_log"): "after `count`",
    ("training/loop", "_not_finite"): "when training has failed",
    ("training/loop", "_after_step"): "of numbers on the CPU",
}
READS = {"item", "tolist", "cpu", "numpy", "nonzero", "argwhere", "unique", "masked_select"}
READS |= {"unique_consecutive", "synchronize", "unravel_index", "is_nonzero", "equal", "allclose"}
COPIES = {"torch.tensor", "torch.as_tensor", "torch.from_numpy", "torch.asarray"}
CHECKS = {
    f"torch.linalg.{name}"
    for name in ("svd", "svdvals", "eigh", "eig", "solve", "inv", "cholesky", "lstsq", "pinv")
}


def waits(tree):
    """(function, line, what) of all in a module that may wait for the device."""
    found = []

    def look(node, function):
        if isinstance(node, ast.FunctionDef):
            function = node.name
        what = _waits(node)
        if what:
            found.append((function, node.lineno, what))
        for child in ast.iter_child_nodes(node):
            look(child, function)

    look(tree, "")
    return found


def _waits(node):
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name in COPIES | CHECKS:
            return name
        if isinstance(node.func, ast.Attribute) and node.func.attr in READS:
            return f".{node.func.attr}()"
        if name in ("int", "float", "bool") and not isinstance(node.args[0], ast.Constant):
            return f"{name}()"
    if (
        isinstance(node, ast.Subscript)
        and ast.unparse(node.value) != "Callable"
        and any(
            isinstance(part, ast.List | ast.ListComp)
            or (isinstance(part, ast.Call) and ast.unparse(part.func) == "list")
            or isinstance(part, ast.Compare)  # a mask: how many there are is known on the device
            for part in ([*node.slice.elts] if isinstance(node.slice, ast.Tuple) else [node.slice])
        )
    ):
        return "an index that is a list or a mask"
    if isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
        for part in ast.walk(node.test):
            if isinstance(part, ast.Call) and ast.unparse(part.func).endswith((".any", ".all")):
                return "a branch on .any() or .all()"
    return None


@pytest.mark.parametrize("name", HOT)
def test_no_step_waits_for_the_device(name):
    for function, line, what in waits(ast.parse((PACKAGE / f"{name}.py").read_text())):
        assert (name, function) in ALLOWED, (
            f"{name}.py, line {line}: {what} in `{function}` makes the CPU wait for a GPU in "
            "every step; compute it on the device, keep it, or say in ALLOWED why it may"
        )


def test_nothing_is_allowed_in_vain():
    waiting = {
        (name, function)
        for name in HOT
        for function, *_ in waits(ast.parse((PACKAGE / f"{name}.py").read_text()))
    }
    assert waiting >= ALLOWED.keys(), ALLOWED.keys() - waiting


@pytest.mark.parametrize(
    "line",
    [
        "x.sum().item()", "x.tolist()", "x.cpu()", "x.nonzero()", "float(x.sum())", "bool(x)",
        "torch.tensor([1.0], device=x.device)", "torch.linalg.svd(x)", "torch.linalg.eigh(x)",
        "x[..., [0, 1], :]", "x[list(side)]", "x[x > 0]", "1 if (x == 0).any() else 2",
        "torch.unravel_index(x, (3, 4))",
    ],
)  # fmt: skip
def test_the_reader_of_waits_finds_them(line):
    assert waits(ast.parse(f"def f(x, side):\n    return {line}"))


@pytest.mark.parametrize("line", ["x[..., 0]", "x[index, :2]", "torch.where(x > 0, x, 0.0)"])
def test_the_reader_of_waits_finds_no_others(line):
    assert not waits(ast.parse(f"def f(x, index):\n    return {line}"))
