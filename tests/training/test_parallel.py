"""Laws of training in several processes: the run of one process, however many share the work."""

import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from canonlift import distributed
from canonlift.data import recording as recordings
from canonlift.methods import frame_losses
from canonlift.methods.terms import TERMS
from canonlift.simulation.cameras import CameraConfig
from canonlift.simulation.session import SimulateConfig, write_session
from canonlift.training import checkpoint, loop, metrics_log
from canonlift.training import config as configs
from canonlift.training.train import train

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

# Batches of 9 do not split evenly, nothing is seen equally often, and the phases differ in what
# they compute.
CONFIG = """
batch_size: 9
flip: true
device: cpu
checkpoint_seconds: 1.0e+9
data: {train: [TAKES/train_*.npz], test: [TAKES/test_*.npz], target: solved}
model: {width: 32, rotation: 6d}
fusion: {method: triangulate, extent: 0.7}
schedule:
  - {name: bootstrap, steps: 8, learning_rate: 1.0e-3, warmup: 3, clip_norm: 0.5,
    weights: {target_pose: 1.0}}
  - {name: stage 1, steps: 99, learning_rate: 1.0e-3,
    convergence: {interval: 3, tolerance: 0.5, patience: 2},
    weights: {reprojection: 1, refinement: 1, repaired_reprojection: 0.01, consistency_3d: 0.01,
    consensus: 1}}
  - {name: stage 2, steps: 9, learning_rate: 1.0e-3, decay: cosine,
    weights: {reprojection: 0.01, refinement: 0.01, repaired_reprojection: 1, consistency_3d: 1}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Takes of which some was hidden, unevenly."""
    folder = tmp_path_factory.mktemp("takes")
    film = SimulateConfig(n_train=2, n_test=1, n_frames=24, cameras=CameraConfig(n_views=4))
    g = np.random.default_rng(0)
    for path in write_session(film, folder)[0]:
        take = recordings.load(path)
        hidden = g.random(take.confidence.shape) < 0.4 * g.random((take.n_frames, 1, 1))
        confidence = np.where(hidden, 0.0, take.confidence).astype(np.float32)
        recordings.save(replace(take, confidence=confidence, rig="hall"), path)
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(CONFIG.replace("TAKES", str(folder)))
    return path


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """The run that one process makes of the config."""
    out = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_EVERY", 1)
        train(configs.load(config), out)
    rows = metrics_log.read(out)
    assert [row["phase"] for row in rows][8:18] == ["stage 1"] * 9 + ["stage 2"]
    assert all(float(row["loss"]) > 0.01 for row in rows)
    return out


EVERY_STEP = """
loop.LOG_EVERY = 1
program.report = lambda *_: print("reported:", torch.distributed.is_initialized())
"""


@pytest.fixture
def processes(programs):
    """`torchrun --nproc_per_node n -m canonlift train`, with code to run first in each."""

    def run(n, *argv, first=""):
        return programs.run_together(n, "train", *argv, first=EVERY_STEP + first)

    return run


def assert_same_run(found, expected, atol=2e-5):
    """The same steps in the same phases, with the same losses and weights but for rounding."""
    rows = metrics_log.read(found), metrics_log.read(expected)
    for one, other in zip(*rows, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds", "phase"}:
            assert (one[name] == "") == (other[name] == "")
            if one[name]:
                assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-5), one
        assert one["phase"] == other["phase"]
    found, expected = checkpoint.load(found), checkpoint.load(expected)
    assert found["progress"]["total_step"] == expected["progress"]["total_step"]
    assert found["notes"] == expected["notes"]
    for name, value in expected["lifter"].items():
        torch.testing.assert_close(found["lifter"][name], value, rtol=1e-3, atol=atol)
    torch.testing.assert_close(found["mean_pose"], expected["mean_pose"], rtol=0, atol=1e-4)


def test_several_processes_train_as_one(processes, config, alone, tmp_path):
    """Phases end at the same step, by convergence too; and one process alone writes."""
    codes, said = processes(2, config, "--out", tmp_path / "run")
    assert codes == [0, 0], said
    assert "stage 1: converged" in said[0]
    assert said[0].count("reported: False") == 1  # evaluation may take longer than others wait
    assert not any(said[1:])
    assert_same_run(tmp_path / "run", alone)
    files = {path.name for path in alone.iterdir()}
    assert {path.name for path in (tmp_path / "run").iterdir()} == files


def test_several_processes_train_sequences_as_one(processes, config, tmp_path, monkeypatch):
    """With every term of windows, each a mean over what all processes hold."""
    terms = [
        name for name, term in TERMS.items() if "image_scale" in term.needs or name == "flexion"
    ]
    lines = config.read_text().partition("schedule:")[0].replace("solved", "pose3d")
    lines = lines.replace("model: {width: 32, rotation: 6d}\n", "")
    over_time = tmp_path / "over_time.yaml"
    over_time.write_text(f"""{lines}
windows: {{length: 7, stride: 3}}
model: {{name: temporal, depth: 1, heads: 2, width: 16}}
relation: {{name: procrustes, segment: 4}}
schedule:
  - name: all
    steps: 8
    learning_rate: 1.0e-3
    weights: {{{", ".join(f"{name}: 1" for name in terms)}}}
""")
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    train(configs.load(over_time), tmp_path / "alone")
    codes, said = processes(2, over_time, "--out", tmp_path / "run")
    assert codes == [0, 0], said
    # Adam takes a step of the same size where next to no gradient is left of what cancels out.
    assert_same_run(tmp_path / "run", tmp_path / "alone", atol=3e-4)


def test_processes_share_a_session_on_disk(processes, config, alone, tmp_path):
    """The first copies it there; then it is the same run, in smaller portions."""
    codes, said = processes(2, config, f"data.shards={tmp_path}/shards", "--out", tmp_path / "run")
    assert codes == [0, 0], said
    assert_same_run(tmp_path / "run", alone)
    assert len(list((tmp_path / "shards").glob("*.npy"))) == 2


# torchrun itself, whose workers are forked instead of started: they need import nothing.
TORCHRUN = """
import subprocess, time
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler
def die(*args):
    if os.environ["RANK"] == "1" and args[0].progress.total_step == 11:
        print("killed at", time.time(), file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return descend(*args)
descend, loop.descend = loop.descend, die
class Forked:
    returncode = None
    def __init__(self, _, command, env):
        assert command[:4] == (sys.executable, "-u", "-m", "canonlift")
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.environ |= env
            for name in ("SIGTERM", "SIGHUP", "SIGQUIT"):  # torchrun has handlers of its own
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.alarm(120)
            run(command[4:])
    def poll(self):
        if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])
        return self.returncode
    def wait(self, timeout):
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("a worker", timeout)
            time.sleep(0.01)
SubprocessHandler._popen = lambda *args: Forked(*args)
torchrun.main(sys.argv)
sys.exit()
"""


def test_torchrun_ends_all_when_one_is_killed_and_one_alone_can_go_on(
    programs, config, alone, tmp_path
):
    often = "checkpoint_seconds=0"
    code, said = programs.run(
        "--standalone", "--nproc_per_node", 2, "-m", "canonlift", "train", config, often,
        "--out", tmp_path / "run", first=EVERY_STEP + TORCHRUN,
    )  # fmt: skip
    assert time.time() - float(re.search(r"killed at (\S+)", said)[1]) < 20
    assert code == 1
    assert re.search(r"rank +: 1 .*\n +exitcode +: -9 ", said)
    stopped = "canonlift train: error: another process of this run has ended or does not answer"
    # torchrun's signal may be faster than the message
    assert stopped in said or re.search(r"rank +: 0 .*\n +exitcode +: -15 ", said)
    assert checkpoint.load(tmp_path / "run")["progress"]["total_step"] == 11
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_EVERY", 1)
        train(configs.load(config, [often]), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", alone)


LOSE_ONE = """
import os, signal
distributed.time.sleep = lambda _: None  # nobody else will speak
def die(*args):
    if os.environ["RANK"] == "WHO" and args[0].progress.total_step == 11:
        os.kill(os.getpid(), signal.SIGKILL)
    return descend(*args)
descend, loop.descend = loop.descend, die
"""


@pytest.mark.parametrize("lost", [0, 1])
def test_who_loses_another_says_so_and_stops(processes, config, tmp_path, lost):
    codes, said = processes(
        2, config, "--out", tmp_path / "run", first=LOSE_ONE.replace("WHO", str(lost))
    )
    assert codes[lost] == -signal.SIGKILL
    assert codes[1 - lost] == 1
    assert said[1 - lost].splitlines()[-1] == (
        "canonlift train: error: another process of this run has ended or does not answer, so "
        "this one stops too; continue with --resume, with any number of processes"
    )
    assert "Traceback" not in said[1 - lost]


def test_asked_to_stop_all_stop_at_the_same_step_and_any_number_goes_on(
    processes, config, alone, tmp_path
):
    """Though only one of them was asked."""
    first = """
import os, signal
def stop(*args):
    if os.environ["RANK"] == "1" and args[0].progress.total_step == 9:
        os.kill(os.getpid(), signal.SIGTERM)
    return descend(*args)
descend, loop.descend = loop.descend, stop
"""
    codes, said = processes(2, config, "--out", tmp_path / "run", first=first)
    assert codes == [130, 0]
    assert (
        said[0].splitlines()[-1]
        == "canonlift train: SIGTERM: saved at step 10; continue with --resume"
    )
    assert said[1] == ""
    assert checkpoint.load(tmp_path / "run")["progress"]["total_step"] == 10
    codes, said = processes(3, config, "--out", tmp_path / "run", "--resume")
    assert codes == [0, 0, 0], said
    assert_same_run(tmp_path / "run", alone)


def test_a_loss_that_is_not_finite_stops_all_and_is_explained_once(processes, config, tmp_path):
    """Wherever the bad frame lies in the batch."""
    take = recordings.load(Path(configs.load(config).data.train[0]).parent / "train_00.npz")
    keypoints, confidence = take.keypoints.copy(), take.confidence.copy()
    keypoints[:, 1, 3], confidence[:, 1, 3] = 1e30, 0.5
    absurd = replace(take, keypoints=keypoints, confidence=confidence)
    recordings.save(absurd, tmp_path / "absurd.npz")
    good = configs.load(config).data.train[0].replace("*", "01")
    codes, said = processes(
        2, config, f"data.train=[{tmp_path}/absurd.npz, {good}]", "--out", tmp_path / "run",
        "schedule=[{name: a, steps: 99, weights: {reprojection: 1.0, refinement: 1.0}}]",
        first="distributed.time.sleep = lambda _: os._exit(7)",
    )  # fmt: skip
    assert codes == [1, 7], said
    assert re.fullmatch(
        r"canonlift train: error: the loss is not finite at step \d+: \w+ in \S*absurd.npz\. .*",
        said[0].splitlines()[-1],
    )
    assert said[1] == ""


def test_a_batch_too_small_for_the_processes_is_refused(processes, config, tmp_path):
    codes, said = processes(3, config, "batch_size=2", "--out", tmp_path / "run",
        first="distributed.time.sleep = lambda _: None",
    )  # fmt: skip
    assert codes == [2, 2, 2]
    for words in said:
        assert words.splitlines()[-1] == (
            "canonlift train: error: a batch of 2 cannot be split over 3 processes; start fewer, "
            "or raise batch_size"
        )


def test_a_folder_in_use_is_refused_once(processes, config, alone):
    codes, said = processes(
        2, config, "--out", alone, first="distributed.time.sleep = lambda _: None"
    )
    assert codes == [2, 1]  # the other only misses the first
    assert re.match("canonlift train: error: .* already holds a run", said[0])
    assert "already holds" not in said[1]


def test_weights_that_no_term_reaches_stay_as_they_are(processes, config, tmp_path):
    """CanonPose's term alone says nothing of poses; weight decay must not touch them either."""
    only = [
        "schedule=[{name: a, steps: 4, weight_decay: 0.9, weights: {camera_consistency: 1.0}}]",
        "data.target=none",
    ]  # fmt: skip
    codes, said = processes(2, config, *only, "--out", tmp_path / "run")
    assert codes == [0, 0], said
    torch.manual_seed(0)
    untrained = checkpoint.new_network(configs.load(config, only)).state_dict()
    trained = checkpoint.load(tmp_path / "run")["lifter"]
    turned = checkpoint.load(tmp_path / "run")["notes"]["mirror"]["turned_round"]
    for name, value in untrained.items():
        if name.startswith("rotation"):
            assert not torch.equal(trained[name], value)
        elif name.startswith("pose.0") or not turned:
            assert name.startswith("encode") or torch.equal(trained[name], value), name


def test_the_gradient_is_that_of_the_whole_batch(processes, tmp_path):
    """By autograd through sums over all parts, of something that is no mean."""
    first = f"""
import torch.distributed as dist, canonlift.distributed as p
weight, seen = torch.load({str(tmp_path / "in.pt")!r})
with p.joined(torch.device("cpu")):
    weight.requires_grad_()
    part = p.share(seen[None])[0]
    up, down = p.over_all((weight * part).square().sum(), (weight + part).abs().sum())
    loss = up.sin() / down
    loss.backward()
    dist.all_reduce(weight.grad)
    torch.save((loss.detach(), weight.grad / 2), f"{tmp_path}/out{{dist.get_rank()}}.pt")
sys.exit(0)
"""
    generator = torch.Generator().manual_seed(0)
    weight, seen = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    weight = weight[:1].clone()
    torch.save((weight, seen), tmp_path / "in.pt")
    codes, said = processes(2, first=first)
    assert codes == [0, 0], said
    weight.requires_grad_()
    loss = (weight * seen).square().sum().sin() / (weight + seen).abs().sum()
    loss.backward()
    for rank in range(2):
        value, gradient = torch.load(tmp_path / f"out{rank}.pt", weights_only=True)
        torch.testing.assert_close(value, loss.detach())
        torch.testing.assert_close(gradient, weight.grad)


def test_one_process_needs_nobody():
    """Nothing here costs or changes anything where torchrun is not."""
    sums = torch.tensor(1.0), torch.tensor(2.0)
    assert distributed.is_first()
    assert distributed.over_all(*sums) == sums
    assert distributed.share(batches := torch.arange(6).view(2, 3)) is batches
    assert distributed.from_first(lambda: "made") == "made"
    assert distributed.highest(3, 1) == (3, 1)
    module = torch.nn.Linear(1, 1)
    assert distributed.distribute(module) is module
    assert frame_losses.weighted_mean(torch.ones(3), torch.zeros(3)) == 0
    distributed.wait()
    distributed.leave()
    with distributed.joined(torch.device("cuda")):
        assert distributed.own_device(torch.device("cuda")) == torch.device("cuda")
