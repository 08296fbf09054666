"""The benchmark of fusion compares like with like, and its oracle is right."""

import json

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import fusion, fusion_proof
from benchmarks.fusion_proof import dense_maximum, random_maps
from canonlift.methods.fusion import METHODS, FusionConfig, Maps, exact_peaks, to_repair


class Powers(TorchDispatchMode):
    """Counts the powers of two that are taken."""

    taken = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.exp2, torch.ops.aten.exp2_):
            self.taken += found.numel()
        return found


@pytest.mark.parametrize("n_views", [2, 5])
@pytest.mark.parametrize("cells", [100, 128])
def test_branch_and_bound_finds_what_all_points_of_the_grid_show(n_views, cells):
    maps = random_maps(40, n_views, seed=1, around=False)
    config = FusionConfig()
    maps = Maps(*(part.double() for part in tuple(maps)))
    side = (torch.arange(cells + 1, dtype=torch.float64) / cells * 2 - 1) * config.extent
    expected = maps.at(torch.cartesian_prod(side, side).expand(40, -1, -1), config).amax(-1)
    for guess in (exact_peaks(maps, config), torch.zeros(40, 2)):
        found = dense_maximum(maps, config, guess, cells)
        assert_close(found, expected, rtol=1e-12, atol=0)


def test_branch_and_bound_finds_the_best_of_a_million_points():
    maps = random_maps(3, 4, seed=2, around=True)
    config = FusionConfig()
    maps = Maps(*(part.double() for part in tuple(maps)))
    side = (torch.arange(1025, dtype=torch.float64) / 1024 * 2 - 1) * config.extent
    best = [
        maps.at(torch.cartesian_prod(part, side).expand(3, -1, -1), config).amax(-1)
        for part in side.split(205)
    ]
    found = dense_maximum(maps, config, torch.zeros(3, 2))
    assert_close(found, torch.stack(best).amax(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["all", "detector"])
def test_the_loop_finds_the_cells_that_the_grid_finds(name):
    views, lifted, config = fusion.sets(3, 4)[name]
    where = to_repair(views, lifted, config, fusion.JOINTS)[::4]
    found = torch.from_numpy(fusion.loop(fusion.Sample(views, lifted, config), where))
    grid, _ = METHODS["grid"](views, lifted, where, config)
    inside = grid.abs().amax(-1) < config.extent - 1 / 64
    assert inside.sum() > 5
    assert (found - grid)[inside].abs().max() < (1 + 1e-5) / 64  # the parabola's step at most


def test_every_joint_of_one_set_is_repaired_and_few_of_the_other():
    per_frame = {}
    for name, (views, lifted, config) in fusion.sets(50, 4).items():
        per_frame[name] = len(to_repair(views, lifted, config, fusion.JOINTS)) / 50
    assert per_frame["all"] == 64
    assert 10 < per_frame["detector"] < 20


def test_proof_and_json(tmp_path, capsys):
    path = tmp_path / "proof.json"
    fusion_proof.main(["--joints", "60", "--views", "3", "--json", str(path)])
    row = json.loads(path.read_text())["views"]["3"]
    assert (row["joints"], row["lower"]) == (60, 0)
    assert "worst" in capsys.readouterr().out


@pytest.mark.parametrize("n_views", [2, 4, 7])
def test_as_many_powers_are_counted_as_are_taken(n_views):
    maps = random_maps(5, n_views, seed=0, around=True)
    with Powers() as powers:
        exact_peaks(maps, FusionConfig())
    assert powers.taken == 5 * fusion.evaluated(n_views - 1)


def test_every_pass_over_numbers_is_counted_once():
    numbers = torch.rand(3, 50)
    with fusion.Passes() as passes:
        numbers[0].add_(numbers[1]).sum()  # 50 and 50; the views are none
        torch.cat([numbers, numbers[:1]])  # 200
    assert passes.numbers == 300


def test_a_profile_adds_up(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    path = tmp_path / "profile.json"
    fusion.main(["profile", "--frames", "2", "--repeats", "1", "--json", str(path)])
    found = json.loads(path.read_text())
    assert found["joints"] == 2 * 4 * 16
    assert 0 < sum(found["ns_per_joint_of_parts"].values()) < 3 * found["ns_per_joint"]
    assert min(found["ns_per_power"], found["ns_per_number"]) > 0
