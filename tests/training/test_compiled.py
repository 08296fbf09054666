"""A step is one graph: torch.compile, and so a CUDA graph, can take all of it."""

import pytest

STEPS = {
    "s1+s2": ("cvsf", "fusion.method=triangulate", "model.width=16"),
    "sequence": ("sequence", "model.width=8", "model.depth=1", "model.heads=2"),
}

# Without the checks of shapes, which are no part of training. As on a GPU, all joints are
# repaired, so that nothing depends on their number. The first has all terms of the baseline too.
TRACE = """
import warnings
from functools import partial
from torch.testing import assert_close
from canonlift.methods import passes
from canonlift.training import config as configs
from canonlift.types import Target, Views

passes.fuse = partial(passes.fuse, everywhere=True)
warnings.simplefilter("ignore")
g = torch.Generator().manual_seed(0)
for name, (config, *overrides) in STEPS.items():
    config = configs.load(config, overrides)
    shape = 3, 3, min(config.windows.length, 5), 17
    target = Target(torch.randn(*shape, 3, generator=g), torch.ones(shape))
    keypoints = torch.randn(*shape, 2, generator=g)
    rig = torch.zeros(3, dtype=torch.long)
    views = Views(keypoints, torch.rand(shape, generator=g), rig, target)
    weights = config.schedule[-1].weights
    compute = loop.Objective(checkpoint.new_network(config), config.method, weights)
    found = torch.compile(compute, fullgraph=True, backend="eager")(views)
    assert_close(found, compute(views))
    print(name, found[0].requires_grad)
sys.exit()
"""


@pytest.mark.slow
def test_steps_are_one_graph_each(programs):
    code, said = programs.run(first=f"STEPS = {STEPS}\n{TRACE}")
    assert code == 0, said
    assert said.splitlines() == [f"{name} True" for name in STEPS]
