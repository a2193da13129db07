"""Our networks against the published codes' own, on random weights: `python compare.py simplebaseline --reference CLONE`.

CLONE is a clone of the reference repository, of which nothing is needed but its files (see `CASES`). The reference network gets
random weights and random BatchNorm statistics; its checkpoint goes through `bipose import-weights` and into our network by the overlay
which that writes. Both see the same random pictures, each as its own code reads them. What must agree: the maps, to 1e-5 of their
largest value, and the joints that the reference's own decoding finds in either's maps, exactly.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from bipose_lit.__main__ import main as bipose
from bipose_lit.models.network import PoseNetwork
from bipose_lit.models.rebuild import instantiate
from bipose_lit.weights import load_parts

TOLERANCE = 1e-5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Options(dict):
    """A configuration file as both reference codes read it: by attribute and by key."""

    __getattr__ = dict.__getitem__

    @classmethod
    def of(cls, value: Any) -> Any:
        return cls({k: cls.of(v) for k, v in value.items()}) if isinstance(value, dict) else value


@dataclass(frozen=True)
class Case:
    """One reference.

    Attributes:
        source: word for --from.
        module: of the network, below lib/.
        config: the experiment's file.
        bgr: its pictures are blue, green, red.
        wrap: what the training code saves, from a state_dict.
        zipped: in PyTorch's newer format.
        folders: names that a clone usually has.
    """

    source: str
    module: str
    config: str
    bgr: bool
    wrap: Callable[[dict[str, Tensor]], Any]
    zipped: bool
    folders: tuple[str, ...]


def _training(state: dict[str, Tensor]) -> Any:
    """A training checkpoint of a model in DataParallel."""
    renamed = {f"module.{k}": v for k, v in state.items()}
    return {"epoch": 140, "model": "pose", "state_dict": renamed, "perf": 0.7, "optimizer": {"state": {}, "param_groups": []}}


CASES = {
    "simplebaseline": Case(
        "simplebaseline",
        "models.pose_resnet",
        "experiments/coco/resnet50/256x192_d256x3_adam_lr1e-3.yaml",
        True,
        _training,
        False,
        ("human-pose-estimation.pytorch",),
    ),
    "hrnet": Case(
        "hrnet",
        "models.pose_hrnet",
        "experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml",
        False,
        dict,
        True,
        ("deep-high-resolution-net.pytorch", "HRNet-Human-Pose-Estimation"),
    ),
}


def randomise(net: nn.Module, seed: int) -> None:
    """Weights that keep signals alive, and BatchNorm as if it had been trained."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                fan = module.weight[0].numel() if isinstance(module, nn.Conv2d) else 4 * module.weight.shape[0]
                module.weight.normal_(0, (2 / fan) ** 0.5, generator=draw)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=draw)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.4, 0.9, generator=draw)
                module.bias.normal_(0, 0.2, generator=draw)
                module.running_mean.normal_(0, 0.3, generator=draw)
                module.running_var.uniform_(0.5, 1.5, generator=draw)
                module.num_batches_tracked.fill_(int(torch.randint(1, 10**6, (), generator=draw)))


def pictures(count: int, size: tuple[int, int], seed: int) -> Tensor:
    """(N, 3, H, W) uint8: random colours that vary over a few pixels, and noise."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, size[1] // 16, size[0] // 16, generator=draw) * 255
    smooth = nn.functional.interpolate(coarse, (size[1], size[0]), mode="bicubic")
    noise = 25 * torch.randn(smooth.shape, generator=draw)
    return (smooth + noise).round().clamp(0, 255).to(torch.uint8)


def as_reference(images: Tensor, bgr: bool) -> Tensor:
    """What the reference's loader makes of RGB pictures: divided by 255, then normalised channel by channel."""
    x = images.flip(1) if bgr else images
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (x.float() / 255 - mean) / std


def ours(overlay: Path, size: tuple[int, int]) -> PoseNetwork:
    """Our network as an overlay of `bipose import-weights` makes it, started from its weights."""
    model = yaml.safe_load(overlay.read_text())["model"]
    network = PoseNetwork(instantiate(model["backbone"]), instantiate(model["decoder"]), joints=model["joints"], size=size)
    load_parts(network, Path(model["weights"]), model["weights_for"])
    return network.eval()


def decoded(reference: Path, maps: Tensor, size: tuple[int, int]) -> np.ndarray:
    """(N, K, 2) crop pixels by the reference's own decoding, its quarter-pixel step included."""
    inference = importlib.import_module("core.inference")
    middle = np.tile(np.array([size], np.float32) / 2, (len(maps), 1))
    scale = np.tile(np.array([size], np.float32) / 200, (len(maps), 1))
    options = Options.of({"TEST": {"POST_PROCESS": True}})
    found, _ = inference.get_final_preds(options, maps.numpy(), middle, scale)
    return np.asarray(found)


def compare(name: str, reference: Path, seed: int = 0, count: int = 2) -> dict[str, Any]:
    """Runs one case.

    Returns:
        largest: of the reference's maps; difference: the largest one between the maps; relative: their ratio; joints: number of
        joints; moved: of them, how many the reference's decoding finds elsewhere in our maps; about: the import's first line.
    """
    case = CASES[name]
    sys.path.insert(0, str(reference / "lib"))
    options = Options.of(yaml.safe_load((reference / case.config).read_text()))
    options["MODEL"].setdefault("STYLE", "pytorch")
    net = importlib.import_module(case.module).get_pose_net(options, is_train=False).eval()
    randomise(net, seed)
    size = tuple(options["MODEL"]["IMAGE_SIZE"])
    images = pictures(count, size, seed)
    with tempfile.TemporaryDirectory(prefix="bipose-") as folder:
        path = Path(folder) / "reference.pth.tar"
        torch.save(case.wrap(net.state_dict()), path, _use_new_zipfile_serialization=case.zipped)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            status = bipose(["import-weights", str(path), "--from", case.source, "--out", f"{folder}/ours.safetensors"])
        if status:
            raise SystemExit(status)
        network = ours(Path(folder) / "ours.yaml", size)
    with torch.inference_mode():
        theirs = net(as_reference(images, case.bgr))
        mine = network.decoder(network.extract(images))["heatmaps"]
    apart = (decoded(reference, theirs, size) != decoded(reference, mine, size)).any(-1)
    difference, largest = float((theirs - mine).abs().max()), float(theirs.abs().max())
    return {
        "about": said.getvalue().splitlines()[0].partition(": ")[2],
        "largest": largest,
        "difference": difference,
        "relative": difference / largest,
        "joints": int(apart.size),
        "moved": int(apart.sum()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=tuple(CASES))
    parser.add_argument("--reference", type=Path, required=True, metavar="CLONE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=2, metavar="N")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = compare(args.case, args.reference, args.seed, args.pictures)
    print(json.dumps(found))
    return 0 if found["relative"] <= TOLERANCE and not found["moved"] else 1


if __name__ == "__main__":
    sys.exit(main())
