"""Laws of the network, whatever its weights."""

from dataclasses import replace

import pytest
import torch
from synthetic_scene import HOME, scene
from torch.testing import assert_close

from canonlift.body.skeleton import H36M17
from canonlift.models import layers
from canonlift.models.config import ModelConfig
from canonlift.models.layers import PRECISIONS, Linear
from canonlift.models.mlp import ROTATIONS, CanonicalLifter
from canonlift.types import Views

DEPTH = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
each_head = pytest.mark.parametrize("rotation", ROTATIONS)


def lifter(rotation="6d", seed=0, dtype=torch.float64):
    """Untrained, but with no output near 0."""
    torch.manual_seed(seed)
    network = CanonicalLifter(ModelConfig(width=32, rotation=rotation), len(H36M17), HOME).to(
        dtype
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    return network.requires_grad_(False)


@pytest.fixture
def partly(noisy):
    """Noisy views, of which some joints and one whole view were not observed."""
    views, _ = noisy
    confidence = views.confidence * (views.confidence > 0.2)
    confidence[1, 2] = 0.0
    return replace(views, confidence=confidence)


def assert_same(a, b, **tolerance):
    assert_close(a.pose, b.pose, **tolerance)
    assert_close(a.rotation, b.rotation, **tolerance)


@each_head
def test_lifts_one_view_alone_as_it_does_among_others(rotation, partly):
    network = lifter(rotation)
    together = network(partly)
    for v in range(partly.keypoints.shape[1]):
        alone = Views(partly.keypoints[:, v : v + 1], partly.confidence[:, v : v + 1], partly.rig)
        found = network(alone)
        assert_close(found.pose, together.pose[:, v : v + 1])
        assert_close(found.rotation, together.rotation[:, v : v + 1])


def test_a_sample_does_not_depend_on_the_rest_of_the_batch(partly):
    network = lifter()
    together = network(partly)
    for i in range(len(partly)):
        assert_same(network(partly[i : i + 1]), together[i : i + 1])


@pytest.mark.parametrize("n_views", [1, 2, 8])
def test_takes_any_number_of_views(n_views):
    views, _ = scene(2, n_views)
    found = lifter()(views)
    assert found.in_every_camera.shape == (2, n_views, n_views, 17, 3)


@each_head
@pytest.mark.parametrize("size", [1e-4, 3.0, 1e4])
def test_does_not_depend_on_the_size_of_the_image(rotation, size, partly):
    larger = replace(partly, keypoints=size * partly.keypoints)
    assert_same(lifter(rotation)(larger), lifter(rotation)(partly))


@pytest.mark.parametrize("poison", [1e6, torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_was_not_observed_does_not_matter(poison, dtype, partly):
    views = partly.to(dtype)
    poisoned = views.keypoints.masked_fill(~views.observed[..., None], poison)
    network = lifter(dtype=dtype)
    found, expected = network(replace(views, keypoints=poisoned)), network(views)
    assert torch.equal(found.pose, expected.pose)
    assert torch.equal(found.rotation, expected.rotation)


def test_confidence_and_every_joint_matter(partly):
    network = lifter()
    before = network(partly).pose
    surer = network(replace(partly, confidence=partly.confidence.sqrt())).pose
    assert ((surer - before).abs().amax((-2, -1)) > 1e-3)[partly.observed.any(-1)].all()
    for joint in set(range(17)) - {HOME}:
        moved = partly.keypoints.clone()
        moved[:, :, joint] += 10.0
        change = (network(replace(partly, keypoints=moved)).pose - before).abs().amax((-2, -1))
        assert ((change > 1e-6) == partly.observed[:, :, joint]).all()


@each_head
def test_poses_are_centred_on_the_root_and_rotations_are_rotations(rotation, partly):
    found = lifter(rotation)(partly)
    assert (found.pose[:, :, HOME] == 0).all()
    eye = torch.eye(3, dtype=torch.float64).expand_as(found.rotation)
    assert_close(found.rotation @ found.rotation.mT, eye)
    assert (torch.linalg.det(found.rotation) > 0).all()


@each_head
def test_the_untrained_head_predicts_hardly_a_turn(rotation, partly):
    torch.manual_seed(0)
    network = CanonicalLifter(ModelConfig(width=256, rotation=rotation), 17, HOME).double()
    found = network(partly).rotation
    assert torch.einsum("bvii->bv", found).min() > 2.5  # 3 for no turn


@each_head
def test_mirror_lifts_exactly_into_the_mirrored_world(rotation, partly):
    """Poses become S X and rotations S R S with S = diag(1, 1, -1)."""
    network = lifter(rotation)
    before = network(partly)
    network.mirror()
    after = network(partly)
    assert torch.equal(after.pose, before.pose * DEPTH)
    expected = DEPTH[:, None] * before.rotation * DEPTH
    assert_close(after.rotation, expected, atol=1e-14, rtol=0)
    assert (after.pose - before.pose).abs().max() > 0.1
    assert (after.rotation - before.rotation).abs().max() > 0.01


@each_head
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mirrored_twice_is_as_before_bit_for_bit(rotation, dtype, partly):
    network, views = lifter(rotation, dtype=dtype), partly.to(dtype)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    before = network(views)
    network.mirror()
    network.mirror()
    after = network(views)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert torch.equal(after.pose, before.pose)
    assert torch.equal(after.rotation, before.rotation)


@each_head
def test_float32_lifts_as_float64_does(rotation, partly):
    network = lifter(rotation)
    expected = network(partly)
    found = network.float()(partly.to(torch.float32))
    assert found.pose.dtype == found.rotation.dtype == torch.float32
    assert_close(found.pose.double(), expected.pose, atol=1e-3, rtol=1e-4)
    assert_close(found.rotation.double(), expected.rotation, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_unobserved_view_has_a_finite_gradient(dtype, partly):
    network = lifter(dtype=dtype).requires_grad_()
    views = partly.to(dtype)
    keypoints = views.keypoints.clone().requires_grad_()
    found = network(replace(views, keypoints=keypoints))
    (found.pose.square().sum() + found.rotation.square().sum()).backward()
    gradients = [keypoints.grad, *(p.grad for p in network.parameters())]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (keypoints.grad[~views.observed] == 0).all()


def test_frames_of_windows_are_lifted_as_single_frames_are(partly):
    network = lifter()
    windows = partly.as_windows
    assert_close(network(windows).pose[:, :, 0], network(partly).pose)
    assert_close(network(windows).instants.rotation, network(partly).rotation)
    assert torch.equal(network.poses(windows), network(windows).pose)


@pytest.mark.skipif(not layers.HAS_ONEDNN, reason="oneDNN is not in this torch")
@pytest.mark.parametrize("rows", [(1,), (7,), (3, 5)])
def test_a_linear_layer_by_onednn_is_that_of_torch_with_its_gradients(rows, monkeypatch):
    torch.manual_seed(0)
    layer = layers.Linear(33, 20)
    x, slope = torch.randn(*rows, 33, requires_grad=True), torch.randn(*rows, 20)

    def results():
        y = torch.nn.functional.leaky_relu_(layer(x))  # in place, as the lifter does
        return y, *torch.autograd.grad(y, [x, layer.weight, layer.bias], slope)

    assert layers.by_onednn(x, layer.weight)
    found = results()
    monkeypatch.setattr(layers, "HAS_ONEDNN", False)
    for one, other in zip(found, results(), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_less_precision_is_of_the_products_in_training_alone(precision):
    """Weights and gradients, the input and the output of the network stay in float32."""
    torch.manual_seed(0)
    network = CanonicalLifter(ModelConfig(width=16, precision=precision), 17, 0)
    plain = CanonicalLifter(ModelConfig(width=16), 17, 0)
    plain.load_state_dict(network.state_dict())
    views = scene()[0].to(torch.float32)
    types = []
    for layer in network.modules():
        if isinstance(layer, Linear):
            layer.register_forward_hook(lambda *call: types.append(call[-1].dtype))

    lifted = network(views)
    assert set(types) == {PRECISIONS[precision]}
    assert lifted.pose.dtype == lifted.rotation.dtype == torch.float32
    turned_back = lifted.rotation @ lifted.rotation.mT
    assert_close(turned_back, torch.eye(3).expand_as(turned_back), rtol=0, atol=1e-5)
    assert_close(lifted.pose, plain(views).pose, rtol=0, atol=0.02)
    lifted.pose.square().sum().backward()
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert network.encode[0].weight.grad.dtype == torch.float32
    assert network.poses(views).dtype == torch.float32

    types.clear()
    assert_close(network.eval()(views).pose, plain(views).pose, rtol=0, atol=0)
    assert set(types) == {torch.float32}
