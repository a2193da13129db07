"""The DataModule: the same batches whatever the workers, ranks and interruptions."""

import os
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from memory_index import MemoryReader, make_index
from test_feature_cache import TinyNetwork
from tiny import write_jhmdb
from torch import Tensor, nn

from bipose_lit.datamodule import PoseDataModule, check_leak
from bipose_lit.datasets import frames
from bipose_lit.datasets.clips import ClipSampling
from bipose_lit.datasets.jhmdb import JHMDB
from bipose_lit.datasets.pixel import ColourJitter
from bipose_lit.datasets.transforms import Augmentation
from bipose_lit.feature_cache import FeatureCache
from bipose_lit.types import BiposeError, ClipBatch


def make(reader: Any = None, **options: Any) -> PoseDataModule:
    defaults: dict[str, Any] = {
        "size": (48, 64),
        "clips": ClipSampling(4),
        "augmentation": Augmentation(),
        "supervise": 0.5,
        "batch_size": 2,
        "seed": 3,
    }
    return PoseDataModule(reader or MemoryReader(5), **{**defaults, **options})


class Recorder(L.LightningModule):
    """Learns something tiny with dropout-free arithmetic and remembers which frames it met."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 10)
        self.network = TinyNetwork()
        self.flip_test = True
        self.met: list[tuple[int, int, list[int]]] = []
        self.scored: list[int] = []

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        self.met.append((self.current_epoch, batch_idx, batch.uid[:, 0].tolist()))
        assert batch.supervise is not None
        rows = batch.supervise
        if batch.images is not None:
            x = batch.images[rows].float().mean((2, 3)) / 255
        else:
            assert batch.features is not None
            x = batch.features[rows].float().mean((2, 3))[:, :3] / 10
        return (self.layer(x) - batch.joints[rows].flatten(1) / 64).square().mean()

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> None:
        self.scored += batch.uid[batch.valid].tolist()
        self.features = batch.features is not None and batch.mirrored is not None

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches > 0  # makes the training loader before the loops are restored
        return torch.optim.SGD(self.layer.parameters(), 0.1)


def trainer(folder: Path, epochs: int, **options: Any) -> L.Trainer:
    return L.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"enable_checkpointing": False, **options},
    )


def same(one: ClipBatch, two: ClipBatch) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) else a is b
        for a, b in ((getattr(one, f.name), getattr(two, f.name)) for f in fields(one))
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_workers_change_nothing(split: str) -> None:
    epochs: list[list[ClipBatch]] = []
    for workers in (0, 2):
        module = make(num_workers=workers, pixels=ColourJitter())
        loader = getattr(module, f"{split}_dataloader")()
        batches = []
        for epoch in range(2):  # the same loader, so persistent workers too
            loader.sampler.set_epoch(epoch)
            batches += list(loader)
        epochs.append(batches)
    assert len(epochs[0]) == len(epochs[1]) == 6
    assert all(same(a, b) for a, b in zip(*epochs, strict=True))
    assert same(epochs[0][0], epochs[0][3]) == (split == "val")


@pytest.mark.parametrize(("devices", "workers", "share"), [(1, 0, 64), (1, 3, 64 // 6), (2, 2, 8)])
def test_all_processes_of_a_run_share_the_video_cache(monkeypatch, devices: int, workers: int, share: int) -> None:
    """Loaders of training and validation both stay, in every rank of the machine."""
    monkeypatch.setenv(frames.SHARERS, "1")
    monkeypatch.setenv(frames.CACHE, "64")
    data = make(num_workers=workers)
    data.trainer = SimpleNamespace(num_devices=devices, world_size=1, callbacks=[])
    data.setup("predict")
    assert frames.cache_bytes() // 2**20 == share
    monkeypatch.setenv(frames.CACHE, "much")
    with pytest.raises(BiposeError, match="BIPOSE_VIDEO_CACHE=much"):
        data.setup("predict")


def test_what_it_exposes() -> None:
    module = make()
    assert module.num_joints == 5
    assert module.skeleton.name == "five"
    assert module.index("val") is module.index("val")
    assert module.fingerprint("train") != module.fingerprint("val")
    batch = next(iter(module.train_dataloader()))
    assert batch.valid.shape == (2, 4)
    assert batch.supervise is not None
    assert batch.supervise.sum(1).tolist() == [2, 2]
    uids = torch.cat([b.uid[b.valid] for b in module.test_dataloader()])
    assert sorted(uids.tolist()) == sorted(int(u) for t in module.index("test").tracks for u in t.uid)
    assert next(iter(module.test_dataloader())).supervise is None


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("when", ["epoch", "step", "validation"])
def test_resuming_is_exact(tmp_path: Path, workers: int, when: str) -> None:
    """Straight through against stopped and resumed: the same frames in the same steps, the same weights."""
    keep = {
        "epoch": ModelCheckpoint(tmp_path, save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=True),
        "step": ModelCheckpoint(tmp_path, save_top_k=-1, every_n_train_steps=5),
        "validation": ModelCheckpoint(tmp_path, save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=False),
    }[when]
    whole = Recorder()
    options = {"limit_val_batches": 0} if when != "validation" else {}
    fit = trainer(tmp_path, 4, enable_checkpointing=True, callbacks=[keep], **options)
    fit.fit(whole, make(num_workers=workers))
    assert len(whole.met) == 12
    assert len({str(m[2]) for m in whole.met}) > 8
    for path in sorted(tmp_path.glob("*.ckpt")):
        step = int(path.stem.split("step=")[1].split("-")[0])
        if step == 12:
            continue
        second = Recorder()
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # "your dataloader is not resumable" would be one
            warnings.filterwarnings(
                "ignore", message=".*(num_workers|bottleneck|in eval mode|callbacks used to create).*"
            )
            trainer(tmp_path, 4, **options).fit(second, make(num_workers=workers), ckpt_path=str(path))
        assert second.met == whole.met[step:], path.name
        assert torch.equal(second.layer.weight, whole.layer.weight), path.name


def test_going_on_with_the_same_trainer_goes_on_with_the_order(tmp_path: Path) -> None:
    whole, parts, module = Recorder(), Recorder(), make()
    trainer(tmp_path, 3).fit(whole, make())
    fit = trainer(tmp_path, 1)
    fit.fit(parts, module)
    fit.fit_loop.max_epochs = 3
    fit.fit(parts, module)
    assert [m[2] for m in parts.met] == [m[2] for m in whole.met]


def test_a_state_saved_after_training_starts_the_next_epoch(tmp_path: Path) -> None:
    whole = Recorder()
    trainer(tmp_path, 4).fit(whole, make())
    half, module = Recorder(), make()
    fit = trainer(tmp_path, 2)
    fit.fit(half, module)
    assert module.state_dict() == {"epoch": 2, "batch": 0, "parts": [1, 1, 2]}
    fit.save_checkpoint(tmp_path / "end.ckpt")
    again = Recorder()
    trainer(tmp_path, 4).fit(again, make(), ckpt_path=str(tmp_path / "end.ckpt"))
    assert again.met == whole.met[6:]
    assert torch.equal(again.layer.weight, whole.layer.weight)


def test_a_state_from_the_middle_of_an_epoch_is_scored_by_any_number_of_processes(tmp_path: Path) -> None:
    class Fitted:
        """What a data module asks of its trainer."""

        world_size, global_rank, accumulate_grad_batches = 1, 0, 1

        def __init__(self, fn: str) -> None:
            self.state = type("State", (), {"fn": fn})

    for state in ({"epoch": 1, "batch": 2, "parts": [2, 1, 1]}, {"epoch": 1, "batch": 2, "parts": [1, 2, 1]}):
        for fn in ("validate", "test", "predict"):
            module = make()
            module.trainer = Fitted(fn)  # type: ignore[assignment]
            module.load_state_dict(state)
            assert module._resume is None
        module = make()
        module.trainer = Fitted("fit")  # type: ignore[assignment]
        with pytest.raises(BiposeError, match=r"middle of an epoch of .*, this training has 1 process\(es\)"):
            module.load_state_dict(state)
        module.load_state_dict({**state, "batch": 0})  # of an epoch's end
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1)
    fit = trainer(tmp_path, 1, enable_checkpointing=True, callbacks=[keep], limit_val_batches=0)
    fit.fit(Recorder(), make())
    again = make(batch_size=1)
    scoring = trainer(tmp_path, 1)
    scoring.validate(Recorder(), datamodule=again, ckpt_path=str(next(tmp_path.glob("*step=2*.ckpt"))), verbose=False)
    assert again._resume is None


def test_cached_features_take_the_place_of_pixels(tmp_path: Path) -> None:
    cache = FeatureCache(str(tmp_path / "cache"), views=3, dtype="float32", progress=False)
    runs = []
    for budget in (20.0, 0.0):
        cache.budget = int(budget * 1e9)
        recorder, module = Recorder(), make(cache=cache, num_workers=2 if budget else 0)
        if budget:
            trainer(tmp_path, 3).fit(recorder, module)
            assert recorder.features
        else:
            for path in (tmp_path / "cache").glob("*/*"):
                path.unlink()
            with pytest.warns(UserWarning, match="recomputing"):
                trainer(tmp_path, 3).fit(recorder, module)
            assert not recorder.features
        runs.append(recorder)
    assert runs[0].met == runs[1].met
    assert sorted(set(runs[0].scored)) == sorted(set(runs[1].scored))
    # Without a trainer the network is given.
    module = make(cache=FeatureCache(str(tmp_path / "other"), progress=False))
    with pytest.raises(BiposeError, match="needs a network"):
        module.train_dataloader()
    module.extractor = TinyNetwork()
    assert next(iter(module.train_dataloader())).features is not None


class Dies(MemoryReader):
    """A worker that is killed, as the kernel does when memory runs out."""

    def index(self, split: str) -> Any:
        index = super().index(split)

        class Killed:
            def __len__(self) -> int:
                return 8

            def read(self, frames: Any) -> Any:
                os.kill(os.getpid(), signal.SIGKILL)

            def fingerprint(self) -> str:
                return ""

        object.__setattr__(index.tracks[0], "frames", Killed())
        return index


def test_failures_are_one_line() -> None:
    with pytest.raises(
        BiposeError, match=r"val\[clip-box\] and memory/train\[clip-box\] share cluster000, .* and 2 more"
    ):
        make(MemoryReader(5, leak=True)).setup("fit")
    with pytest.raises(BiposeError, match="no clip in the val split"):
        make(MemoryReader(5, empty="val")).setup("fit")
    with pytest.raises(BiposeError, match="no split 'training'"):
        make().index("training")
    for workers in (0, 2):
        with pytest.raises(BiposeError) as caught:
            list(make(MemoryReader(5, broken=2), num_workers=workers, clips=ClipSampling()).train_dataloader())
        assert str(caught.value) == "memory/2.png: truncated PNG; copy the file again"
    with pytest.raises(BiposeError, match="a data worker died") as caught:
        list(make(Dies(5), num_workers=2).train_dataloader())
    assert "\n" not in str(caught.value)
    with pytest.raises(BiposeError, match="positive"):
        make(batch_size=0)


def test_leaks_are_sought_within_one_data_set() -> None:
    one, two = make_index(split="train"), make_index(split="test")
    with pytest.raises(BiposeError, match="share cluster000, cluster001, cluster002:"):
        check_leak(two, one)
    object.__setattr__(two, "name", "elsewhere/test")
    check_leak(two, one)


def test_official_lists_that_share_a_film_are_read_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """JHMDB's lists are drawn class by class: one film's clips can stand in train for a class and in test for another."""
    root = write_jhmdb(tmp_path)
    for kind in ("joint_positions", "Rename_Images"):
        shutil.copytree(root / kind / "move" / "scene00000_0", root / kind / "jump" / "scene00000_1")
    (root / "splits" / "jump_test_split1.txt").write_text("scene00000_1.avi 2\n")
    data = PoseDataModule(JHMDB(root))
    data.index("train")
    data.index("test")
    (said,) = (r.getMessage() for r in caplog.records)
    assert said.endswith("share sources, as their owners drew them: scene00000")
    (root / "manifest.json").write_text("{}")  # a set of our own has no such excuse
    data = PoseDataModule(JHMDB(root))
    data.index("train")
    with pytest.raises(BiposeError, match="share scene00000: a cluster"):
        data.index("test")


def test_the_command_line_builds_it(tmp_path: Path) -> None:
    config = tmp_path / "data.yaml"
    config.write_text(
        f"""data:
  reader: {{class_path: memory_index.MemoryReader, init_args: {{clips: 4}}}}
  size: [64, 48]
  clips: {{length: 6, stride: 2, eval: windows, overlap: 2}}
  augmentation: {{rotation: 15.0, half_body: 0.1}}
  pixels:
    class_path: bipose_lit.datasets.pixel.InTurn
    init_args:
      first: {{class_path: bipose_lit.datasets.pixel.ColourJitter, init_args: {{hue: 5.0}}}}
      then: {{class_path: bipose_lit.datasets.pixel.Albumentations, init_args: {{ops: {{GaussNoise: {{p: 0.5}}}}}}}}
  occluders: {{probability: 0.3}}
  supervise: 0.25
  cache: {{root: {tmp_path / "cache"}, views: 2}}
"""
    )
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_lightning_class_args(PoseDataModule, "data")
    parsed = parser.parse_args([f"--config={config}", "--data.reader.frames=9"])
    module = parser.instantiate(parsed).data
    assert module.reader.frames == 9
    assert isinstance(module.reader, MemoryReader)
    assert module.size == (64, 48)
    assert module.clips == ClipSampling(6, 2, eval="windows", overlap=2)
    assert module.augmentation == Augmentation(rotation=15.0, half_body=0.1)
    assert module.cache is not None
    assert module.cache.views == 2
    assert module.occluders.probability == 0.3
    module.cache = None
    assert next(iter(module.train_dataloader())).images.shape == (4, 6, 3, 48, 64)
    # What was parsed can be written and read again.
    (tmp_path / "again.yaml").write_text(parser.dump(parsed))
    again = parser.parse_args([f"--config={tmp_path / 'again.yaml'}"])
    assert again.data == parsed.data
    with pytest.raises(Exception, match="Option 'clip' is not accepted"):
        parser.parse_args([f"--config={config}", "--data.reader.clip=3"])


DDP = """
import sys
sys.path[:0] = [{tests!r}]
from test_datamodule import *
torch.set_num_threads(1)
recorder = Recorder()
fit = L.Trainer(max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir={root!r},
                use_distributed_sampler={replace})
fit.fit(recorder, make(MemoryReader(5), batch_size=2, eval_batch_size=1))
met = [None, None]
torch.distributed.all_gather_object(met, (recorder.met, recorder.scored))
if fit.global_rank == 0:
    print("MET", repr(met))
"""


@pytest.mark.ddp
@pytest.mark.parametrize("replace", [False, True])
def test_two_processes_share_the_work(tmp_path: Path, replace: bool) -> None:
    """Five clips on two ranks, also where Lightning would put in its own sampler."""
    code = tmp_path / "run.py"
    code.write_text(DDP.format(tests=str(Path(__file__).parent), root=str(tmp_path), replace=replace))
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    done = subprocess.run(
        [sys.executable, str(code)], capture_output=True, text=True, timeout=240, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(text for text in done.stdout.splitlines() if text.startswith("MET"))
    (one, scored_one), (two, scored_two) = eval(line[4:])
    single = Recorder()
    trainer(tmp_path, 2).fit(single, make(MemoryReader(5), batch_size=2))
    joined = [[*a[2], *b[2]] for a, b in zip(one, two, strict=True)]
    assert len(joined) == len(single.met) == 6
    for both, alone in zip(joined, (m[2] for m in single.met), strict=True):
        assert both[: len(alone)] == alone  # the last batch has one clip, and rank 1 a filler
    assert set(scored_one) | set(scored_two) == set(single.scored)
    # Five clips: the short rank repeats one, so that both make three batches in each of two epochs.
    repeated = [u for u in set(scored_one) if u in set(scored_two)]
    assert len({u // 1000 for u in repeated}) <= 1
    assert np.unique(scored_one).size > np.unique(scored_two).size - 10
