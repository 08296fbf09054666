"""Laws of the stages and of the objective: tables whose rows fit together."""

import itertools
from dataclasses import fields, replace

import pytest
import torch
from conftest import HOME, disturbed, random, scene, uniform
from torch.testing import assert_close

from canonlift.body.skeleton import H36M17
from canonlift.methods.fusion import METHODS, FusionConfig
from canonlift.methods.stages import (
    STAGES,
    AlignPass,
    FusePass,
    LiftPass,
    MendPass,
    MotionPass,
    ReliftPass,
    RemendPass,
    Repair,
    least_stage,
)
from canonlift.methods.terms import TERMS, Objective
from canonlift.models.mlp import ROTATIONS, Lifter, LifterConfig
from canonlift.types import Target

PASSES = (LiftPass, FusePass, ReliftPass)
OF_WINDOWS = (MotionPass, AlignPass, MendPass, RemendPass)
FRAME_TERMS = [name for name, term in TERMS.items() if issubclass(term.reads, LiftPass)]
FRAME_STAGES = [name for name, stage in STAGES.items() if issubclass(stage.produces, LiftPass)]
each_term = pytest.mark.parametrize("name", FRAME_TERMS)


def lifter(rotation="6d"):
    """Untrained, but with rotations that differ between the views."""
    torch.manual_seed(0)
    network = Lifter(LifterConfig(width=24, rotation=rotation), len(H36M17), HOME).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    return network


def repair(method="exact", **options):
    return Repair(FusionConfig(method=method, **options), H36M17)


@pytest.fixture
def views():
    """A static rig, a target, and some joints and a view that were not observed."""
    views, _ = disturbed(*scene())
    confidence = views.confidence * (views.confidence > 0.1)
    confidence[1, 2] = 0.0
    target = Target(random(3, 4, 17, 3, seed=7), uniform(3, 4, 17, seed=8))
    return replace(views, confidence=confidence, rig=torch.tensor([4, 2, 4]), target=target)


# Stages


@pytest.mark.parametrize("name", FRAME_STAGES)
def test_a_stage_produces_what_it_says(name, views):
    result = STAGES[name].run(lifter(), repair(), views)
    assert type(result) is STAGES[name].produces
    assert least_stage(STAGES[name].produces) is STAGES[name]


def test_a_later_pass_holds_all_that_an_earlier_one_does(views):
    names = [[field.name for field in fields(kind)] for kind in PASSES]
    assert names[0] == names[1][:2] == names[2][:2]
    assert names[1] == names[2][:3]
    results = [STAGES[name].run(lifter(), repair(), views) for name in ("lift", "fuse", "relift")]
    for result in results:
        assert result.views is views
        assert_close(result.lifted.pose, results[0].lifted.pose)
        assert_close(result.lifted.rotation, results[0].lifted.rotation)
    assert_close(results[1].fused.keypoints, results[2].fused.keypoints)


def test_what_is_repaired_is_lifted_again_by_the_same_network(views):
    network = lifter()
    result = STAGES["relift"].run(network, repair(), views)
    expected = network(repair()(views, network(views)))
    assert_close(result.relifted, expected.pose)
    assert (result.relifted - result.lifted.pose).abs().max() > 1e-3


def test_repair_follows_its_config_and_its_joints(views):
    lifted = lifter()(views)
    before = views.keypoints
    assert torch.equal(repair(threshold=0.0)(views, lifted).keypoints, before)
    touched = (repair(never=("r_knee",))(views, lifted).keypoints != before).any(-1).any(0).any(0)
    other = Repair(FusionConfig(method="exact", never=("r_knee",)), H36M17[::-1])
    renamed = (other(views, lifted).keypoints != before).any(-1).any(0).any(0)
    knee = H36M17.index("r_knee")
    assert not touched[knee]
    assert touched[16 - knee]
    assert not renamed[16 - knee]
    assert renamed[knee]


# Terms


@each_term
def test_a_term_names_the_least_pass_it_needs(name, views):
    for kind in PASSES:
        result = least_stage(kind).run(lifter(), repair(), views)
        if issubclass(kind, TERMS[name].reads):
            assert TERMS[name].compute(result).isfinite()
        else:
            with pytest.raises(AttributeError):
                TERMS[name].compute(result)


@each_term
@pytest.mark.parametrize("method", METHODS)
def test_every_term_trains_something(name, method, views):
    """`refinement` would not, if the repaired place came from an argmax alone."""
    network = lifter()
    result = least_stage(TERMS[name].reads).run(network, repair(method), views)
    TERMS[name].compute(result).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert max(gradient.abs().max() for gradient in gradients) > 1e-5


def test_the_consensus_of_a_pass_is_the_target_where_that_is_trusted(views):
    """Repair does not lose the target on the way."""
    trust = views.target.trust * (uniform(3, 4, 1, seed=9) > 0.5)
    views = replace(views, target=replace(views.target, trust=trust))
    result = STAGES["fuse"].run(lifter(), repair(threshold=2.0), views)
    assert (result.fused.keypoints != views.keypoints).any()
    trusted = (trust.amax(-1, keepdim=True) > 0.5).expand_as(trust)
    for changed, matters in ((trusted, True), (~trusted, False)):
        pose = torch.where(changed[..., None], -views.target.pose, views.target.pose)
        other = replace(views, target=replace(views.target, pose=pose))
        found = TERMS["consensus"].compute(
            STAGES["fuse"].run(lifter(), repair(threshold=2.0), other)
        )
        same = torch.equal(found, TERMS["consensus"].compute(result))
        assert same != matters


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("method", METHODS)
def test_the_mirrored_network_is_as_good_by_every_term_without_a_target(rotation, method, views):
    """Trap 1, from detections to loss."""
    network = lifter(rotation)
    views = replace(views, target=None)
    names = [name for name in FRAME_TERMS if name != "imitation"]
    objective = Objective(dict.fromkeys(names, 1.0), ReliftPass)
    run = STAGES["relift"].run
    # Wide ridges: along the crest of a narrow one that is alone, rounding decides where to go.
    mend = repair(method, line_sigma=0.1)
    _, before = objective(run(network, mend, views))
    network.mirror()
    _, after = objective(run(network, mend, views))
    for name in names:
        assert_close(after[name], before[name], atol=1e-4, rtol=1e-3)


@each_term
def test_terms_do_not_depend_on_the_size_of_the_images(name, views):
    larger = replace(views, keypoints=500 * views.keypoints)
    values = [
        TERMS[name].compute(STAGES["relift"].run(lifter(), repair(), given))
        for given in (views, larger)
    ]
    assert_close(*values, atol=1e-6, rtol=1e-4)


# The sum


def test_the_total_is_the_weighted_sum_of_its_terms(views):
    weights = {"reprojection": 0.3, "refinement": 7.0, "fused_reprojection": -2.0}
    result = STAGES["fuse"].run(lifter(), repair(), views)
    total, terms = Objective(weights, FusePass)(result)
    assert list(terms) == list(weights)
    for name, value in terms.items():
        assert_close(value, TERMS[name].compute(result).detach())
        assert not value.requires_grad
    assert total.requires_grad
    by_hand = (
        0.3 * terms["reprojection"] + 7 * terms["refinement"] - 2 * terms["fused_reprojection"]
    )
    assert_close(total.detach(), by_hand)


def test_reads_the_least_pass_that_feeds_every_term():
    for count in (1, 2, 3):
        for names in itertools.combinations(FRAME_TERMS, count):
            reads = Objective(dict.fromkeys(names, 1.0), ReliftPass).reads
            assert all(issubclass(reads, TERMS[name].reads) for name in names)
            assert reads in [TERMS[name].reads for name in names]


def test_refuses_an_unknown_term_and_says_what_there_is():
    with pytest.raises(ValueError, match=r"reprojection, imitation.* did you mean 'repr"):
        Objective({"reprojektion": 1.0}, ReliftPass)


@pytest.mark.parametrize("name", TERMS)
def test_refuses_a_term_that_the_stage_cannot_feed(name):
    for produces in (*PASSES, *OF_WINDOWS):
        if issubclass(produces, TERMS[name].reads):
            Objective({name: 1.0}, produces)
            continue
        expected = rf"'{name}' reads a {TERMS[name].reads.__name__}.* a {produces.__name__}"
        with pytest.raises(ValueError, match=expected):
            Objective({name: 1.0}, produces)


@pytest.mark.parametrize("weights", [{}, {"reprojection": 0.0}])
def test_refuses_an_objective_of_nothing(weights):
    with pytest.raises(ValueError, match="at least one term"):
        Objective(weights, LiftPass)
