"""Options of `bipose evaluate`; imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from bipose_lit.datasets.arguments import names
from bipose_lit.evaluate.protocols import PROTOCOLS, describe


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"protocols:\n{describe()}"
    parser.add_argument("protocol", metavar="PROTOCOL", help=f"one of {', '.join(PROTOCOLS)}")
    parser.add_argument("--annotations", type=Path, required=True, metavar="A", help="file or folder of the labels")
    parser.add_argument(
        "--predictions", type=Path, required=True, metavar="P", help="file or folder of the predictions"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the numbers here as well")
    parser.add_argument("--engine", metavar="E", help="of COCO's AP: bipose (default), pycocotools or faster-coco-eval")
    parser.add_argument("--oks", type=float, metavar="T", help="of the single precision and recall (default: 0.5)")
    parser.add_argument(
        "--min-score", type=float, metavar="S", help="of the single precision and recall (default: 0.5)"
    )
    parser.add_argument(
        "--nms", type=float, metavar="OKS", help="thin out the predictions by OKS-NMS first (0.9 is usual)"
    )
    parser.add_argument("--skeleton", metavar="NAME|YAML", help="of labels that are not COCO's 17 joints")
    parser.add_argument(
        "--split",
        metavar="S",
        help="penn: train, val, test or all (default: test); jhmdb, sub_jhmdb: 1, 2, 3 or all, their mean (default: 1)",
    )
    parser.add_argument("--subjects", type=names, metavar="A,B,..", help="of Human3.6M (default: S9,S11)")
    parser.add_argument("--unit", metavar="U", help="of Human3.6M's predictions: m or mm (default: as the labels)")
    parser.add_argument(
        "--cameras", type=Path, metavar="FILE", help="json: move Human3.6M's labels into each camera's axes"
    )
