"""The script for a GPU goes on past what fails or hangs, keeps what it has, and reports it."""

import json
import os
import subprocess
import time
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from benchmarks import compute_ways, gpu, gpu_checks, gpu_report, gpu_speed, training
from benchmarks.steps import Place, Step
from canonlift.training import loop

pytestmark = pytest.mark.usefixtures("shapes_unchecked")


def fails(_place):
    yield "before", lambda: {"value": 1.5}
    yield "raises", lambda: {}["what is not there"]
    yield "is wrong", lambda: {"error_of_device": 2.0, "ok": False}
    yield "cannot be written", lambda: {"value": torch.zeros(1)}
    yield "after", lambda: {"skipped": "no reason"}
    raise RuntimeError("between two jobs")


def hangs(_place):
    sleeper = subprocess.Popen(["sleep", "60"])
    yield "before", lambda: {"pid": sleeper.pid}
    yield "hangs", lambda: time.sleep(60) or {}


def dies(_place):
    yield "before", lambda: {"value": 1}
    yield "dies", lambda: os._exit(3)


PLANTED = {
    "hangs": Step(hangs, 0.5),  # the first, for it may use what others leave of their time
    "fails": Step(fails, 10),
    "dies": Step(dies, 10),
    "of CUDA": Step(fails, 10, needs_cuda=True),
    "machine": gpu.STEPS["machine"],
    "dstformer": gpu.STEPS["dstformer"],
    "compile": gpu.STEPS["compile"],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "gpu.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "STEPS", PLANTED)
        status = gpu.main(f"--device cpu --toy --commit this --json {path}".split())
    assert status == 1
    return json.loads(path.read_text())


def test_goes_on_past_a_step_that_fails_hangs_or_dies(results):
    assert results["finished"]
    assert {name: step["status"] for name, step in results["steps"].items()} == {
        "hangs": "exceeded its limit",
        "fails": "failed",
        "dies": "its process ended with 3",
        "of CUDA": "skipped",
        "machine": "passed",
        "dstformer": "passed",
        "compile": "passed",
    }
    assert results["machine"]["torch"] == torch.__version__
    assert results["commit"] == "this"


def test_what_was_measured_before_a_failure_is_kept_and_the_failure_too(results):
    rows = results["steps"]["fails"]["rows"]
    assert rows["before"]["value"] == 1.5
    assert rows["after"]["skipped"] == "no reason"
    assert rows["raises"]["error"] == "KeyError: 'what is not there'"
    assert "in fails" in rows["raises"]["traceback"] or "lambda" in rows["raises"]["traceback"]
    assert "TypeError" in rows["cannot be written"]["error"]
    assert rows["fails"]["error"] == "RuntimeError: between two jobs"
    assert "what is not there" in results["steps"]["fails"]["log"]
    assert results["steps"]["dies"]["rows"]["before"]["value"] == 1


def test_what_a_step_started_ends_with_it(results):
    step = results["steps"]["hangs"]
    assert step["seconds"] < 3
    pid = step["rows"]["before"]["pid"]
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and alive(pid):
        time.sleep(0.01)
    assert not alive(pid)


def alive(pid):
    """Whether there is such a process; one that only waits to be counted is none."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_results_are_shown_as_tables_without_what_was_not_measured(results, capsys, tmp_path):
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(results))
    assert gpu.main(["--report", str(path)]) == 0
    text = capsys.readouterr().out
    assert "| fails | failed: raises; is wrong; cannot be written; fails |" in text
    assert "| hangs | exceeded its limit |" in text
    assert "At toy size" in text
    assert "raises: KeyError: 'what is not there'" in text
    assert "target" not in text  # a toy says nothing of them


def test_a_target_is_compared_with_the_best_that_was_measured_of_it():
    rows = {
        name: {"variant": "baseline", "frames_per_second": rate}
        for name, rate in {"small": 3e4, "large": 2e6}.items()
    }
    whole = {"steps": {"steps": {"rows": rows}, "skipose": {"rows": {"a": {"training_s": 31}}}}}
    found = gpu_report.targets(whole | {"options": {"toy": False}})
    assert [(t["measured"], t["met"]) for t in found] == [(2e6, True), (31, False)]


def test_the_limits_of_all_steps_add_up_to_eight_minutes_at_most():
    assert sum(step.limit for step in gpu.STEPS.values()) <= gpu.LIMIT <= 480


def test_an_unknown_step_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["agreements", "--device", "cpu"])
    assert "no step agreements; there are machine, agreement" in capsys.readouterr().err


def test_a_device_that_is_wrong_by_more_than_rounding_does_not_agree():
    truth = torch.randn(100, dtype=torch.float64)

    def run(error):
        return lambda dtype, device: [truth.to(dtype) + error * (device != "cpu"), truth.to(dtype)]

    assert gpu_checks.agree(run(0.0), "other")["ok"]
    assert gpu_checks.agree(run(1e-6), "other")["ok"]
    assert not gpu_checks.agree(run(1e-4), "other")["ok"]
    assert not gpu_checks.agree(run(float("nan")), "other")["ok"]


def test_waiting_in_a_step_is_found_where_it_is_and_reading_losses_is_none(monkeypatch, tmp_path):
    """As torch warns of waiting, from wherever it happens."""

    def wait():
        warnings.warn("called a synchronizing CUDA operation", stacklevel=2)

    def count(*given):
        wait()
        return truly_count(*given)

    place = Place("cpu", toy=True, folder=tmp_path, deadline=time.monotonic() + 60)
    truly_count, flip = loop.count, loop.flip
    monkeypatch.setattr(loop, "count", count)
    variant = training.VARIANTS["baseline"]
    assert gpu_checks.waits_of(place, variant)["ok"]
    monkeypatch.setattr(loop, "flip", lambda *a: (wait(), flip(*a))[1])
    found = gpu_checks.waits_of(place, variant)
    assert not found["ok"]
    assert found["per_step"] == 0.5  # every other batch is flipped
    [line] = found["places"]
    assert line.startswith("canonlift/training/loop.py:")
    assert line.endswith("views = flip(views, config.joints)")
    assert gpu.lines("baseline", found) == [
        "  FAILED baseline: per step 0.5",
        f"           2 {line}",
    ]


def test_the_idle_share_counts_time_in_which_no_kernel_ran():
    spans = [(0, 10), (5, 20), (30, 40), (32, 35)]
    assert gpu_speed.idle(spans) == {"idle": 10 / 40, "median_gap_us": 0.0}


def test_kernels_are_counted_and_annotations_are_none():
    def event(name, begin, end, device="DeviceType.CUDA", annotation=False):
        return SimpleNamespace(
            name=lambda: name,
            start_ns=lambda: begin,
            duration_ns=lambda: end - begin,
            device_type=lambda: device,
            is_user_annotation=lambda: annotation,
        )

    events = [
        event("mm", 0, 1_000_000),
        event("add", 2_000_000, 4_000_000),
        event("mm", 4_000_000, 5_000_000),
        event("step", 0, 9_000_000, annotation=True),
        event("aten::mm", 0, 9_000_000, "DeviceType.CPU"),
    ]
    results = SimpleNamespace(events=lambda: events)
    recorded = SimpleNamespace(profiler=SimpleNamespace(kineto_results=results))
    found = gpu_speed.of_kernels(recorded, count=2)
    assert found["top_ms_per_step"] == {"mm": 1.0, "add": 1.0}
    assert (found["kernels_per_step"], found["busy_ms_per_step"]) == (1.5, 2.0)
    assert found["idle"] == 0.2


def test_a_captured_objective_is_the_same(monkeypatch, tmp_path):
    """But for the capturing itself, which needs a GPU."""
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda module, _, **__: module)
    variant, film = training.VARIANTS["demo bootstrap"], training.film(24)
    found, expected = (
        training.make_step(variant, training.Setting(8, 16, way=way), film, tmp_path / way)
        for way in ("captured", "eager")
    )
    for _ in range(3):
        assert_close(found[1](), expected[1]())
    assert list(compute_ways.WAYS) == ["eager", "compile", "compiled graphs", "captured"]
