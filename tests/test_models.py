"""A network that is not canonlift's own serves once it is a row of the table."""

import torch
from synthetic_scene import disturbed, scene

from canonlift.geometry.rotations import from_six
from canonlift.methods.objective import Objective
from canonlift.models.layers import Linear
from canonlift.models.network import Network
from canonlift.models.table import MODELS, Model, build
from canonlift.training import config as configs
from canonlift.types import Lifted


class OneLayer(Network):
    """Poses and rotations, linear in the keypoints."""

    def __init__(self, n_joints, root):
        super().__init__()
        self.root = root
        self.layer = Linear(2 * n_joints, 3 * n_joints + 6)

    def forward(self, views):
        found = self.layer(views.keypoints.flatten(-2) / views.unit[..., 0])
        pose = found[..., :-6].unflatten(-1, (-1, 3))
        pose = pose - pose[..., self.root : self.root + 1, :]
        return Lifted(pose, from_six(found[..., -6:]))

    def mirror(self):
        sign = torch.tensor([1.0, 1.0, -1.0])
        n_joints = len(self.layer.bias) // 3 - 2
        self.layer.weight.data *= sign.repeat(n_joints + 2)[:, None]
        self.layer.bias.data *= sign.repeat(n_joints + 2)


def test_a_new_network_trains_by_the_terms_of_a_config(monkeypatch):
    row = Model(lambda _config, _length, j, root: OneLayer(j, root), (), True, False)
    monkeypatch.setitem(MODELS, "one_layer", row)
    defaults = ["model.name=one_layer", "model.width=1024", "model.rotation=axis_angle"]
    config = configs.load("cvsf", defaults)
    network = build(config.model, 1, len(config.joints), config.joints.index("pelvis"))
    views = disturbed(*scene())[0].to(torch.float32).as_windows
    views = type(views)(
        views.keypoints[..., : len(config.joints), :],
        views.confidence[..., : len(config.joints)],
        views.rig,
    )
    loss, terms = Objective(network, config.method, config.schedule[1].weights)(views)
    loss.backward()
    assert set(terms) == set(config.schedule[1].terms)
    assert network.layer.weight.grad.abs().sum() > 0
