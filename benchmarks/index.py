"""Reading the labels of a big set: from JSON, and from the arrays kept of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.measure import ROOT, hottest, listed, profile, table
from benchmarks.setting import Setting, paragraphs
from bipose_lit.skeletons import COCO

PERSONS, LABELLED, IMAGES = 262_000, 150_000, 118_000
"""Of a training file of COCO's size."""

PROBE = """
import json, os, resource, sys, time
os.environ["BIPOSE_CACHE"] = sys.argv[2]
from bipose_lit.datasets.coco import COCO
began, busy = time.perf_counter(), time.process_time()
reader = COCO(sys.argv[1])
file = reader.labels("train")
read = time.perf_counter()
index = reader.index("train")
done, cpu = time.perf_counter(), time.process_time() - busy
try:  # getrusage counts what the process that started this one had
    with open("/proc/self/status") as status:
        peak = 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
except OSError:
    peak = (1 if sys.platform == "darwin" else 1024) * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = {"read": read - began, "index": done - read, "cpu": cpu, "peak": peak}
print(json.dumps({**found, "persons": len(file.truth), "tracks": len(index.tracks)}))
"""


def run(setting: Setting) -> str:
    """The section."""
    from bipose_lit.datasets.coco_json import read_coco

    persons = setting.pick(PERSONS, 600)
    root = setting.work / "labels"
    path = root / "annotations" / "person_keypoints_train2017.json"
    setting.tell("writing the labels")
    write_labels(path, persons, persons * LABELLED // PERSONS, persons * IMAGES // PERSONS)
    rows = []
    cache = setting.work / "index-cache"
    for name in ("from JSON, the cache is written", "from the cache"):
        setting.tell(name)
        found = probe(root, cache)
        rows.append([name, *(f"{found[key]:.2f}" for key in ("read", "index", "cpu")), f"{found['peak'] / 2**20:,.0f}"])
    kept = sum(p.stat().st_size for p in cache.glob("*.npz")) / 2**20
    spots = listed(hottest(profile(lambda: read_coco(path, len(COCO), cache=False))))
    return paragraphs(
        f"A label file of {path.stat().st_size / 1e6:,.0f} MB in COCO's layout with polygons: {persons:,} persons, "
        f"{found['tracks']:,} tracks (the rest is crowds, persons without a labelled joint and the share held out); "
        f"each row a fresh process, its peak with Python and its imports. The cache takes {kept:,.0f} MB.",
        table(["start", "labels, s", "index, s", "CPU seconds of both", "peak memory, MB"], rows),
        f"What limits reading the JSON now (share of profiled time): {spots}.",
    )


def probe(root: Path, cache: Path) -> dict[str, float]:
    """Seconds and peak bytes of reading a set's labels and making its index, in a fresh process."""
    command = [sys.executable, "-c", PROBE, str(root), str(cache)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    return dict(json.loads(done.stdout))


def write_labels(path: Path, persons: int, labelled: int, images: int, seed: int = 0) -> None:
    """A file in the layout of person_keypoints_train2017.json with random persons; most of it are polygons.

    Parts repeat every some hundred persons, as writing random numbers takes longer than reading them.
    """
    rng = np.random.default_rng(seed)
    polygons = [json.dumps([rng.uniform(0, 640, 74).round(2).tolist()]) for _ in range(499)]
    poses = [_pose(rng) for _ in range(997)]
    nothing = f'"num_keypoints": 0, "keypoints": {[0] * 3 * len(COCO)}'
    boxes = rng.uniform([0, 0, 20, 40], [300, 200, 300, 260], (1009, 4)).round(2)
    places = [f'"area": {0.5 * b[2] * b[3]:.4f}, "bbox": {b.tolist()}' for b in boxes]
    owner = np.sort(rng.integers(0, images, persons)).tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        file.write('{"info": {}, "licenses": [], "images": [')
        for i in range(images):
            file.write(
                f'{", " if i else ""}{{"license": 3, "file_name": "{i:012d}.jpg", "height": 480, "width": 640, "id": {i}, '
                f'"coco_url": "http://images.cocodataset.org/train2017/{i:012d}.jpg"}}'
            )
        file.write('], "annotations": [')
        for g in range(persons):
            pose = poses[g % len(poses)] if g < labelled else nothing
            file.write(
                f'{", " if g else ""}{{"segmentation": {polygons[g % len(polygons)]}, {pose}, {places[g % len(places)]}, '
                f'"iscrowd": 0, "image_id": {owner[g]}, "category_id": 1, "id": {g + 1}}}'
            )
        category = {"supercategory": "person", "id": 1, "name": "person", "keypoints": list(COCO.joints)}
        file.write(f'], "categories": [{json.dumps(category)}]}}')


def _pose(rng: np.random.Generator) -> str:
    triples = np.concatenate([rng.integers(1, 480, (len(COCO), 2)), rng.integers(0, 3, (len(COCO), 1))], axis=1)
    triples[0, 2] = 2
    triples[triples[:, 2] == 0] = 0
    return f'"num_keypoints": {int((triples[:, 2] > 0).sum())}, "keypoints": {triples.ravel().tolist()}'
