"""Laws of the tables of terms, models and relations, and of what a pass computes for them."""

import itertools
from dataclasses import replace

import pytest
import torch
from synthetic_scene import HOME, disturbed, random, scene, uniform
from torch.testing import assert_close

from canonlift.body.skeleton import H36M17
from canonlift.methods.fusion import METHODS, FusionConfig
from canonlift.methods.objective import Objective
from canonlift.methods.passes import Method, Pass
from canonlift.methods.relations import RELATIONS, RelationConfig
from canonlift.methods.terms import MEASURES, NEEDS, TERMS
from canonlift.models.config import ModelConfig
from canonlift.models.mlp import ROTATIONS
from canonlift.models.table import MODELS, build
from canonlift.types import Target, flatten_time

CANONICAL = [name for name, term in TERMS.items() if "image_scale" not in term.needs]
CANONICAL = [name for name in CANONICAL if "motion" not in TERMS[name].needs]
each_term = pytest.mark.parametrize("name", CANONICAL)
LENGTH = 5


def network(name="mlp", length=1, **options):
    """Untrained, but with rotations that differ between the views."""
    torch.manual_seed(0)
    config = ModelConfig(name=name, width=24, **options)
    made = build(config, length, len(H36M17), HOME).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.0)
    return made


def method(fusion="exact", relation="predicted", segment=0, joints=H36M17, **options):
    return Method(joints, RelationConfig(relation, segment), FusionConfig(fusion, **options))


def lifted_by(views, **options):
    return Pass(views, network(rotation="6d"), method(**options))


@pytest.fixture
def views():
    """A static rig, a target, and some joints and a view that were not observed."""
    views, _ = disturbed(*scene())
    confidence = views.confidence * (views.confidence > 0.1)
    confidence[1, 2] = 0.0
    target = Target(random(3, 4, 17, 3, seed=7), uniform(3, 4, 17, seed=8))
    views = replace(views, confidence=confidence, rig=torch.tensor([4, 2, 4]), target=target)
    return views.as_windows


@pytest.fixture
def windows():
    """Windows of five frames, and what is missing in them."""
    views, _ = disturbed(*scene(n_samples=3 * LENGTH))
    confidence = views.confidence * (views.confidence > 0.1)
    confidence[1, 2] = 0.0
    shape = (3, LENGTH)

    def over_time(values):
        return values.unflatten(0, shape).transpose(1, 2).contiguous()

    target = Target(over_time(random(15, 4, 17, 3, seed=7)), over_time(uniform(15, 4, 17, seed=8)))
    return replace(
        views,
        keypoints=over_time(views.keypoints),
        confidence=over_time(confidence),
        rig=torch.tensor([4, 2, 4]),
        target=target,
    )


# A pass


def test_a_pass_computes_nothing_that_no_term_reads(views):
    lifting, repairs = [], []
    net = network()
    net.register_forward_hook(lambda *_: lifting.append(1))

    class Watched(Method):
        def repair(self, instants, related):
            repairs.append(1)
            return super().repair(instants, related)

    watched = Watched(**vars(method()))
    for name, expected in {
        "reprojection": (1, 0),
        "flexion": (1, 0),
        "refinement": (1, 1),
        "consensus": (1, 1),
        "consistency_3d": (1, 1),  # the second lift is of poses alone
    }.items():
        lifting.clear()
        repairs.clear()
        Objective(net, watched, {name: 1.0, "refinement": 0.0} | {name: 1.0})(views)
        assert (len(lifting), len(repairs)) == expected, name


def test_each_part_is_computed_once(views):
    result = lifted_by(views)
    for part in ("lifted", "related", "repaired", "relifted", "frame_reposed"):
        assert getattr(result, part) is getattr(result, part)


def test_what_is_repaired_is_lifted_again_by_the_same_network(views):
    net = network(rotation="6d")
    result = Pass(views, net, method())
    repaired = method().repair(views.instants, net(views).instants)
    expected = net(repaired.as_windows)
    assert_close(result.frame_reposed, expected.pose[:, :, 0])
    assert_close(result.relifted.pose, expected.pose)
    assert (result.frame_reposed - result.lifted.pose[:, :, 0]).abs().max() > 1e-3


def test_repair_follows_its_config_and_its_joints(views):
    lifted = network(rotation="6d")(views).instants
    instants = views.instants
    before = instants.keypoints

    def touched(how):
        return (how.repair(instants, lifted).keypoints != before).any(-1).any(0).any(0)

    assert not touched(method(threshold=0.0)).any()
    kept = touched(method(never=("r_knee",)))
    renamed = touched(method(never=("r_knee",), joints=H36M17[::-1]))
    knee = H36M17.index("r_knee")
    assert not kept[knee]
    assert kept[16 - knee]
    assert not renamed[16 - knee]
    assert renamed[knee]


def test_frames_of_windows_are_related_and_repaired_as_single_frames_are(windows):
    """A network of single frames, and losses of single frames: time changes nothing."""
    net, how = network(rotation="6d"), method("triangulate")
    together, frames = Pass(windows, net, how), Pass(windows.instants.as_windows, net, how)
    assert_close(together.frame_related.in_camera, frames.frame_related.in_camera)
    assert_close(together.frame_repaired.keypoints, frames.frame_repaired.keypoints)
    assert_close(flatten_time(together.repaired.confidence), frames.frame_repaired.confidence)
    for name in ("reprojection", "refinement", "consistency_3d", "consensus", "target_pose"):
        assert_close(TERMS[name].compute(together), TERMS[name].compute(frames))


# Terms


def combinations():
    for name, model, relation, length in itertools.product(TERMS, MODELS, RELATIONS, (1, LENGTH)):
        if RELATIONS[relation].canonical and not MODELS[model].canonical:
            continue
        provided = {"target", "motion" if length > 1 else "single_frames"}
        provided |= {"canonical"} if MODELS[model].canonical else set()
        provided |= {"image_scale"} if MODELS[model].image_scale else set()
        if provided.issuperset(TERMS[name].needs):
            yield name, model, relation, length


@pytest.mark.parametrize(("name", "model", "relation", "length"), list(combinations()))
def test_whatever_is_not_refused_trains(name, model, relation, length, views, windows):
    """Every term, by every model and relation that provide what it needs."""
    net = network(model, length)
    given = views if length == 1 else windows
    value = TERMS[name].compute(Pass(given, net, method("triangulate", relation)))
    assert value.isfinite()
    value.backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@each_term
@pytest.mark.parametrize("fusion", METHODS)
def test_every_term_trains_something(name, fusion, views):
    """`refinement` would not, if the repaired place came from an argmax alone."""
    net = network(rotation="6d")
    TERMS[name].compute(Pass(views, net, method(fusion))).backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert max(gradient.abs().max() for gradient in gradients) > 1e-5


def test_all_that_terms_need_has_words():
    needed = {need for row in (*TERMS.values(), *MEASURES.values()) for need in row.needs}
    assert needed == set(NEEDS)


def test_the_consensus_of_a_pass_is_the_target_where_that_is_trusted(views):
    """Repair does not lose the target on the way."""
    trust = views.target.trust * (uniform(3, 4, 1, 1, seed=9) > 0.5)
    views = replace(views, target=replace(views.target, trust=trust))
    result = lifted_by(views, threshold=2.0)
    assert (result.repaired.keypoints != views.keypoints).any()
    trusted = (trust.amax(-1, keepdim=True) > 0.5).expand_as(trust)
    for changed, matters in ((trusted, True), (~trusted, False)):
        pose = torch.where(changed[..., None], -views.target.pose, views.target.pose)
        other = replace(views, target=replace(views.target, pose=pose))
        found = TERMS["consensus"].compute(lifted_by(other, threshold=2.0))
        same = torch.equal(found, TERMS["consensus"].compute(result))
        assert same != matters


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("fusion", METHODS)
def test_the_mirrored_network_is_as_good_by_every_term_without_a_target(rotation, fusion, views):
    """Trap 1, from detections to loss; `flexion` is there to tell the two apart."""
    net = network(rotation=rotation)
    views = replace(views, target=None)
    names = [name for name in CANONICAL if "target" not in TERMS[name].needs]
    names.remove("flexion")
    # Wide ridges: along the crest of a narrow one that is alone, rounding decides where to go.
    objective = Objective(net, method(fusion, line_sigma=0.1), dict.fromkeys(names, 1.0))
    _, before = objective(views)
    net.mirror()
    _, after = objective(views)
    for name in names:
        assert_close(after[name], before[name], atol=1e-4, rtol=1e-3)


@each_term
def test_terms_do_not_depend_on_the_size_of_the_images(name, views):
    larger = replace(views, keypoints=500 * views.keypoints)
    values = [TERMS[name].compute(lifted_by(given)) for given in (views, larger)]
    assert_close(*values, atol=1e-6, rtol=1e-4)


# The sum


def test_the_total_is_the_weighted_sum_of_its_terms(views):
    weights = {"reprojection": 0.3, "refinement": 7.0, "repaired_reprojection": -2.0}
    net = network(rotation="6d")
    total, terms = Objective(net, method(), weights)(views)
    assert list(terms) == list(weights)
    for name, value in terms.items():
        assert_close(value, TERMS[name].compute(Pass(views, net, method())).detach())
        assert not value.requires_grad
    assert total.requires_grad
    by_hand = (
        0.3 * terms["reprojection"] + 7 * terms["refinement"] - 2 * terms["repaired_reprojection"]
    )
    assert_close(total.detach(), by_hand)


def test_a_term_of_weight_0_is_not_computed(views):
    """It needs no target either."""
    weights = {"reprojection": 1.0, "target_pose": 0.0}
    _, terms = Objective(network(), method(), weights)(replace(views, target=None))
    assert list(terms) == ["reprojection"]


def test_measures_are_taken_of_what_was_computed(windows):
    how = method("triangulate", "procrustes")
    net = network("temporal", LENGTH)
    _, alone = Objective(net, how, {"own_view": 1.0}, tuple(MEASURES))(windows)
    assert list(alone) == ["own_view", "spread", "depth", "movement"]
    _, aligned = Objective(net, how, {"consistency": 1.0}, tuple(MEASURES))(windows)
    assert list(aligned) == ["consistency", *MEASURES]
