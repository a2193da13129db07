"""Options of `bipose import-weights`; imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

SOURCES: Final = {
    "simplebaseline": "Simple Baselines' own code: ResNet and transposed convolutions, trained on BGR pictures",
    "hrnet": "HRNet's own code for poses",
    "mmpose": "mmpose 0.x and 1.x, and ViTPose's own code: ResNet, HRNet or ViT with heatmaps, ResNet with SimCC",
    "hourglass": "Stacked Hourglass, of princeton-vl/pytorch_stacked_hourglass or bearpaw/pytorch-pose",
    "torchvision": "torchvision's ResNet and ViT for ImageNet (backbone alone)",
    "timm": "any model of timm, a masked autoencoder, HRNet's own ImageNet weights (backbone alone; a ViT wants -c)",
}
"""Words that --from takes, and what they mean; `sources` has the rules."""


def add_import(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "sources:\n" + "\n".join(f"  {name:<15} {about}" for name, about in SOURCES.items())
    parser.add_argument("file", type=Path, metavar="FILE", help="checkpoint: .pth, .pth.tar, .pt, .bin, .safetensors")
    parser.add_argument("--from", dest="source", choices=tuple(SOURCES), required=True, help="whose code wrote it")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="OUT",
        help="safetensors file to write, .json and .yaml beside it; replaces its own files alone (default: FILE's name)",
    )
    parser.add_argument(
        "-c",
        dest="configs",
        type=Path,
        action="append",
        default=[],
        metavar="CONFIG",
        help="configuration of the network it is for, as for 'fit', may be repeated (default: what the tensors tell)",
    )
