"""Laws of the networks over time, and of MotionBERT's weights in one of them."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic_scene import HOME, random, uniform
from torch.testing import assert_close

from canonlift.body.skeleton import H36M17
from canonlift.models import motionbert
from canonlift.models.config import ModelConfig
from canonlift.models.layers import Linear
from canonlift.models.table import MODELS, build
from canonlift.training import config as configs
from canonlift.training import runs
from canonlift.types import Views

LENGTH = 9
SMALL = {"depth": 2, "heads": 2, "width": 8, "head_width": 6}
each_model = pytest.mark.parametrize("model", [n for n, row in MODELS.items() if row.image_scale])


def lifter(model):
    """Untrained, but with outputs far from 0."""
    torch.manual_seed(0)
    network = build(ModelConfig(name=model, **SMALL), LENGTH, len(H36M17), HOME).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@pytest.fixture
def windows():
    """With missing joints, a view lost at the end, and one never seen."""
    confidence = uniform(2, 3, 9, 17, seed=1)
    confidence = confidence * (confidence > 0.2)
    confidence[0, 0, 6:] = 0
    confidence[1, 2] = 0
    return Views(50 * random(2, 3, 9, 17, 2), confidence, torch.tensor([-1, -1]))


def only(windows, views=slice(None), frames=slice(None)):
    return Views(
        windows.keypoints[:, views, frames], windows.confidence[:, views, frames], windows.rig
    )


@each_model
def test_lifts_a_view_alone_as_it_does_among_others(model, windows):
    network = lifter(model)
    together = network(windows).in_camera
    for view in range(3):
        some = slice(view, view + 1)
        assert_close(network(only(windows, some)).in_camera, together[:, some])
    assert (together[..., HOME, :] == 0).all()


@each_model
def test_what_was_not_observed_does_not_matter(model, windows):
    network = lifter(model)
    found = network(windows).in_camera
    hidden = (windows.confidence == 0)[..., None]
    other = torch.where(hidden, 1e3 * random(*windows.keypoints.shape, seed=2), windows.keypoints)
    assert_close(network(replace(windows, keypoints=other)).in_camera, found)


@each_model
def test_frames_that_fill_up_a_window_change_nothing(model, windows):
    network = lifter(model)
    view = slice(0, 1)
    filled = network(only(windows, view)[:1]).in_camera[:, :, :6]
    assert_close(network(only(windows, view, slice(0, 6))[:1]).in_camera, filled)


@each_model
def test_a_larger_image_is_a_larger_pose_of_the_same_shape(model, windows):
    network = lifter(model)
    larger = network(replace(windows, keypoints=7.0 * windows.keypoints)).in_camera
    assert_close(larger, 7.0 * network(windows).in_camera)


@each_model
def test_mirrors_exactly(model, windows):
    network = lifter(model)
    before = network(windows).in_camera
    network.mirror()
    depth = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    assert_close(network(windows).in_camera, depth * before)


@each_model
def test_every_weight_learns_from_every_window_however_little_was_seen(model, windows):
    network = lifter(model)
    network(windows).in_camera.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@each_model
def test_only_a_model_of_time_looks_at_other_frames(model, windows):
    network = lifter(model)
    changed = windows.keypoints.clone()
    changed[:, :, 4] *= torch.tensor([-1.0, 1.0], dtype=torch.float64)  # of the same size
    moved = network(replace(windows, keypoints=changed)).in_camera - network(windows).in_camera
    elsewhere = moved[0, 1, [0, 8]].abs().max()
    assert (elsewhere > 1e-6) == (model != "frame")


@each_model
def test_less_precision_is_of_the_products_in_training_alone(model, windows):
    """And not of the last layer's, which would round positions to millimetres."""
    plain, network = lifter(model).float(), lifter(model).float()
    network.precision = "bfloat16"
    types = {}
    for name, layer in network.named_modules():
        if isinstance(layer, Linear):
            layer.register_forward_hook(
                lambda *call, name=name: types.update({name: call[-1].dtype})
            )
    windows = windows.to(torch.float32)
    lifted, expected = network(windows).pose, plain(windows).pose
    assert types.pop("backbone.head") == torch.float32
    assert set(types.values()) == {torch.bfloat16}
    assert lifted.dtype == torch.float32
    assert 0 < (lifted - expected).norm() < 0.03 * expected.norm()
    assert_close(network.eval()(windows).pose, expected, rtol=0, atol=0)


def keeping(compute):
    """A result, and the count of numbers that are kept for its gradient."""
    kept = []

    def keep(x):
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        return compute(), sum(kept)


@pytest.mark.parametrize("model", ["temporal", "dstformer"])
def test_activations_that_are_computed_again_are_not_kept_and_change_no_gradient(model, windows):
    gradients, kept = [], []
    for checkpointing in (False, True):
        network = lifter(model)
        network.backbone.checkpointing = checkpointing
        loss, n_kept = keeping(lambda network=network: network(windows).in_camera.square().sum())
        kept.append(n_kept)
        loss.backward()
        gradients.append([p.grad for p in network.parameters()])
    assert kept[1] < 0.5 * kept[0]
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_untrained_it_predicts_the_detections_without_depth(windows):
    torch.manual_seed(0)
    network = build(ModelConfig("temporal", 192), LENGTH, 17, HOME).double()
    seen = only(windows, slice(1, 2))
    seen = replace(seen, confidence=torch.ones_like(seen.confidence))
    gap = network(seen).in_camera[..., :2] - (seen.keypoints - seen.keypoints[..., :1, :])
    assert gap.abs().mean() < 0.2 * seen.unit.mean()


# MotionBERT


def published(length=27, width=8, code=6, depth=2):
    """Weights in the layout of the published ones."""
    shapes = {
        "temp_embed": (1, length, 1, width),
        "pos_embed": (1, 17, width),
        "joints_embed.weight": (width, 3),
        "joints_embed.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "pre_logits.fc.weight": (code, width),
        "pre_logits.fc.bias": (code,),
        "head.weight": (3, code),
        "head.bias": (3,),
    }
    for i in range(depth):
        shapes |= {f"ts_attn.{i}.weight": (2, 2 * width), f"ts_attn.{i}.bias": (2,)}
        for stream in ("blocks_st", "blocks_ts"):
            for axis in "st":
                layers = {
                    f"norm1_{axis}": (width,), f"norm2_{axis}": (width,),
                    f"attn_{axis}.qkv": (3 * width, width), f"attn_{axis}.proj": (width, width),
                    f"mlp_{axis}.fc1": (4 * width, width), f"mlp_{axis}.fc2": (width, 4 * width),
                }  # fmt: skip
                for name, shape in layers.items():
                    shapes[f"{stream}.{i}.{name}.weight"] = shape
                    shapes[f"{stream}.{i}.{name}.bias"] = shape[:1]
    return {
        name: 0.4 * random(*shape, seed=n).float()
        for n, (name, shape) in enumerate(shapes.items())
    }


def by_hand(state, x, heads=2, depth=2):
    """What those weights make of one sequence (T, J, 3), token by token."""
    state = {name: weight.double() for name, weight in state.items()}

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name, x):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attention(name, tokens):
        size = tokens.shape[-1] // heads
        query, key, value = linear(f"{name}.qkv", tokens).split(tokens.shape[-1], -1)
        parts = []
        for head in range(heads):
            q, k, v = (x[:, head * size : (head + 1) * size] for x in (query, key, value))
            parts.append((q @ k.T / math.sqrt(size)).softmax(-1) @ v)
        return linear(f"{name}.proj", torch.cat(parts, -1))

    def half(block, axis, x):
        y = norm(f"{block}.norm1_{axis}", x)
        mixed = torch.zeros_like(y)
        for i in range(y.shape[0] if axis == "s" else y.shape[1]):
            one = (i, slice(None)) if axis == "s" else (slice(None), i)
            mixed[one] = attention(f"{block}.attn_{axis}", y[one])
        x = x + mixed
        y = linear(f"{block}.mlp_{axis}.fc1", norm(f"{block}.norm2_{axis}", x))
        y = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
        return x + linear(f"{block}.mlp_{axis}.fc2", y)

    x = linear("joints_embed", x) + state["pos_embed"][0] + state["temp_embed"][0, : len(x)]
    for i in range(depth):
        st = half(f"blocks_st.{i}", "t", half(f"blocks_st.{i}", "s", x))
        ts = half(f"blocks_ts.{i}", "s", half(f"blocks_ts.{i}", "t", x))
        share = linear(f"ts_attn.{i}", torch.cat([st, ts], -1)).softmax(-1)
        x = st * share[..., :1] + ts * share[..., 1:]
    return linear("head", linear("pre_logits.fc", norm("norm", x)).tanh())


CONFIG = """
data: {train: [a.npz]}
windows: {length: 9}
model: {name: dstformer, depth: 2, heads: 2, width: 8, head_width: 6}
relation: {name: procrustes}
schedule: [{name: one, steps: 1, weights: {own_view: 1}}]
"""


@pytest.fixture
def start(tmp_path):
    """Starts a run from a file of weights."""
    (tmp_path / "c.yaml").write_text(CONFIG)

    def begin(path, *overrides):
        config = configs.load(tmp_path / "c.yaml", [f"start_from={path}", *overrides])
        return runs.start(config, tmp_path / "run", resume=False)

    return begin


def wrapped(path, state, **more):
    """As the released checkpoints are."""
    torch.save({"model_pos": {f"module.{k}": w for k, w in state.items()}, **more}, path)
    return path


def test_published_weights_load_by_name_and_compute_what_they_should(start, tmp_path):
    """Compared with the arithmetic, token by token; the file is for longer windows."""
    state = published()
    run = start(wrapped(tmp_path / "best.bin", state, epoch=3, lr=1e-4, optimizer={"state": {}}))
    backbone = run.network.backbone.double()
    given = random(1, 9, 17, 3)
    found = backbone(given, torch.ones(1, 9, dtype=torch.bool))[0]
    assert_close(found, by_hand(state, given[0]), atol=1e-10, rtol=1e-8)


def test_weights_that_do_not_fit_are_refused_by_name(start, tmp_path):
    state = published()
    lost = {name: weight for name, weight in state.items() if name != "norm.bias"}
    with pytest.raises(ValueError, match=r"lost.bin: 1 of \d+ .* as norm.bias missing, need \(8,"):
        start(wrapped(tmp_path / "lost.bin", lost))
    with pytest.raises(ValueError, match=r"short.bin: 1 of .* temp_embed \(1, 5, 1, 8\), need"):
        start(wrapped(tmp_path / "short.bin", published(length=5)))
    with pytest.raises(ValueError, match="wide.bin: .* width: 512"):
        start(wrapped(tmp_path / "wide.bin", published(width=10)))
    with pytest.raises(ValueError, match="need model.name: dstformer and skeleton"):
        start(wrapped(tmp_path / "other.bin", state), "model.name=temporal", "model.head_width=0")


def test_opens_no_pickle(start, tmp_path):
    torch.save({"model_pos": {"a": Path("x")}}, tmp_path / "evil.bin")
    with pytest.raises(ValueError, match="evil.bin: damaged, or not a file of weights"):
        start(tmp_path / "evil.bin")
    torch.save({"epoch": 1}, tmp_path / "empty.bin")
    with pytest.raises(ValueError, match="empty.bin: holds no weights under model_pos or model"):
        start(tmp_path / "empty.bin")
    assert motionbert.read(wrapped(tmp_path / "a.bin", published())).keys() == published().keys()
