"""How fast bipose is, as ratios measured side by side in one run.

    python -m benchmarks                 every case, a few minutes on idle cores; replaces their sections in RESULTS.md
    python -m benchmarks cache heads     these cases; the other sections stay
    python -m benchmarks --quick         seconds, prints instead of writing: says that everything runs, not how fast

A case is a module with a function `run(setting)`, which returns the Markdown of its section, and one line in `CASES`. A
function `why_not()` tells why it cannot be measured here, if it cannot: it is then skipped, and its section stays.
What is compared is timed in interleaved rounds (`measure.interleave`), so that a slow minute of the machine hits all
sides of a ratio alike. Each case runs in a forked process of its own, one after the other; a lock keeps two runs from
measuring at once.
"""

CASES = {
    "cache": "feature cache",
    "pipeline": "training pipeline",
    "synthetic": "synthetic set",
    "heads": "heads over time",
    "decode": "heatmap decoding",
    "assembly": "assembly of people",
    "structured": "structured inference",
    "startup": "start-up",
    "metrics": "metrics and report",
    "report": "report of many runs",
    "engine": "engine of ablations",
    "sweep": "trials of a sweep",
    "ddp": "two processes over one",
    "gpu": "precision and compilation on a GPU",
    "index": "labels of a big set",
    "coco_ap": "COCO's AP",
}
"""Name of the module to what it measures, in the order of RESULTS.md."""
