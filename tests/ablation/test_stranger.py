"""Somebody else's backbone, heads and decoder, in their own package: checked, ablated and reported without an edit of ours."""

import json
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from tiny import write_jhmdb

from bipose_lit.__main__ import main
from bipose_lit.module import PoseModule

PACKAGE = '''
    """Parts of a package that knows bipose's contracts and nothing else of it."""
    import torch
    from torch import nn

    from bipose_lit.models.base import Backbone, PoseDecoder, Refiner, TemporalHead
    from bipose_lit.types import FeatureSpec


    class Patches(Backbone):
        """One convolution per patch of the picture."""

        def __init__(self, channels: int = 12, patch: int = 8) -> None:
            super().__init__()
            self.spec = FeatureSpec(channels, patch)
            self.embed = nn.Sequential(nn.Conv2d(3, channels, patch, patch), nn.GELU())

        def forward(self, images):
            return self.embed(images)


    class Blend(TemporalHead):
        """Adds what a 1x1 convolution makes of the frame before."""

        causal, context = True, (1, 0)

        def __init__(self, share: float = 1.0) -> None:
            super().__init__()
            self.share = share

        def build(self, spec):
            self.out = nn.Conv2d(spec.channels, spec.channels, 1)
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

        def forward(self, features, valid):
            mask = valid[:, :, None, None, None]
            features = torch.where(mask, features, 0)
            before = torch.cat([torch.zeros_like(features[:, :1]), features[:, :-1]], 1)
            added = self.out(before.flatten(0, 1)).unflatten(0, valid.shape)
            return torch.where(mask, features + self.share * added, 0)

        def init_state(self, features):
            return (torch.zeros_like(features),)

        def step(self, features, state):
            return features + self.share * self.out(state[0]), (features,)


    class Twice(PoseDecoder):
        """Maps, and maps made of features and maps: two supervised stages."""

        def __init__(self, width: int = 8) -> None:
            super().__init__()
            self.width = width

        def build(self, spec, joints, size):
            self.stride = spec.stride
            self.first = nn.Conv2d(spec.channels, joints, 1)
            self.second = nn.Sequential(
                nn.Conv2d(spec.channels + joints, self.width, 3, 1, 1), nn.ReLU(), nn.Conv2d(self.width, joints, 1)
            )

        def forward(self, features):
            first = self.first(features)
            return [{"heatmaps": first}, {"heatmaps": self.second(torch.cat([features, first], 1))}]


    class Louder(Refiner):
        """Scales each joint's map."""

        causal, context = True, (0, 0)

        def __init__(self, start: float = 0.0) -> None:
            super().__init__()
            self.start = start

        def build(self, spec, predicted, joints):
            self.gain = nn.Parameter(torch.full((joints, 1, 1), self.start))

        def forward(self, encoded, features, valid):
            mask = valid[:, :, None, None, None]
            return {k: torch.where(mask, v * (1 + self.gain), 0) for k, v in encoded.items()}

        def init_state(self, encoded, features):
            return ()

        def step(self, encoded, features, state):
            return {k: v * (1 + self.gain) for k, v in encoded.items()}, state
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package on the path, and off it again."""
    folder = tmp_path / "site" / "stranger_pose"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(textwrap.dedent(PACKAGE))
    monkeypatch.syspath_prepend(str(folder.parent))
    yield "stranger_pose"
    sys.modules.pop("stranger_pose", None)


def test_its_parts_pass_the_public_checks(package):
    import stranger_pose

    from bipose_lit.codecs.heatmap import HeatmapCodec
    from bipose_lit.testing import check_backbone, check_decoder, check_temporal_head
    from bipose_lit.types import FeatureSpec

    check_backbone(stranger_pose.Patches())
    check_temporal_head(stranger_pose.Blend())
    check_decoder(stranger_pose.Twice(), HeatmapCodec(stride=8, sigma=1.0), FeatureSpec(12, 8))


def test_its_parts_run_in_an_ablation(package, tmp_path, pytestconfig, capsys):
    def part(name, **arguments):
        return {"class_path": f"{package}.{name}", "init_args": arguments}

    write_jhmdb(tmp_path / "data", train=4, val=2, test=4)
    base = pytestconfig.rootpath / "experiments" / "base.yaml"
    own = {
        "trainer": {"max_steps": 2, "val_check_interval": 2},
        "model": {
            "backbone": part("Patches", channels=12),
            "decoder": part("Twice", width=8),
            "codec": {"init_args": {"stride": 8, "sigma": 1.0}},
            "size": [64, 64],
        },
        "data": {
            "reader": {"init_args": {"root": str(tmp_path / "data"), "val_fraction": 0.0}},
            "size": [64, 64],
            "clips": {"length": 4},
        },
    }
    manifest = tmp_path / "mine" / "mine.yaml"
    manifest.parent.mkdir()
    (manifest.parent / "own.yaml").write_text(yaml.safe_dump(own))
    question = {
        "question": "Does our head help?",
        "base": [str(base), "own.yaml"],
        "mode": "full",
        "arms": {
            "plain": {"model": {"temporal": None}},
            "blend": {"model": {"temporal": part("Blend", share=0.5)}},
            "louder": {"model": {"refiner": part("Louder")}},
        },
        "baseline": "plain",
        "contrasts": [["blend", "plain"]],
        "seeds": 1,
        "trial": True,
    }
    manifest.write_text(yaml.safe_dump(question))
    out = tmp_path / "runs"
    assert main(["ablate", str(manifest), "--out", str(out), "--workers", "1", "--no-wandb"]) == 0
    table = (out / "mine" / "table.md").read_text()
    assert all(f"**{arm}**" in table for arm in question["arms"])
    results = {arm: json.loads((out / "mine" / arm / "seed0" / "result.json").read_text()) for arm in question["arms"]}
    assert {r["status"] for r in results.values()} == {"finished"}
    assert results["blend"]["facts"]["look_back_frames"] == 1
    assert results["blend"]["facts"]["causal"] is True
    assert results["louder"]["facts"]["parameters_by_part"]["refiner"] == 15
    (checkpoint,) = Path(out / "mine" / "blend" / "seed0" / "checkpoints").glob("final.ckpt")
    module = PoseModule.load_from_checkpoint(checkpoint, weights_only=True, map_location="cpu")
    assert type(module.network.temporal).__module__ == package
    streamed, _ = module.eval().network.stream(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert streamed["heatmaps"].shape == (1, 15, 8, 8)
