"""The collector: de-duplication, original pixels, and ranks that cannot be told apart from one process."""

from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from bipose_lit.metrics.state import PredictionCollector
from bipose_lit.skeletons import PENN_ACTION
from bipose_lit.store import Predictions
from bipose_lit.types import NORMS, BiposeError, ClipBatch


@dataclass
class _Window:
    clip: int
    start: int
    length: int


LENGTHS = (7, 5, 9)


def _index():
    tracks = tuple(SimpleNamespace(clip=f"clip{i}", cluster=f"scene{i}") for i in range(len(LENGTHS)))
    return SimpleNamespace(name="made/test[clip-box]", tracks=tracks, skeleton=PENN_ACTION)


def _windows():
    found = [_Window(c, s, min(4, n - s)) for c, n in enumerate(LENGTHS) for s in range(0, n - 1, 2)]
    assert len(found) % 2 == 1, "the count must be odd, so that two ranks get unequal shares"
    return found


def _batch(windows):
    """Labels are functions of clip and frame; predictions of the window too, so that the choice shows."""
    t, k = max(w.length for w in windows), len(PENN_ACTION)
    b = len(windows)
    valid = torch.zeros(b, t, dtype=torch.bool)
    uid = torch.full((b, t), -1)
    frame = torch.zeros(b, t, dtype=torch.int64)
    pred = torch.full((b, t, k, 2), float("nan"))  # padding may hold anything
    joints = torch.zeros(b, t, k, 2)
    for i, w in enumerate(windows):
        valid[i, : w.length] = True
        frames = torch.arange(w.start, w.start + w.length)
        frame[i, : w.length] = frames
        uid[i, : w.length] = 1000 * (3 - w.clip) + frames
        joints[i, : w.length] = (frames * 3.0 + w.clip)[:, None, None] + torch.arange(k)[:, None]
        pred[i, : w.length] = w.start + 0.25
    visible = (torch.arange(k) % 3).to(torch.uint8).expand(b, t, k).clone()
    affine = torch.tensor([[2.0, 0, 10], [0, 2, -5]]).expand(b, t, 2, 3).clone()
    batch = ClipBatch(
        valid=valid, joints=joints, visible=visible, to_image=affine, norms=torch.full((b, t, len(NORMS)), 50.0),
        box_score=torch.ones(b, t), uid=uid, clip=torch.tensor([w.clip for w in windows]), frame=frame,
        fps=torch.full((b,), 25.0),
    )  # fmt: skip
    return batch, pred


def _collect(windows, size):
    collector = PredictionCollector()
    for i in range(0, len(windows), size):
        batch, pred = _batch(windows[i : i + size])
        collector.update(batch, pred, torch.ones(pred.shape[:-1]) * 0.5)
    return collector


def _equal(a, b):
    for f in fields(Predictions):
        x, y = getattr(a, f.name), getattr(b, f.name)
        assert np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y, f.name


def test_each_frame_once_in_original_pixels():
    found = _collect(_windows(), 3).compute(_index())
    assert len(found.uid) == sum(LENGTHS)
    assert (np.diff(found.uid) > 0).all()
    assert found.clusters == ("scene0", "scene1", "scene2")
    k = np.arange(13)
    for i in range(len(found.uid)):
        crop = found.frame[i] * 3.0 + found.clip[i] + k
        want = np.stack([crop * 2 + 10, crop * 2 - 5], -1) * (k % 3 != 0)[:, None]
        assert np.allclose(found.joints[i], want)


def test_overlap_keeps_most_context_then_the_first_window():
    found = _collect(_windows(), 4).compute(_index())
    for i in range(len(found.uid)):
        c, f = found.clip[i], found.frame[i]
        inside = [w for w in _windows() if w.clip == c and w.start <= f < w.start + w.length]
        best = max(inside, key=lambda w: (min(f - w.start, w.start + w.length - 1 - f), -w.start))
        assert found.pred[i, 0, 0] == best.start + 0.25


def test_batches_order_and_repetition_do_not_matter():
    windows = _windows()
    one = _collect(windows, 1).compute(_index())
    _equal(one, _collect(windows, 5).compute(_index()))
    _equal(one, _collect(windows[::-1] + windows[:2], 2).compute(_index()))


def test_not_finite_names_clip_and_frame():
    collector = PredictionCollector()
    batch, pred = _batch([_Window(1, 0, 4)])
    pred[0, 2, 5, 1] = float("inf")
    collector.update(batch, pred)
    with pytest.raises(BiposeError, match=r"clip1, frame 2 is not finite"):
        collector.compute(_index())


def test_refusals():
    with pytest.raises(BiposeError, match="no prediction"):
        PredictionCollector().compute(_index())
    batch, pred = _batch([_Window(0, 0, 4)])
    with pytest.raises(ValueError, match="do not fit"):
        PredictionCollector().update(batch, pred[:, :2])
    collector = PredictionCollector()
    batch.clip[:] = 9
    collector.update(batch, pred)
    with pytest.raises(BiposeError, match="clip number 9 of 3"):
        collector.compute(_index())
    collector.reset()
    with pytest.raises(BiposeError, match="no prediction"):
        collector.compute(_index())


def test_half_precision_predictions():
    collector = PredictionCollector()
    batch, pred = _batch([_Window(0, 0, 4)])
    collector.update(batch, pred.bfloat16())
    assert collector.compute(_index()).pred.dtype == np.float32


def _rank(rank, world, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store{world}", rank=rank, world_size=world
    )
    windows = _windows()
    share = windows[rank::world]
    while len(share) < -(-len(windows) // world):  # what a distributed sampler does to even out the ranks
        share.append(windows[rank % len(windows)])
    predictions = _collect(share, 2).compute(_index())
    predictions.save(Path(folder) / f"world{world}-rank{rank}.npz")
    torch.distributed.destroy_process_group()


@pytest.mark.ddp
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_give_what_one_process_gives(tmp_path, world):
    mp.start_processes(_rank, (world, str(tmp_path)), nprocs=world, start_method="spawn")
    one = _collect(_windows(), 3).compute(_index())
    for rank in range(world):
        _equal(one, Predictions.load(tmp_path / f"world{world}-rank{rank}.npz"))
