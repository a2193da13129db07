"""The feature cache: exact, complete or absent, and built once."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from memory_index import make_index
from torch import Tensor, nn

from bipose_lit import feature_cache_store as store
from bipose_lit.datasets.clips import ClipCropper, ClipDataset, ClipSampling
from bipose_lit.datasets.collate import Collate
from bipose_lit.datasets.index import PoseIndex
from bipose_lit.datasets.pixel import ColourJitter, Occluders
from bipose_lit.datasets.transforms import Augmentation
from bipose_lit.feature_cache import CachedClips, FeatureCache, describe, weights_hash
from bipose_lit.models.base import Backbone
from bipose_lit.types import BiposeError, FeatureSpec


class TinyBackbone(Backbone):
    """Two convolutions of stride 4 with BatchNorm, frozen."""

    def __init__(self, channels: int = 6, seed: int = 0, gain: float = 1.0) -> None:
        super().__init__()
        self.spec = FeatureSpec(channels, 16)
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, channels, 4, 4), nn.BatchNorm2d(channels)
        )
        rng = torch.Generator().manual_seed(seed)
        for tensor in self.net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=rng) * gain + 0.1)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)  # type: ignore[no-any-return]


class TinyNetwork(nn.Module):
    """As much of a PoseNetwork as the cache needs."""

    def __init__(self, backbone: Backbone | None = None) -> None:
        super().__init__()
        self.backbone = backbone or TinyBackbone()
        self.register_buffer("shift", torch.full((3, 1, 1), 120.0), persistent=False)

    def extract(self, images: Tensor) -> Tensor:
        return self.backbone((images.float() - self.shift) / 60)  # type: ignore[no-any-return]


INDEX = make_index((6, 9, 70))
AUGMENTATION = Augmentation(rotation_probability=1.0)


def cropper(index: PoseIndex = INDEX) -> ClipCropper:
    return ClipCropper(index, (48, 64), 1.25, ColourJitter(), Occluders(1.0))


def make(root: Path, **options: object) -> FeatureCache:
    return FeatureCache(str(root), progress=False, **{"views": 4, "dtype": "float32", **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-3)])
@pytest.mark.parametrize("sampling", [ClipSampling(5, reverse=0.5), ClipSampling(4, stride=2), ClipSampling()])
@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_the_cache_gives_what_recomputing_gives(
    tmp_path: Path, dtype: str, tolerance: float, sampling: ClipSampling, flip: float
) -> None:
    network = TinyNetwork()
    augmentation = Augmentation(rotation_probability=1.0, flip=flip)
    entry = make(tmp_path, dtype=dtype).open(cropper(), network, augmentation, seed=3)
    assert entry is not None
    cached = CachedClips(INDEX, entry, sampling, True, seed=3)
    pixels = ClipDataset(
        INDEX,
        (48, 64),
        1.25,
        sampling,
        True,
        augmentation,
        ColourJitter(),
        Occluders(1.0),
        seed=3,
        views=4,
        view_seed=3,
    )
    assert len(cached) == len(pixels) == 3
    network.eval()
    for epoch in range(4):
        keys = [(epoch, i) for i in range(3)]
        fast, slow = (Collate(supervise=0.5, seed=3)([data[k] for k in keys]) for data in (cached, pixels))
        assert fast.images is None
        assert slow.features is None
        assert fast.mirrored is None
        for name in (
            "valid",
            "supervise",
            "joints",
            "visible",
            "to_image",
            "norms",
            "box_score",
            "uid",
            "clip",
            "frame",
            "fps",
        ):
            assert torch.equal(getattr(fast, name), getattr(slow, name)), name
            assert getattr(fast, name).dtype == getattr(slow, name).dtype, name
        assert fast.features is not None
        assert slow.images is not None
        expected = network.extract(slow.images[slow.valid])
        torch.testing.assert_close(fast.features[fast.valid].float(), expected, rtol=tolerance, atol=tolerance)
        assert not fast.features[~fast.valid].any()


def test_evaluation_has_the_plain_and_the_mirrored_view(tmp_path: Path) -> None:
    network = TinyNetwork().eval()
    entry = make(tmp_path).open(ClipCropper(INDEX, (48, 64), 1.25), network, views=2)
    assert entry is not None
    data = CachedClips(INDEX, entry, ClipSampling())
    batch = Collate()([data[i] for i in range(len(data))])
    plain = Collate()([ClipDataset(INDEX, (48, 64))[i] for i in range(3)])
    assert plain.images is not None
    assert batch.features is not None
    valid = batch.valid
    torch.testing.assert_close(batch.features[valid], network.extract(plain.images[valid]), rtol=1e-5, atol=1e-5)
    mirrored = batch.flipped().features
    assert mirrored is not None
    # Bilinear weights are rounded by OpenCV, so a mirrored crop is the crop mirrored but for single grey levels.
    torch.testing.assert_close(mirrored[valid], network.extract(plain.flipped().images[valid]), rtol=0.05, atol=0.1)  # type: ignore[index]
    alone = make(tmp_path).open(ClipCropper(INDEX, (48, 64), 1.25), network, views=1)
    assert alone is not None
    with pytest.raises(BiposeError, match="flip_test"):
        Collate()([CachedClips(INDEX, alone)[0]]).flipped()


def test_training_on_the_cache_equals_training_on_recomputed_features(tmp_path: Path) -> None:
    network = TinyNetwork().eval()
    entry = make(tmp_path).open(cropper(), network, AUGMENTATION)
    assert entry is not None
    cached = CachedClips(INDEX, entry, ClipSampling(4), True)
    pixels = ClipDataset(
        INDEX, (48, 64), 1.25, ClipSampling(4), True, AUGMENTATION, ColourJitter(), Occluders(1.0), views=4
    )
    weights = []
    for data in (cached, pixels):
        torch.manual_seed(0)
        head = nn.Linear(6 * 4 * 3, 10)
        optimizer = torch.optim.SGD(head.parameters(), 1e-3)
        for epoch in range(5):
            batch = Collate()([data[epoch, i] for i in range(3)])
            features = batch.features if batch.features is not None else network.extract(batch.images.flatten(0, 1))  # type: ignore[union-attr]
            loss = (head(features.reshape(12, -1)) - batch.joints.reshape(12, -1) / 64).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        weights.append(head.weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_entries_are_reused_and_named_by_what_they_depend_on(tmp_path: Path) -> None:
    cache, network = make(tmp_path), TinyNetwork()
    first = cache.open(cropper(), network, AUGMENTATION)
    assert first is not None
    stamp = (first.path / "features.npy").stat().st_mtime_ns
    again = make(tmp_path).open(cropper(make_index((6, 9, 70))), TinyNetwork(), AUGMENTATION)
    assert again is not None
    assert again.path == first.path
    assert (again.path / "features.npy").stat().st_mtime_ns == stamp
    keys = {first.path.name}
    others = [
        cache.open(cropper(), TinyNetwork(TinyBackbone(seed=1)), AUGMENTATION),
        cache.open(cropper(make_index((6, 9))), network, AUGMENTATION),
        cache.open(ClipCropper(INDEX, (48, 48), 1.25, ColourJitter(), Occluders(1.0)), network, AUGMENTATION),
        cache.open(ClipCropper(INDEX, (48, 64), 1.25, ColourJitter(0.5), Occluders(1.0)), network, AUGMENTATION),
        cache.open(cropper(), network, Augmentation(rotation=1)),
        cache.open(cropper(), network, AUGMENTATION, seed=1),
        cache.open(cropper(), network, AUGMENTATION, views=3),
        make(tmp_path, dtype="float16").open(cropper(), network, AUGMENTATION),
    ]
    keys |= {entry.path.name for entry in others if entry is not None}
    assert len(keys) == 9
    # Without drawn views nothing of the augmentation matters.
    plain = [cache.open(cropper(), network, a, seed=s, views=2) for a, s in ((None, 0), (AUGMENTATION, 5))]
    assert plain[0] is not None
    assert plain[1] is not None
    assert plain[0].path == plain[1].path


def test_the_network_comes_back_as_it_was(tmp_path: Path) -> None:
    network = TinyNetwork()
    network.train()
    network.backbone.net[1].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    modes = [m.training for m in network.modules()]
    assert make(tmp_path).open(cropper(), network, AUGMENTATION) is not None
    assert [m.training for m in network.modules()] == modes
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_trained_backbone_is_refused(tmp_path: Path) -> None:
    network = TinyNetwork()
    network.backbone.requires_grad_(True)
    with pytest.raises(BiposeError, match="freeze_backbone"):
        make(tmp_path).open(cropper(), network, AUGMENTATION)


def test_plan_is_what_is_written_and_the_budget_holds(tmp_path: Path) -> None:
    cache, network = make(tmp_path), TinyNetwork()
    planned = cache.plan(INDEX, network.backbone.spec, (48, 64))
    entry = cache.open(cropper(), network, AUGMENTATION)
    assert entry is not None
    on_disk = sum(p.stat().st_size for p in entry.path.glob("*.npy"))
    assert 0 <= on_disk - planned <= 8 * 128  # the headers
    tight = make(tmp_path, budget_gb=(1.5 * planned) / 1e9)
    with pytest.warns(UserWarning, match="recomputing features"):
        assert tight.open(cropper(), network, AUGMENTATION, seed=9) is None
    assert tight.open(cropper(), network, AUGMENTATION) is not None  # what is there may be used
    assert not list(tmp_path.glob(".*-*"))


def test_a_full_disk_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.warns(UserWarning, match="disk"):
        assert make(tmp_path).open(cropper(), TinyNetwork(), AUGMENTATION) is None
    assert not list(tmp_path.glob(".*-*"))


def test_a_broken_picture_gives_its_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    index = make_index((6, 9))
    index.tracks[1].frames.broken = (3,)  # type: ignore[attr-defined]
    for workers in (0, 1):
        with pytest.raises(BiposeError) as caught:
            make(tmp_path, workers=workers).open(cropper(index), TinyNetwork(), AUGMENTATION)
        assert str(caught.value) == "memory/3.png: truncated PNG; copy the file again"
    assert not list(tmp_path.glob("*/features.npy"))
    assert not list(tmp_path.glob(".*-*"))


def test_features_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BiposeError, match="float32"):
        make(tmp_path, dtype="float16").open(cropper(), TinyNetwork(TinyBackbone(gain=100)), AUGMENTATION)
    assert make(tmp_path).open(cropper(), TinyNetwork(TinyBackbone(gain=100)), AUGMENTATION) is not None


def test_workers_change_nothing(tmp_path: Path) -> None:
    one = make(tmp_path / "a").open(cropper(), TinyNetwork(), AUGMENTATION)
    two = make(tmp_path / "b", workers=2).open(cropper(), TinyNetwork(), AUGMENTATION)
    assert one is not None
    assert two is not None
    for name in store.ARRAYS:
        np.testing.assert_array_equal(one[name], two[name])


def test_an_incomplete_entry_is_made_again(tmp_path: Path) -> None:
    cache, network = make(tmp_path), TinyNetwork()
    entry = cache.open(cropper(), network, AUGMENTATION)
    assert entry is not None
    whole = np.array(entry["features"])
    with (entry.path / "features.npy").open("r+b") as file:
        file.truncate(1000)
    assert not store.Entry(entry.path).complete()
    again = cache.open(cropper(), network, AUGMENTATION)
    assert again is not None
    np.testing.assert_array_equal(again["features"], whole)


BUILDER = """
import sys, time
sys.path[:0] = [{tests!r}]
import torch
torch.set_num_threads(1)
from test_feature_cache import *

class Slow(TinyNetwork):
    def extract(self, images):
        if len(images) > 1:  # past the probe
            print("extract", flush=True)
            time.sleep({delay})
        return super().extract(images)

entry = make(Path({root!r})).open(cropper(), Slow(), AUGMENTATION)
print("done", entry.path.name, flush=True)
"""


def builder(root: Path, delay: float) -> subprocess.Popen[str]:
    code = BUILDER.format(tests=str(Path(__file__).parent), root=str(root), delay=delay)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_two_processes_build_once_and_a_killed_one_is_made_up_for(tmp_path: Path) -> None:
    killed = builder(tmp_path, 60.0)  # longer than the others need to start
    assert killed.stdout is not None
    while "extract" not in killed.stdout.readline():
        assert killed.poll() is None
    waiting = [builder(tmp_path, 0.0) for _ in range(2)]
    first = waiting[0].stdout
    assert first is not None
    assert "waiting for process" in first.readline()  # the lock is held
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert list(tmp_path.glob(".*-*"))  # what it left behind
    begun = time.monotonic()
    said = [process.communicate(timeout=120)[0] for process in waiting]
    assert time.monotonic() - begun < 60
    built = ["extract" in text for text in said]
    assert sorted(built) == [False, True]
    names = {text.split("done ")[1].strip() for text in said}
    assert len(names) == 1
    assert not list(tmp_path.glob(".*-*"))
    meta = json.loads((tmp_path / names.pop() / store.META).read_text())
    assert meta["views"] == 4


def test_names_do_not_depend_on_addresses_or_sources() -> None:
    one, two = describe([ColourJitter(), AUGMENTATION]), describe([ColourJitter(), replace(AUGMENTATION)])
    assert one == two
    assert "0x" not in json.dumps(one)
    assert "normal" not in json.dumps(one)  # a later field: features kept before it keep their name
    assert describe(replace(AUGMENTATION, normal=True)) != describe(AUGMENTATION)
    assert weights_hash(TinyNetwork()) == weights_hash(TinyNetwork())
    shifted = TinyNetwork()
    shifted.shift += 1  # type: ignore[operator]
    assert weights_hash(shifted) != weights_hash(TinyNetwork())


def test_two_views_that_are_not_mirrored_depend_on_the_augmentation(tmp_path: Path) -> None:
    network = TinyNetwork().eval()
    small, large = (make(tmp_path).open(cropper(), network, Augmentation(scale=s, flip=0), views=2) for s in (0.1, 0.4))
    assert small is not None
    assert large is not None
    assert small.path != large.path
    assert not np.array_equal(small["joints"][1], large["joints"][1])
