"""Label files of MPII Human Pose, as plain arrays in the file's own order and its own 1-based pixels.

    NAME.json        HRNet's and SimpleBaselines' lists: image, center, scale, joints, joints_vis (1 where labelled)
    NAME.h5          Newell's lists: part, visible, center, scale, normalize, imgname or NAME_images.txt beside
    gt_NAME.mat      what the evaluation needs: see `mpii_truth`

`center` and `scale` are the owners' objpos and scale (the person's height over 200 pixels) in HRNet's lists and in those of
Newell's training code; the reference code then adds 15 x scale to y and multiplies scale by 1.25 ("to avoid cropping limbs").
In the h5 that comes with Newell's demo this is done already. `People` always has the owners' values: objpos is whole pixels,
so a file whose y is not, but becomes so when 12 x scale is taken off, is one of the latter.

In the h5, `visible` 0 is a hidden joint or a missing one; what is missing has the place (0, 0). On the validation list this
is exactly `jnt_missing` of gt_valid.mat. The places differ: neck and head top are cut to whole pixels there (up to 1.4 px
off), and a few joints of ten persons have a coordinate of 0 in gt_valid.mat where the h5 has the place. Published numbers
come from gt_valid.mat.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets.labels import load_mat
from bipose_lit.metrics.pckh import HEAD_FACTOR, SMALLEST_HEAD
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE, BiposeError

Floats = NDArray[np.float64]
Skipped = dict[str, list[str]]

LIMIT: Final = 1e5
"""Nothing labelled lies farther out than this, in pixels."""

MOST_PEOPLE: Final = 1_000_000
_K: Final = len(skeletons.MPII)
_MEANT: Final = {"part": " (joint labels); is this a file of predictions?"}
_ELSE: Final = "; is it MPII's?"
NO_PLACE: Final = "joints without a usable place, taken as absent"


@dataclass(frozen=True)
class People:
    """Labelled persons of one file; N persons.

    Attributes:
        row: (N,) position in the file, counting what was left out.
        image: (N,) file names of the pictures.
        person: (N,) number of the person within its picture.
        joints: (N, 16, 2) pixels, 1-based; 0 where absent.
        visible: (N, 16) ABSENT, OCCLUDED, VISIBLE.
        centre: (N, 2) objpos, 1-based pixels; NaN where unknown.
        scale: (N,) height over 200 pixels; NaN where unknown.
        head: (N,) head size in pixels (0.6 x the head box's diagonal); NaN where unknown.
        cluster: (N,) independent source, "" where the file names none.
        skipped: what was left out or changed.
    """

    row: NDArray[np.int64]
    image: tuple[str, ...]
    person: tuple[int, ...]
    joints: Floats
    visible: NDArray[np.uint8]
    centre: Floats
    scale: Floats
    head: Floats
    cluster: tuple[str, ...]
    skipped: Skipped = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row)


class _Entry(msgspec.Struct):
    image: str
    center: list[float] | None = None
    scale: float | None = None
    joints: list[list[float]] | None = None
    joints_vis: list[float | bool] | None = None
    cluster: str | None = None


def read_bytes(path: Path) -> bytes:
    """A file's content. BiposeError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BiposeError(f"{path}: cannot read the file ({error.strerror}); check the data set's folder") from error


def plausible(values: Any) -> NDArray[np.bool_]:
    """Whether numbers are finite and within `LIMIT`, elementwise."""
    numbers = np.asarray(values, np.float64)
    return np.asarray(np.abs(np.where(np.isnan(numbers), np.inf, numbers)) <= LIMIT)


def image_name(name: str) -> bool:
    """Whether a name can be a picture's: relative, printable, not above its folder."""
    return (
        0 < len(name) <= 200
        and name.isprintable()
        and "\\" not in name
        and all(part not in ("", ".", "..") for part in name.split("/"))
    )


def centre_and_scale(centre: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """Unusable pairs as NaN: not finite, far out, no size, or -1 (HRNet's mark for unknown). (N, 2) and (N,)."""
    sized = np.asarray(plausible(scale) & (scale > 0) & (scale <= LIMIT / 200))
    good = np.asarray(sized & plausible(centre).all(axis=1) & (centre != -1).any(axis=1))
    return np.where(good[:, None], centre, np.nan), np.where(good, scale, np.nan)


def usable_head(sizes: Floats) -> Floats:
    """Head sizes, NaN where they are none."""
    return np.where(plausible(sizes) & (sizes >= SMALLEST_HEAD), sizes, np.nan)


def head_size(boxes: Floats) -> Floats:
    """(N,) 0.6 x the diagonal of (N, 2, 2) boxes (first and second corner); NaN where a corner is unusable or none is."""
    good = np.asarray(plausible(boxes).all(axis=(1, 2)))
    spread = np.where(good[:, None], boxes[:, 1] - boxes[:, 0], np.nan)
    return usable_head(HEAD_FACTOR * np.linalg.norm(spread, axis=-1))


def settle(
    joints: Floats, visible: NDArray[np.uint8], names: list[str], skipped: Skipped
) -> tuple[Floats, NDArray[np.uint8]]:
    """Takes joints with unusable coordinates as absent, says so, and puts absent ones to 0."""
    bad = ~plausible(joints).all(axis=-1) & (visible != ABSENT)
    for i in np.flatnonzero(bad.any(axis=1)):
        skipped.setdefault(NO_PLACE, []).append(f"{names[i]} ({int(bad[i].sum())})")
    visible = np.where(bad, ABSENT, visible).astype(np.uint8)
    return np.where((visible != ABSENT)[..., None], joints, 0.0), visible


def numbered(images: list[str]) -> tuple[int, ...]:
    """Number of each entry among those of the same picture, from 0."""
    seen: Counter[str] = Counter()
    found = []
    for image in images:
        found.append(seen[image])
        seen[image] += 1
    return tuple(found)


def json_entries(path: Path) -> list[msgspec.Raw]:
    """The entries of a JSON list, not looked into. BiposeError if it is none."""
    try:
        return msgspec.json.decode(read_bytes(path), type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BiposeError(f"{path}: not a JSON list of persons ({error}); copy or download it again") from error


def read_json(path: Path) -> People:
    """HRNet's list of persons. An entry that is not one is left out and counted.

    Raises:
        BiposeError: not a JSON list, or no labelled person in it (HRNet's test.json has none).
    """
    skipped: Skipped = defaultdict(list)
    rows, entries, joints, marks = [], [], [], []
    for row, text in enumerate(json_entries(path)):
        at = f"{path.name}[{row}]"
        try:
            entry = msgspec.json.decode(text, type=_Entry)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            skipped["entries that are not a person's"].append(f"{at}: {' '.join(str(error).split())}")
            continue
        if entry.joints is None or entry.joints_vis is None:
            skipped["persons without joints"].append(at)
        elif len(entry.joints) != _K or any(len(xy) != 2 for xy in entry.joints) or len(entry.joints_vis) != _K:
            skipped[f"persons without {_K} joints of x, y"].append(at)
        elif any(mark not in (0, 1) for mark in entry.joints_vis):
            skipped["joints_vis other than 0 and 1"].append(at)
        elif not image_name(entry.image):
            skipped["names that cannot be a picture's"].append(at)
        else:
            rows.append(row)
            entries.append(entry)
            joints.append(entry.joints)
            marks.append([bool(mark) for mark in entry.joints_vis])
    if not rows:
        why = "; ".join(f"{reason}: {len(where)}" for reason, where in skipped.items()) or "it is empty"
        raise BiposeError(f"{path}: no labelled person ({why}); is it HRNet's train.json or valid.json?")
    centre = np.full((len(rows), 2), np.nan)
    for i, entry in enumerate(entries):
        if entry.center is not None and len(entry.center) == 2:
            centre[i] = entry.center
    centre, scale = centre_and_scale(centre, np.array([np.nan if e.scale is None else e.scale for e in entries]))
    visible = np.where(np.array(marks), VISIBLE, ABSENT).astype(np.uint8)
    places, visible = settle(np.array(joints, np.float64), visible, [f"{path.name}[{r}]" for r in rows], skipped)
    images = [entry.image for entry in entries]
    return People(
        row=np.array(rows),
        image=tuple(images),
        person=numbered(images),
        joints=places,
        visible=visible,
        centre=centre,
        scale=scale,
        head=np.full(len(rows), np.nan),
        cluster=tuple(entry.cluster or "" for entry in entries),
        skipped=dict(skipped),
    )


def read_h5(path: Path) -> People:
    """Newell's list of persons.

    Raises:
        BiposeError: not HDF5, arrays that are missing or do not fit each other, no names of pictures, or nobody in it.
    """
    content = h5_arrays(path, ("part", "center", "scale"), ("visible", "normalize", "imgname", "person"))
    part = numbers(path, "part", content["part"])
    N = len(part) if part.ndim else 0
    if part.shape != (N, _K, 2) or not 0 < N <= MOST_PEOPLE:
        raise BiposeError(f"{path}: part has shape {part.shape}, expected (persons, {_K}, 2); is it Newell's list?")
    expected = {"center": (N, 2), "scale": (N,), "visible": (N, _K), "normalize": (N,), "person": (N,)}
    given = {key: numbers(path, key, content[key]) for key in expected if key in content}
    for key, array in given.items():
        if array.shape != expected[key]:
            raise BiposeError(f"{path}: {key} has shape {array.shape}, expected {expected[key]}; copy it again")
    skipped: Skipped = defaultdict(list)
    seen = given.get("visible", np.ones((N, _K)))
    visible = np.where((part == 0).all(axis=-1), ABSENT, np.where(seen == 0, OCCLUDED, VISIBLE)).astype(np.uint8)
    if not np.isin(seen, (0, 1)).all():
        raise BiposeError(f"{path}: visible holds other numbers than 0 and 1; copy or download it again")
    joints, visible = settle(part, visible, [f"{path.name}[{i}]" for i in range(N)], skipped)
    centre, scale, note = _owners(*centre_and_scale(given["center"], given["scale"]))
    if note:
        skipped[note].append(path.name)
    images = _image_names(path, content.get("imgname"), N)
    numbers_ = given.get("person")
    usable = numbers_ is not None and bool(plausible(numbers_).all()) and bool((numbers_ == np.floor(numbers_)).all())
    ordinals = tuple(int(p) for p in numbers_) if numbers_ is not None and usable else numbered(images)
    if len(set(zip(images, ordinals, strict=True))) < N:
        ordinals = numbered(images)
    keep = [i for i, image in enumerate(images) if image_name(image)]
    if len(keep) < N:
        skipped["names that cannot be a picture's"] += [f"{path.name}[{i}]" for i in sorted(set(range(N)) - set(keep))]
    if not keep:
        raise BiposeError(f"{path}: no name in it can be a picture's; is it Newell's list?")
    return People(
        row=np.array(keep),
        image=tuple(images[i] for i in keep),
        person=tuple(ordinals[i] for i in keep),
        joints=joints[keep],
        visible=visible[keep],
        centre=centre[keep],
        scale=scale[keep],
        head=usable_head(given.get("normalize", np.full(N, np.nan)))[keep],
        cluster=("",) * len(keep),
        skipped=dict(skipped),
    )


def mat_arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Variables of a MATLAB file as arrays.

    Raises:
        BiposeError: as `load_mat`; whatever else a damaged file makes SciPy raise.
    """
    try:
        content = load_mat(path, names)
        return {name: np.asarray(content[name]) for name in names}
    except BiposeError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside the parser
        raise BiposeError(f"{path}: not a readable MATLAB file; copy or download it again") from error


def h5_arrays(path: Path, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    """Data sets of an HDF5 file as arrays.

    Raises:
        BiposeError: not HDF5, damaged, without one that is needed, or with one too large to be a list of persons.
    """
    found: dict[str, NDArray[Any]] = {}
    try:
        with h5py.File(path, "r") as file:
            for key in (*needed, *optional):
                item = file.get(key)
                if item is None and key in needed:
                    raise BiposeError(f"{path}: no array {key!r}{_MEANT.get(key, _ELSE)}")
                if isinstance(item, h5py.Dataset):
                    if item.size is None or item.size > MOST_PEOPLE * _K * 2:
                        raise BiposeError(
                            f"{path}: {key} of shape {item.shape} is not a list of persons; copy it again"
                        )
                    found[key] = np.asarray(item[()])
                elif item is not None:
                    raise BiposeError(f"{path}: {key} is not an array; is it MPII's?")
    except BiposeError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside the parser
        raise BiposeError(f"{path}: not a readable HDF5 file; copy or download it again") from error
    return found


def numbers(path: Path, name: str, array: NDArray[Any]) -> Floats:
    """An array as float64. BiposeError if it holds anything but real numbers."""
    if array.dtype.kind not in "fiub":
        raise BiposeError(f"{path}: {name} holds {array.dtype.name}, expected numbers; is it MPII's?")
    with np.errstate(all="ignore"):  # signalling NaN of a damaged file
        return np.asarray(array, np.float64)


def _owners(centre: Floats, scale: Floats) -> tuple[Floats, Floats, str]:
    """Centre and scale as the owners give them, and a remark where the file does not tell which it has."""
    known = np.isfinite(scale)
    y, size = centre[known, 1], scale[known]
    if not len(y) or _whole(y) >= 0.5:
        return centre, scale, ""
    if _whole(y - 12 * size) < 0.5:
        return centre, scale, "centre and scale may be widened already, taken as not"
    return centre - np.stack([np.zeros_like(scale), 12 * scale], axis=1), scale / 1.25, ""


def _whole(values: Floats) -> float:
    return float((np.abs(values - np.round(values)) < 0.01).mean())


def h5_names(path: Path) -> list[str]:
    """Names of the pictures of Newell's list, one a person. BiposeError if there are none."""
    content = h5_arrays(path, ("part",), ("imgname",))
    return _image_names(path, content.get("imgname"), len(content["part"]) if content["part"].ndim else 0)


def names_beside(path: Path) -> list[str]:
    """The lines of a text file of names, empty ones left out."""
    lines = read_bytes(path).decode("utf-8", "replace").split("\n")
    return [line.strip() for line in lines if line.strip()]


def _image_names(path: Path, given: NDArray[Any] | None, people: int) -> list[str]:
    if given is not None and given.shape == (people,) and given.dtype.kind in "SO":
        return [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in given]
    if (
        given is not None and given.ndim == 2 and len(given) == people and given.dtype.kind in "fiu"
    ):  # codes of characters
        with np.errstate(all="ignore"):
            codes = np.where((given >= 0) & (given < 0x110000), given, 0).astype(np.int64)
        return ["".join(chr(c) for c in row if c) for row in codes]
    beside = path.with_name(f"{path.stem}_images.txt")
    if beside.is_file():
        names = names_beside(beside)
        if len(names) == people:
            return names
        raise BiposeError(f"{beside}: {len(names)} names for {people} persons of {path.name}; copy it again")
    raise BiposeError(f"{path}: has no names of pictures (imgname); put {beside.name} beside it")
