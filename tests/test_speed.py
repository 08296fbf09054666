"""Laws of the benchmarks of speed: they time what they say, and count what is needed."""

import json
import math

import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import growth, inference, measure, training
from canonlift.models import layers
from canonlift.models.config import ModelConfig
from canonlift.models.mlp import CanonicalLifter
from canonlift.training import loop
from canonlift.types import Views

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

EACH = pytest.mark.parametrize("name", ["baseline", "s1 grid", "s1+s2", "demo stage 2"])


@pytest.fixture(scope="module")
def table():
    return training.film(24)


@EACH
def test_a_step_multiplies_no_matrices_of_its_network_in_vain(name, table, tmp_path, monkeypatch):
    """Torch's own count of a step's linear layers is that of the products beside it."""
    monkeypatch.setattr(layers, "HAS_ONEDNN", False)  # torch does not count its products
    setting = training.Setting(batch_size=8, width=48)
    run, step = training.make_step(training.VARIANTS[name], setting, table, tmp_path / "run")
    products = training.Products(run.network, setting, training.relifts(run.phase))
    counted = []
    for job in (step, products):
        with FlopCounterMode(display=False) as counter:
            job()
        by_kind = counter.get_flop_counts()["Global"]
        counted.append(sum(n for op, n in by_kind.items() if str(op) in ("aten.mm", "aten.addmm")))
    assert counted[0] == counted[1] == products.operations


@pytest.mark.skipif(not layers.HAS_ONEDNN, reason="oneDNN is not in this torch")
def test_the_products_are_multiplied_by_what_the_step_multiplies_with(
    table, tmp_path, monkeypatch
):
    shapes = []
    multiply = layers.multiply

    def note(a, b, *bias):
        shapes.append((*a.shape, len(b)))
        return multiply(a, b, *bias)

    monkeypatch.setattr(layers, "multiply", note)
    setting = training.Setting(batch_size=8, width=16)
    run, step = training.make_step(training.VARIANTS["s1+s2"], setting, table, tmp_path / "run")
    shapes.clear()
    step()
    by_step = sorted(shapes)
    shapes.clear()
    training.Products(run.network, setting, relift=True)()
    assert sorted(shapes) == by_step


@EACH
def test_a_step_is_one_of_training(name, table, tmp_path):
    setting = training.Setting(batch_size=8, width=16)
    run, step = training.make_step(training.VARIANTS[name], setting, table, tmp_path / "run")
    before = [p.detach().clone() for p in run.network.parameters()]
    losses = [step().item() for _ in range(4)]
    assert all(map(math.isfinite, losses))
    changed = [
        (p != b).any().item() for p, b in zip(run.network.parameters(), before, strict=True)
    ]
    assert all(changed)


def test_a_whole_training_takes_every_phase_of_the_demo_on_all_rows(monkeypatch):
    seen = []
    fit = loop.fit

    def note(run, samples, hooks):
        views = samples[torch.arange(len(samples))]
        seen.append((views.confidence.shape, run.config.model.width))
        fit(run, samples, hooks)
        seen.append((run.finished, run.progress.total_step))

    monkeypatch.setattr(loop, "fit", note)
    setting = training.Setting(batch_size=4, width=16)
    found = training.train_whole(setting, n_rows=9, n_views=3, steps_scale=0.0005)
    assert seen == [((9, 3, 1, 17), 16), (True, 3)]
    assert found["steps"] == 3  # 2,400 and twice 2,000, scaled
    assert found["frames_per_second"] == pytest.approx(3 * 4 / found["seconds"])


def test_the_matrix_rate_counts_a_product_and_a_sum_for_each_entry(monkeypatch):
    monkeypatch.setattr(measure, "in_turns", lambda jobs, *_: {name: 0.5 for name in jobs})
    assert training.matrix_rate("cpu", side=8) == 2 * 8**3 / 0.5


def test_in_turns_gives_everything_its_turn_and_the_median(monkeypatch):
    now, calls = [0.0], []
    costs = {"a": iter([9, 9, 1, 5, 2]), "b": iter([1] * 5)}

    def job(name):
        calls.append(name)
        now[0] += next(costs[name])

    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    found = measure.in_turns({"a": lambda: job("a"), "b": lambda: job("b")}, rounds=3)
    assert found == {"a": 2, "b": 1}
    assert calls == ["a", "b"] * 5


def test_figures_are_written_as_json(tmp_path):
    figures = {"machine": measure.machine("cpu"), "frames_per_second": {"baseline": 1.5}}
    measure.write(tmp_path / "figures.json", figures)
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    measure.write(None, figures)


def test_every_way_to_run_the_network_lifts_the_same(table):
    network = CanonicalLifter(ModelConfig(width=16), 17, 0).eval()
    views = Views(table.keypoints[:9, :1], table.confidence[:9, :1], table.rig[:9])
    with torch.inference_mode():
        expected = network(views)
        for way in (inference.eager, inference.blocks):
            pose, rotation = way(network, "cpu")(views)
            assert_close(pose, expected.pose)
            assert_close(rotation, expected.rotation)
        pose, rotation = inference.Bare(network)(views.keypoints, views.confidence)
    assert_close(pose, expected.pose)
    assert_close(rotation, expected.rotation)


def test_the_most_held_at_once_is_counted():
    def job():
        a = torch.zeros(1000, 1000)
        b = a + 1
        c = a * b
        del a, b
        return c + 1

    assert abs(growth.peak_bytes(job, "cpu") - 3 * 4_000_000) < 1000


def test_exponents_are_those_of_a_power_law():
    assert growth.exponents({n: 7.0 * n**1.5 for n in (2, 5, 9)}) == pytest.approx((1.5, 1.5))


@pytest.mark.parametrize(("size", "least", "most"), [("views", 2, 8), ("joints", 17, 133)])
def test_what_all_pairs_of_views_hold_grows_as_their_number_times_the_joints(size, least, most):
    """Nothing that baseline and triangulation keep is larger than V^2 J, nor copied per frame."""
    for method in ("baseline", "triangulate"):
        small, large = (
            growth.peak_bytes(
                growth.make_step(method, "cpu", **growth.BASE | {"frames": 16, size: n}), "cpu"
            )
            for n in (least, most)
        )
        assert large / small < (most / least) ** growth.ALLOWED[size]
