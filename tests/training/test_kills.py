"""Laws of programs that are killed, interrupted, or asked for what cannot be."""

import os
import random
import re
import signal
import time
from contextlib import suppress

import pytest
import torch
from training_scene import same, table, weights

from canonlift.training import checkpoint

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

QUICK = "program.report = lambda *_: None\n"  # no pictures
SLOW = """
import time
descend = loop.descend
loop.descend = lambda *args: (time.sleep(0.01), descend(*args))[1]
"""


MOMENTS = {
    "its first file half written": "os.replace = die",
    "no checkpoint yet": "session.read = die",
    "a checkpoint half written": """
def half(run, state):
    if state["progress"]["total_step"] >= 6:
        os.replace = die
    save(run, state)
save, checkpoint.save = checkpoint.save, half
""",
    "a row of the log ahead of the checkpoint": """
def ahead(self, row):
    write(self, row)
    if row["step"] == 10:
        die()
write, log.MetricsLog.write = log.MetricsLog.write, ahead
""",
    "the first phase over": "train.HOOKS = train.HOOKS._replace(phase_ends=(die,))",
    "the last phase over": """
last = lambda run, *_: die() if run.progress.phase == 2 else None
train.HOOKS = train.HOOKS._replace(phase_ends=(last, *train.HOOKS.phase_ends))
""",
    "all but the last checkpoint written": "train.HOOKS = train.HOOKS._replace(finished=die)",
}


def assert_as_if_never_killed(out, trained):
    assert same(weights(out), weights(trained))
    assert torch.equal(checkpoint.load(out)["mean_pose"], checkpoint.load(trained)["mean_pose"])
    assert table(out) == table(trained)


def test_killed_at_every_awkward_moment_it_ends_the_same(programs, trained, tiny, tmp_path):
    out = tmp_path / "run"
    argv = ("train", tiny, "--out", out)
    for number, (moment, first) in enumerate(MOMENTS.items()):
        resume = ["--resume"] if number else []
        code, said = programs.run(*argv, *resume, first=QUICK + first)
        assert code == -signal.SIGKILL, f"{moment}: {said}"
    code, said = programs.run(*argv, "--resume", first=QUICK)
    assert code == 0, said
    assert_as_if_never_killed(out, trained)


def test_killed_at_random_moments_it_ends_the_same(programs, trained, tiny, tmp_path):
    out = tmp_path / "run"
    argv = ("train", tiny, "--out", out, "--resume")
    kills = 0
    chance = random.Random(time.time_ns())
    for _ in range(4):
        child = programs.start(*argv, first=QUICK + SLOW)
        time.sleep(chance.uniform(0.1, 0.4))
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        code, said = programs.wait()
        kills += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL), said
        if code == 0:
            break
    else:
        code, said = programs.run(*argv, first=QUICK)
        assert code == 0, said
    assert kills > 0
    assert_as_if_never_killed(out, trained)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_asked_to_stop_it_saves_and_can_go_on(programs, trained, tiny, tmp_path, name):
    out = tmp_path / "run"
    first = f"""
descend, count = loop.descend, iter(range(99))
def stop(*args):
    if next(count) == 16:
        os.kill(os.getpid(), signal.{name})
    return descend(*args)
loop.descend = stop
"""
    code, said = programs.run("train", tiny, "--out", out, first=QUICK + first)
    assert code == 130
    assert said.splitlines()[-1] == (
        f"canonlift train: {name}: saved at step 17; continue with --resume"
    )
    assert "Traceback" not in said
    assert checkpoint.load(out)["progress"]["total_step"] == 17
    code, said = programs.run("train", tiny, "--out", out, "--resume", first=QUICK)
    assert code == 0, said
    assert_as_if_never_killed(out, trained)


def test_ctrl_c_before_the_first_step_is_answered_without_a_traceback(programs, tiny, tmp_path):
    first = "session.read = lambda *_: os.kill(os.getpid(), signal.SIGINT)"
    code, said = programs.run("train", tiny, "--out", tmp_path / "run", first=first)
    assert code == 130
    assert said.splitlines()[-1] == "canonlift train: interrupted; continue with --resume"
    assert "Traceback" not in said


def test_a_second_ctrl_c_kills(programs, tiny, tmp_path):
    first = """
def twice(*_):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
loop.descend = twice
"""
    code, said = programs.run("train", tiny, "--out", tmp_path / "run", first=first)
    assert code == 130
    assert "saved" not in said


@pytest.mark.parametrize(
    ("program", "options"),
    [
        ("train", ("CONFIG", "key=value", "--out", "--resume", "canonlift train demo")),
        ("eval", ("RUN", "--recordings", "--out", "--figures", "--device")),
    ],
)
def test_help_names_every_option(programs, program, options):
    code, said = programs.run(program, "--help")
    assert code == 0
    for option in options:
        assert option.lower() in said.lower()


def test_the_scripts_are_the_commands(programs, tiny, tmp_path):
    """train.py and eval.py, as a user starts them; what is wrong ends in one line."""
    script = "import runpy; runpy.run_path({!r}, run_name='__main__')"
    code, said = programs.run(
        "train.py", tiny, "model.widht=9", "--out", tmp_path / "run",
        first=script.format("train.py"),
    )  # fmt: skip
    assert code == 2
    assert said == (
        f"canonlift train: error: {tiny}: model.widht: Key 'widht' not in 'ModelConfig'. "
        "Did you mean: 'width'?\n"
    )
    assert not (tmp_path / "run").exists()
    code, said = programs.run("eval.py", tmp_path, first=script.format("eval.py"))
    assert (code, said) == (2, f"canonlift eval: error: {tmp_path}/checkpoint.pt: no checkpoint; "
                            f"is {tmp_path} the folder of a run?\n")  # fmt: skip


def test_other_failures_end_in_one_line_too(programs, trained, tiny, tmp_path):
    for argv, message in {
        ("train", tmp_path / "no.yaml"): "canonlift train: error: .*no.yaml: no such file, nor",
        ("train", tiny, "--out", trained): "canonlift train: error: .* already holds a run",
        ("eval", trained, "--recordings", "nothing/*.npz"): "canonlift eval: .* no recording",
        ("eval", trained, "--device", "gpu"): "canonlift eval: .*'gpu' does not work here",
    }.items():
        code, said = programs.run(*argv)
        assert code == 2
        assert len(said.splitlines()) == 1
        assert re.match(message, said)


def test_a_run_that_fails_has_a_status_of_its_own(programs, tiny, tmp_path):
    settings = ("schedule.0.learning_rate=1e30", "checkpoint_seconds=99")
    code, said = programs.run("train", tiny, *settings, "--out", tmp_path / "run", first=QUICK)
    assert code == 1
    assert "canonlift train: error: the loss is not finite at step 1" in said.splitlines()[-1]
