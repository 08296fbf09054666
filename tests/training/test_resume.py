"""Laws of runs that go on: from weights that are there, in a folder that is theirs."""

import pytest
import torch
from training_scene import same, weights

from canonlift.inference.model import load
from canonlift.training import checkpoint, runs
from canonlift.training import config as configs
from canonlift.training.train import train

pytestmark = pytest.mark.usefixtures("shapes_unchecked")


def test_starts_from_the_weights_of_a_finished_run(short):
    first = short()
    still = "schedule.0.learning_rate=1e-9", "schedule.1.learning_rate=1e-9"
    found = weights(short(f"start_from={first}", *still))
    for name, value in weights(first).items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)
    assert not same(found, weights(short(*still)))


def test_resumes_without_the_run_it_started_from(short, tmp_path):
    first = short()
    config = short.config(f"start_from={first}", "seed=2")
    begun = runs.start(config, tmp_path / "begun", resume=False)
    with torch.no_grad():
        begun.network.pose[-1].bias.fill_(7.0)
    begun.save()
    first.rename(tmp_path / "gone")
    again = runs.start(config, tmp_path / "begun", resume=True)
    assert same(again.network.state_dict(), begun.network.state_dict())


def test_starts_from_weights_whatever_they_were_multiplied_in(short):
    first = short("model.precision=bfloat16")
    begun = runs.start(short.config(f"start_from={first}"), first.with_name("begun"), resume=False)
    assert begun.network.precision == "float32"
    assert same(begun.network.state_dict(), weights(first))


def test_refuses_to_start_from_what_does_not_fit(short, trained, tmp_path):
    with pytest.raises(ValueError, match=r"was trained with model.width 16, not 17; set the same"):
        short(f"start_from={trained}", "model.width=17")
    words = (
        "with skeleton h36m17, not limbs14; train it with skeleton=limbs14, or leave start_from"
    )
    with pytest.raises(ValueError, match=words):
        short(f"start_from={trained}", "skeleton=limbs14")
    with pytest.raises(FileNotFoundError, match="start_from: .*nothing does not exist; it has"):
        short(f"start_from={tmp_path}/nothing")
    runs.start(short.config(), tmp_path / "begun", resume=False).save()
    with pytest.raises(ValueError, match="training has not finished"):
        short(f"start_from={tmp_path}/begun")


def test_refuses_a_folder_that_holds_something(trained, tiny, tmp_path):
    config = configs.load(tiny)
    with pytest.raises(FileExistsError, match="already holds a run.*continue it with --resume"):
        train(config, trained)
    with pytest.raises(FileExistsError, match="finished run; evaluate it with `canonlift eval"):
        train(config, trained, resume=True)
    (tmp_path / "thesis.tex").write_text("precious")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="already holds something else"):
            train(config, tmp_path, resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_resumes_with_its_own_config_only(short, tmp_path):
    run = runs.start(short.config(), tmp_path / "begun", resume=False)
    run.save()
    for override in ("seed=1", "model.width=17", "schedule.1.steps=5"):
        with pytest.raises(ValueError, match="started with another config .*config.yaml"):
            runs.start(short.config(override), tmp_path / "begun", resume=True)
    runs.start(short.config(), tmp_path / "begun", resume=True)


def test_a_resumed_run_holds_all_that_the_saved_one_held(short, tmp_path):
    config = short.config()
    run = runs.start(config, tmp_path / "begun", resume=False)
    run.next_phase()
    for group in run.optimiser.param_groups:
        for weight in group["params"]:
            weight.grad = torch.ones_like(weight)
    run.optimiser.step()
    run.progress.count(3.5, run.phase.convergence)
    run.progress.seconds = 4.5
    run.notes = {"mirror": {"mirrored": 2, "upright": 1, "certainty": 2 / 3}}
    assert not same(run.best, run.network.state_dict())
    run.save()

    again = runs.start(config, tmp_path / "begun", resume=True)
    assert same(again.network.state_dict(), run.network.state_dict())
    assert same(again.best, run.best)
    assert (again.progress, again.notes, again.phase) == (run.progress, run.notes, run.phase)
    one, other = run.optimiser.state_dict()["state"], again.optimiser.state_dict()["state"]
    assert one.keys() == other.keys()
    assert all(same(one[key], other[key]) for key in one)


def test_resume_without_a_run_begins_one(short, plain_weights, tmp_path):
    train(short.config(), tmp_path / "new", resume=True)
    assert same(weights(tmp_path / "new"), plain_weights)


def test_an_unknown_device_is_refused_before_anything_is_written(short, tmp_path):
    with pytest.raises(ValueError, match="device 'gpu' does not work here; use auto or cpu"):
        short("device=gpu", name="nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_checkpoint_of_another_version_is_refused_with_the_remedy(short):
    out = short()
    state = checkpoint.load(out)
    del state["format"]
    torch.save(state, out / checkpoint.FILE)
    message = r"another version of canonlift \(format 1, need 2\).*train it again with `canonlift"
    for read in (checkpoint.load, load):
        with pytest.raises(ValueError, match=message):
            read(out)
    with pytest.raises(ValueError, match=message):
        train(short.config(), out, resume=True)
