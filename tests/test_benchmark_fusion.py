"""The benchmark of fusion compares like with like, and its oracle is right."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from canonlift.geometry import ridges
from canonlift.methods.fusion import METHODS, FusionConfig, Maps, exact_peaks, to_repair


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[1] / "benchmarks" / "fusion.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_fusion", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # jaxtyping and NamedTuple look it up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("n_views", [2, 5])
@pytest.mark.parametrize("cells", [100, 128])
def test_branch_and_bound_finds_what_all_points_of_the_grid_show(benchmark, n_views, cells):
    maps = benchmark.random_maps(40, n_views, seed=1, around=False)
    config = FusionConfig()
    maps = Maps(*(part.double() for part in tuple(maps)))
    side = (torch.arange(cells + 1, dtype=torch.float64) / cells * 2 - 1) * config.extent
    expected = maps.at(torch.cartesian_prod(side, side).expand(40, -1, -1), config).amax(-1)
    for guess in (exact_peaks(maps, config), torch.zeros(40, 2)):
        found = benchmark.dense_maximum(maps, config, guess, cells)
        assert_close(found, expected, rtol=1e-12, atol=0)


def test_branch_and_bound_finds_the_best_of_a_million_points(benchmark):
    maps = benchmark.random_maps(3, 4, seed=2, around=True)
    config = FusionConfig()
    maps = Maps(*(part.double() for part in tuple(maps)))
    side = (torch.arange(1025, dtype=torch.float64) / 1024 * 2 - 1) * config.extent
    best = [
        maps.at(torch.cartesian_prod(part, side).expand(3, -1, -1), config).amax(-1)
        for part in side.split(205)
    ]
    found = benchmark.dense_maximum(maps, config, torch.zeros(3, 2))
    assert_close(found, torch.stack(best).amax(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["all", "detector"])
def test_the_loop_finds_the_cells_that_the_grid_finds(benchmark, name):
    views, lifted, config = benchmark.sets(3, 4)[name]
    where = to_repair(views, lifted, config, benchmark.JOINTS)[::4]
    found = torch.from_numpy(benchmark.loop(benchmark.Sample(views, lifted, config), where))
    grid, _ = METHODS["grid"](views, lifted, where, config)
    inside = grid.abs().amax(-1) < config.extent - 1 / 64
    assert inside.sum() > 5
    assert (found - grid)[inside].abs().max() < (1 + 1e-5) / 64  # the parabola's step at most


def test_every_joint_of_one_set_is_repaired_and_few_of_the_other(benchmark):
    per_frame = {}
    for name, (views, lifted, config) in benchmark.sets(50, 4).items():
        per_frame[name] = len(to_repair(views, lifted, config, benchmark.JOINTS)) / 50
    assert per_frame["all"] == 64
    assert 10 < per_frame["detector"] < 20


def test_proof_and_json(benchmark, tmp_path, capsys):
    path = tmp_path / "proof.json"
    benchmark.main(["proof", "--joints", "60", "--views", "3", "--json", str(path)])
    row = json.loads(path.read_text())["views"]["3"]
    assert (row["joints"], row["lower"]) == (60, 0)
    assert "worst" in capsys.readouterr().out


@pytest.mark.parametrize("n_views", [2, 4, 7])
def test_as_many_powers_are_counted_as_are_taken(benchmark, n_views, monkeypatch):
    taken = []
    heights_of = ridges.distances_and_heights

    def note(maps, x, y, spread):
        found = heights_of(maps, x, y, spread)
        taken.append((found[1].numel() + found[4].numel()) // x.shape[-1])
        return found

    monkeypatch.setattr(ridges, "distances_and_heights", note)
    exact_peaks(benchmark.random_maps(5, n_views, seed=0, around=True), FusionConfig())
    assert sum(taken) == benchmark.evaluated(n_views - 1)


def test_every_pass_over_numbers_is_counted_once(benchmark):
    numbers = torch.rand(3, 50)
    with benchmark.Passes() as passes:
        numbers[0].add_(numbers[1]).sum()  # 50 and 50; the views are none
        torch.cat([numbers, numbers[:1]])  # 200
    assert passes.numbers == 300


def test_a_profile_adds_up(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    path = tmp_path / "profile.json"
    benchmark.main(["profile", "--frames", "2", "--repeats", "1", "--json", str(path)])
    found = json.loads(path.read_text())
    assert found["joints"] == 2 * 4 * 16
    assert 0 < sum(found["ns_per_joint_of_parts"].values()) < 3 * found["ns_per_joint"]
    assert min(found["ns_per_power"], found["ns_per_number"]) > 0
