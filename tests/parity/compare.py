"""Our networks against the published codes' own, on random weights: `python compare.py simplebaseline --reference CLONE`.

CLONE is a clone of the reference repository (see `CASES`), of which nothing is needed but its files. The reference network gets
random weights and random BatchNorm statistics; its checkpoint goes through `bipose import-weights` and into our network by the
overlay which that writes. Both see the same random pictures, each as its own code reads them. What must agree: the outputs, to
1e-5 of the largest value, and exactly the places that are read from either's. For Simple Baselines and HRNet these are joints by
that repository's own decoding; for the others the place of the largest value of each whole map, or of each of SimCC's axes, which
is where every decoding begins and none of theirs: those ask for packages of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openmmlab
import torch
import yaml
from torch import Tensor, nn

from bipose_lit.__main__ import main as bipose
from bipose_lit.models.network import PoseNetwork
from bipose_lit.models.rebuild import instantiate
from bipose_lit.weights import load_parts

TOLERANCE = 1e-5
PIXELS = 1e-3
"""What our decoding may differ from theirs: they go through float32 matrices of places."""


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
        folders: names that a clone of it usually has.
        make: its network from a clone.
        wrap: what its training code saves, from a state_dict.
        zipped: saved in PyTorch's newer format.
        size: width and height of its crops.
        mean, std: of its pictures, by channel in its order.
        bgr: which is blue, green, red.
    """

    source: str
    folders: tuple[str, ...]
    make: Callable[[Path], nn.Module]
    wrap: Callable[[dict[str, Tensor]], Any] = dict
    zipped: bool = True
    size: tuple[int, int] = (192, 256)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    bgr: bool = False


def _training(state: dict[str, Tensor]) -> Any:
    """A training checkpoint of a model in DataParallel."""
    renamed = {f"module.{k}": v for k, v in state.items()}
    return {"epoch": 140, "model": "pose", "state_dict": renamed, "perf": 0.7, "optimizer": {"state": {}}}


def _published(state: dict[str, Tensor]) -> Any:
    """What mmpose publishes; joints' sigmas lie in it as a numpy array."""
    return {"meta": {"epoch": 210, "dataset_meta": {"sigmas": np.full(17, 0.05)}}, "state_dict": dict(state)}


def _nested(state: dict[str, Tensor]) -> Any:
    """A model in DataParallel in a trainer."""
    return {"state_dict": {f"model.module.{k}": v for k, v in state.items()}, "optimizer": {}, "epoch": 3}


class Newell(nn.Module):
    """PoseNet, which takes (N, H, W, 3) and stacks its stages' maps."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.net(images.permute(0, 2, 3, 1)).unbind(1))

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.net.state_dict(*args, **kwargs)


def _newell(clone: Path) -> nn.Module:
    sys.path.insert(0, str(clone))
    return Newell(importlib.import_module("models.posenet").PoseNet(2, 256, 16))


def _bearpaw(clone: Path) -> nn.Module:
    file = clone / "pose/models/hourglass.py"
    spec = importlib.util.spec_from_file_location("reference_hourglass", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net: nn.Module = module.hg(num_stacks=2, num_blocks=2, num_classes=16)
    return net


def _configured(module: str, config: str) -> Callable[[Path], nn.Module]:
    """A network of Simple Baselines' or HRNet's repository, as one of its experiments has it."""

    def make(clone: Path) -> nn.Module:
        sys.path.insert(0, str(clone / "lib"))
        options = Options.of(yaml.safe_load((clone / config).read_text()))
        options["MODEL"].setdefault("STYLE", "pytorch")
        net: nn.Module = importlib.import_module(module).get_pose_net(options, is_train=False)
        return net

    return make


RESNET_50 = "experiments/coco/resnet50/256x192_d256x3_adam_lr1e-3.yaml"
HRNET_W32 = "experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml"
MICROSOFT = ("human-pose-estimation.pytorch",)
LEOXIAOBIN = ("deep-high-resolution-net.pytorch", "HRNet-Human-Pose-Estimation")
CASES = {
    "simplebaseline": Case(
        "simplebaseline", MICROSOFT, _configured("models.pose_resnet", RESNET_50), _training, bgr=True, zipped=False
    ),
    "hrnet": Case("hrnet", LEOXIAOBIN, _configured("models.pose_hrnet", HRNET_W32)),
    "mmpose_resnet": Case("mmpose", ("mmpose",), openmmlab.resnet, _published, zipped=False),
    "mmpose_simcc": Case("mmpose", ("mmpose",), partial(openmmlab.resnet, head="simcc"), _published),
    "mmpose_hrnet": Case("mmpose", ("mmpose",), openmmlab.hrnet, _published),
    "hourglass_newell": Case(
        "hourglass", ("pytorch_stacked_hourglass",), _newell, _nested, size=(256, 256), mean=(0.0,) * 3, std=(1.0,) * 3
    ),
    "hourglass_bearpaw": Case(
        "hourglass",
        ("pytorch-pose",),
        _bearpaw,
        _training,
        False,
        (256, 256),
        (0.44044283, 0.44402671, 0.43268284),
        (1.0,) * 3,
    ),
    "vitpose": Case("mmpose", ("ViTPose",), openmmlab.vitpose, _published, zipped=False),
}


def randomise(net: nn.Module, seed: int) -> None:
    """Weights that keep signals alive, and norms as if they had been trained."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith("pos_embed"):
                value.normal_(0, 0.5, generator=draw)
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                fan = 4 * module.weight.shape[0] if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
                module.weight.normal_(0, (2 / fan) ** 0.5, generator=draw)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=draw)
            elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.weight.uniform_(0.4, 0.9, generator=draw)
                module.bias.normal_(0, 0.2, generator=draw)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=draw)
                module.running_var.uniform_(0.5, 1.5, generator=draw)
                module.num_batches_tracked.fill_(int(torch.randint(1, 10**6, (), generator=draw)))


def outputs(found: Any) -> list[Tensor]:
    """Maps of every stage, or SimCC's two axes."""
    if isinstance(found, dict):
        return [found[key] for key in ("heatmaps", "x", "y") if key in found]
    if isinstance(found, list | tuple):
        return [out for stage in found for out in outputs(stage)]
    return [found]


def pictures(count: int, size: tuple[int, int], seed: int) -> Tensor:
    """(N, 3, H, W) uint8: random colours that vary over a few pixels, and noise."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, size[1] // 16, size[0] // 16, generator=draw) * 255
    smooth = nn.functional.interpolate(coarse, (size[1], size[0]), mode="bicubic")
    noise = 25 * torch.randn(smooth.shape, generator=draw)
    return (smooth + noise).round().clamp(0, 255).to(torch.uint8)


def as_reference(images: Tensor, case: Case) -> Tensor:
    """What the reference's loader makes of RGB pictures: divided by 255, then normalised channel by channel."""
    x = images.flip(1) if case.bgr else images
    mean, std = torch.tensor(case.mean).view(3, 1, 1), torch.tensor(case.std).view(3, 1, 1)
    return (x.float() / 255 - mean) / std


def ours(overlay: Path, size: tuple[int, int]) -> PoseNetwork:
    """Our network as an overlay of `bipose import-weights` makes it, started from its weights."""
    model = yaml.safe_load(overlay.read_text())["model"]
    network = PoseNetwork(
        instantiate(model["backbone"]), instantiate(model["decoder"]), joints=model["joints"], size=size
    )
    load_parts(network, Path(model["weights"]), model["weights_for"])
    return network.eval()


def decoded(clone: Path, maps: Tensor) -> np.ndarray:
    """(N, K, 2) pixels of crops at stride 4 by Simple Baselines' and HRNet's own decoding, the quarter-pixel step included."""
    sys.path.insert(0, str(clone / "lib"))
    inference = importlib.import_module("core.inference")
    size = np.array([[4 * maps.shape[-1], 4 * maps.shape[-2]]], np.float32)
    middle, scale = (np.tile(size / unit, (len(maps), 1)) for unit in (2, 200))
    found, _ = inference.get_final_preds(Options.of({"TEST": {"POST_PROCESS": True}}), maps.numpy(), middle, scale)
    return np.asarray(found)


def largest(clone: Path, values: Tensor) -> np.ndarray:
    """(N, K) the place of the largest value of each map (N, K, h, w), counted row by row, or of each axis (N, K, n)."""
    return np.asarray(values.flatten(2).argmax(-1))


def read_by_us(overlay: Path, maps: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(N, K, 2) crop pixels by our codec as the overlay has it, and (N, K) whether the peak lies in the map's two outer rings.

    There the reference code does not refine (`HeatmapCodec`).
    """
    codec = instantiate(yaml.safe_load(overlay.read_text())["model"]["codec"])
    codec.build(maps.shape[1], (4 * maps.shape[-1], 4 * maps.shape[-2]))
    places, _ = codec.decode({"heatmaps": maps})
    h, w = maps.shape[-2:]
    top = maps.flatten(2).argmax(-1)
    x, y = top % w, top // w
    return places.numpy(), ((x < 2) | (x > w - 3) | (y < 2) | (y > h - 3)).numpy()


def compare(name: str, clone: Path, seed: int = 0, count: int = 2) -> dict[str, Any]:
    """Runs one case.

    Returns:
        difference: the largest one between the outputs, in units of the output's largest value; joints: how many were read,
        of all outputs; moved: of them, how many lie elsewhere in ours; read_by: whether the reference's own decoding read them
        or the largest value; codec: how far our codec's places in our maps lie from the reference's in its own, at most, in crop
        pixels (null where no decoding of its kind is there to compare with); about: what the import took the file for.
    """
    case = CASES[name]
    images = pictures(count, case.size, seed)
    net = case.make(clone).eval()
    randomise(net, seed)
    with tempfile.TemporaryDirectory(prefix="bipose-") as folder:
        path = Path(folder) / "reference.pth.tar"
        torch.save(case.wrap(net.state_dict()), path, _use_new_zipfile_serialization=case.zipped)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            status = bipose(["import-weights", str(path), "--from", case.source, "--out", f"{folder}/ours.safetensors"])
        if status:
            raise SystemExit(status)
        overlay = Path(folder) / "ours.yaml"
        network = ours(overlay, case.size)
        with torch.inference_mode():
            theirs = outputs(net(as_reference(images, case)))
            mine = outputs(network.decoder(network.extract(images)))
        read = read_by_us(overlay, mine[0]) if (clone / "lib/core/inference.py").exists() else None
    decode = decoded if read is not None else largest
    apart = [np.asarray(decode(clone, a) != decode(clone, b)) for a, b in zip(theirs, mine, strict=True)]
    return {
        "about": said.getvalue().splitlines()[0].partition(": ")[2],
        "difference": max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(theirs, mine, strict=True)),
        "joints": sum(a.shape[0] * a.shape[1] for a in apart),
        "moved": sum(int(a.reshape(*a.shape[:2], -1).any(-1).sum()) for a in apart),
        "read_by": "its own decoding" if read is not None else "the largest value",
        "codec": None if read is None else float(np.abs(read[0] - decoded(clone, theirs[0]))[~read[1]].max()),
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
    good = found["difference"] <= TOLERANCE and not found["moved"] and (found["codec"] or 0) <= PIXELS
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
