"""One's own labels in COCO's layout with time: tracks, stills, videos, box rules, and what one gets told."""

import json

import av
import cv2
import numpy as np
import pytest

from bipose_lit.datasets import video_json
from bipose_lit.datasets.video_json import VideoJSON
from bipose_lit.types import ABSENT, NORMS, OCCLUDED, AbsentSplitError, BiposeError

JOINTS = ("head", "left_hand", "right_hand", "left_shoulder", "right_hip")
SKELETON = """
name: five
joints: [head, left_hand, right_hand, left_shoulder, right_hip]
swaps: [[left_hand, right_hand]]
limbs: [[head, left_hand]]
"""


def image(number, video="walk", frame=0, **changes):
    content = {
        "id": number, "file_name": f"frames/{number:04d}.png", "width": 64, "height": 48, "video_id": video, "frame_id": frame,
    }  # fmt: skip
    return {k: v for k, v in {**content, **changes}.items() if v is not ...}


def person(number, image_id, track=0, **changes):
    rng = np.random.default_rng(number)
    triples = np.concatenate([rng.uniform(10, 40, (5, 2)).round(1), np.full((5, 1), 2)], axis=1)
    content = {
        "id": number, "image_id": image_id, "track_id": track, "keypoints": triples.ravel().tolist(),
        "bbox": [8, 9, 36, 34], "area": 400,
    }  # fmt: skip
    return {k: v for k, v in {**content, **changes}.items() if v is not ...}


def write(root, images, persons, split="test", **more):
    (root / "five.yaml").write_text(SKELETON)
    content = {"images": images, "annotations": persons, "categories": [{"id": 1, "keypoints": list(JOINTS)}]}
    (root / f"annotations_{split}.json").write_text(json.dumps({**content, **more}))


def read(root, split="test", **arguments):
    return VideoJSON(root, "five.yaml", **arguments).index(split)


def film(path, frames):
    """A video whose frame t is grey of 20 t."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for t in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * t, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def test_a_track_is_a_run_of_consecutive_frames(tmp_path):
    frames = (0, 1, 2, 5, 6, 9)
    images = [image(i, frame=f, fps=25) for i, f in enumerate(frames)]
    persons = [person(100 + i, i) for i in reversed(range(6))] + [person(200, 1, track=1)]
    write(tmp_path, images, persons)
    index = read(tmp_path)
    assert index.name == "video/test[gt-box]"
    assert [(t.clip, t.uid.tolist()) for t in index.tracks] == [
        ("walk/0-00000", [100, 101, 102]), ("walk/0-00005", [103, 104]), ("walk/0-00009", [105]), ("walk/1-00001", [200]),
    ]  # fmt: skip
    track = index.tracks[0]
    assert (track.fps, track.cluster, track.image_size) == (25, "frames", (64, 48))
    known = np.reshape(person(101, 1)["keypoints"], (5, 3))
    np.testing.assert_allclose(track.joints[1], known[:, :2], atol=1e-5)
    assert track.boxes[1].tolist() == [8, 9, 36, 34]
    norms = dict(zip(NORMS, track.norms[1], strict=True))
    assert (norms["bbox"], norms["area"]) == (36, 20)
    assert norms["torso"] == pytest.approx(np.linalg.norm(known[3, :2] - known[4, :2]), rel=1e-5)
    assert index.skipped == {}


def test_frames_are_read_from_their_files(tmp_path):
    write(tmp_path, [image(i, frame=i) for i in range(4)], [person(10 + i, i) for i in range(4)])
    (tmp_path / "pictures/frames").mkdir(parents=True)
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"pictures/frames/{i:04d}.png"), np.full((48, 64, 3), 20 * i, np.uint8))
    (track,) = read(tmp_path, images="pictures").tracks
    assert [int(f.mean()) for f in track.frames.read([3, 0, 2])] == [60, 0, 40]


def test_frames_of_a_video_file(tmp_path):
    film(tmp_path / "videos/walk.mp4", 10)
    images = [image(i, frame=i, file_name=..., width=..., height=...) for i in (2, 3, 4, 7, 12)]
    videos = [{"id": "walk", "file_name": "videos/walk.mp4"}]
    write(tmp_path, images, [person(10 + i, i) for i in (2, 3, 4, 7, 12)], videos=videos)
    index = read(tmp_path)
    first, second = index.tracks
    assert (len(first), first.image_size, first.fps, second.clip) == (3, (64, 48), 10, "walk/0-00007")
    assert [round(float(f.mean()), -1) for f in first.frames.read([2, 0])] == [80, 40]
    assert [round(float(f.mean()), -1) for f in second.frames.read([0])] == [140]
    assert index.skipped == {"annotations: frame_id is not a position in the video": ["annotations_test.json: id 22"]}
    assert first.frames.fingerprint() != second.frames.fingerprint()
    assert len(first.frames) == 3


def test_a_video_that_cannot_be_used(tmp_path, monkeypatch):
    images = [image(1, file_name=...), image(2, video="other", file_name=...), image(3, video="still", file_name=...)]
    persons = [person(10, 1), person(11, 2), person(12, 3)]
    videos = [{"id": v, "file_name": f"{v}.mp4"} for v in ("walk", "other")]
    write(tmp_path, images, persons, videos=videos)
    film(tmp_path / "walk.mp4", 3)
    with pytest.raises(BiposeError, match=r"other\.mp4: cannot read the video"):
        read(tmp_path)
    index = read(tmp_path, strict=False)
    assert [t.uid.tolist() for t in index.tracks] == [[10]]
    assert index.skipped["annotations: the video cannot be read"] == ["annotations_test.json: id 11"]
    reason = "annotations: an image without file_name, and no video of its video_id"
    assert index.skipped[reason] == ["annotations_test.json: id 12"]
    monkeypatch.setattr(video_json, "MAX_VIDEO_BYTES", 1000)
    with pytest.raises(BiposeError, match="3 frames of 64x48 are more than a process can keep decoded"):
        read(tmp_path)
    monkeypatch.undo()
    write(tmp_path, [image(1, file_name=..., width=640)], persons[:1], videos=videos)
    with pytest.raises(BiposeError, match="width and height are not the video's, 64 and 48: id 10"):
        read(tmp_path)


def test_stills_and_what_has_no_place_in_time(tmp_path):
    images = [
        image(1, video=..., frame=...), image(2, video=..., frame=..., cluster="garden"), image(3, frame=...), image(4, frame=1),
    ]  # fmt: skip
    persons = [person(10, 1), person(11, 1), person(12, 2), person(13, 3), person(14, 3), person(15, 4, track=...)]
    write(tmp_path, images, persons)
    index = read(tmp_path)
    assert sorted(t.clip for t in index.tracks) == ["1/10", "1/11", "2/12", "3/13", "3/14", "4/15"]
    assert all(len(t) == 1 for t in index.tracks)
    assert {t.clip: t.cluster for t in index.tracks} == {
        "1/10": "frames/0001.png", "1/11": "frames/0001.png", "2/12": "garden",
        "3/13": "frames", "3/14": "frames", "4/15": "frames",
    }  # fmt: skip
    assert index.skipped == {
        "annotations: no track_id or no frame_id, taken as a still": [
            f"annotations_test.json: id {n}" for n in (13, 14, 15)
        ],
    }


def test_box_rules(tmp_path):
    hidden = np.reshape(person(11, 1)["keypoints"], (5, 3))
    hidden[0, 2], hidden[1] = 1, 0
    persons = [
        person(10, 0), person(11, 1, keypoints=hidden.ravel().tolist()), person(12, 2, keypoints=[0] * 15),
        person(13, 3, bbox=[1, 1, 1e-40, 4]),
    ]  # fmt: skip
    write(tmp_path, [image(i, frame=i) for i in range(4)], persons)
    (gt,), (clip,), (frame,) = (read(tmp_path, box_rule=r).tracks for r in ("gt-box", "clip-box", "frame-box"))
    assert (gt.visible[1, 0], gt.visible[1, 1], gt.joints[1, 1].tolist()) == (OCCLUDED, ABSENT, [0, 0])
    shown = np.concatenate([gt.joints[t][gt.visible[t] > 0] for t in range(4)])
    low, size = shown.min(0), shown.max(0) - shown.min(0) + 1
    whole = np.concatenate([low, size])
    (exact,) = read(tmp_path, box_rule="clip-box", box_jitter=0).tracks
    np.testing.assert_allclose(exact.boxes, np.repeat(whole[None], 4, axis=0), rtol=1e-6)
    assert np.ptp(clip.boxes, axis=0).max() == 0
    assert 0 < np.abs(clip.boxes[0] - whole).max() < 15
    np.testing.assert_allclose(frame.boxes[2], whole, rtol=1e-6)  # no joint there
    tight = gt.joints[0]
    np.testing.assert_allclose(frame.boxes[0], [*tight.min(0), *(np.ptp(tight, axis=0) + 1)], rtol=1e-5)
    np.testing.assert_allclose(gt.boxes[3], frame.boxes[3])  # its own box has no area
    assert gt.boxes[2].tolist() == [8, 9, 36, 34]
    index = read(tmp_path)
    assert index.skipped == {"boxes below one pixel, the joints' box used": ["annotations_test.json: walk/0-00000 (1)"]}


def test_labels_on_every_second_frame(tmp_path):
    write(tmp_path, [image(i, frame=2 * i, fps=30) for i in range(3)], [person(10 + i, i) for i in range(3)])
    index = read(tmp_path)
    assert [len(t) for t in index.tracks] == [1, 1, 1]
    assert index.skipped == {
        "neighbouring labels are 2 frames apart, step is 1: give step 2": [
            "annotations_test.json: video walk, track 0"
        ],
    }
    index = read(tmp_path, step=2)
    (track,) = index.tracks
    assert (len(track), track.fps, index.skipped) == (3, 15, {})


def test_a_wrong_step_is_told_of_each_track_by_its_most_frequent_gap(tmp_path):
    frames = {0: (0, 3, 6, 7, 10), 1: (0, 1, 2, 9), 2: (0, 1, 2, 4), 3: (5,), 4: (0, 1, 4), 5: (0, 3)}
    images = [image(i, frame=i) for i in range(11)]
    persons = [person(100 * k + f, f, track=k) for k, found in frames.items() for f in found]
    write(tmp_path, images, persons)
    place = "annotations_test.json: video walk, track"
    assert read(tmp_path).skipped == {
        "neighbouring labels are 3 frames apart, step is 1: give step 3": [f"{place} 0", f"{place} 5"],
    }
    found = read(tmp_path, step=3).skipped
    assert found == {
        "neighbouring labels are 1 frame apart, step is 3: give step 1": [f"{place} 1", f"{place} 2"],
    }


def test_who_is_left_out(tmp_path):
    images = [image(i, frame=i) for i in range(3)] + [image(3, frame=3, width=...), image(4, frame=4, width=32)]
    persons = [
        person(10, 0), person(11, 1), person(12, 1), person(13, 2, iscrowd=1), person(14, 3), person(15, 4),
        person(16, 0, track=5, keypoints=[0] * 15), person(17, 0, keypoints=[1] * 9),
        person(18, 2, category_id=2),
    ]  # fmt: skip
    write(tmp_path, images, persons)
    index = read(tmp_path)
    assert [t.uid.tolist() for t in index.tracks] == [[10, 11], [15]]
    assert index.skipped == {
        "annotations: keypoints are 9 numbers, expected 15 (5 joints)": [
            "annotations_test.json: annotations[7] (id 17)"
        ],
        "annotations: a crowd": ["annotations_test.json: id 13"],
        "annotations: a category_id without joints": ["annotations_test.json: id 18"],
        "annotations: an image without width and height": ["annotations_test.json: id 14"],
        "annotations: track_id is there twice in a frame, the first one used": ["annotations_test.json: id 12"],
        "no labelled joint": ["annotations_test.json: walk/5-00000"],
    }


def test_another_size_of_picture_begins_another_track(tmp_path):
    images = [image(0), image(1, frame=1), image(2, frame=2, width=32), image(3, frame=3, width=32)]
    write(tmp_path, images, [person(10 + i, i) for i in range(4)])
    assert [(len(t), t.image_size) for t in read(tmp_path).tracks] == [(2, (64, 48)), (2, (32, 48))]


def test_names_of_clips_stay_unique(tmp_path):
    images = [image(1, video="a", frame=0), image(2, video="1", frame=0), image(3, video=1, frame=0)]
    write(tmp_path, images, [person(10, 1), person(11, 2), person(12, 3, track=3), person(13, 3, track=4)])
    clips = [t.clip for t in read(tmp_path).tracks]
    assert len(set(clips)) == len(clips) == 4


def test_splits(tmp_path):
    images = [image(10 * v + f, video=v, frame=f) for v in range(10) for f in range(2)]
    write(tmp_path, images, [person(i["id"], i["id"]) for i in images], "train")
    reader = VideoJSON(tmp_path, "five.yaml", val_fraction=0.2)
    train, val = reader.index("train"), reader.index("val")
    assert (len(train.tracks), len(val.tracks)) == (8, 2)
    assert not set(train.clusters) & set(val.clusters)
    with pytest.raises(AbsentSplitError, match=r"annotations_test\.json: no such label file"):
        reader.index("test")
    write(tmp_path, [image(1, video="own")], [person(900, 1)], "val")
    assert [len(reader.index(s).tracks) for s in ("train", "val")] == [10, 1]
    (tmp_path / "annotations_val.json").unlink()
    write(tmp_path, [image(1)], [person(900, 1)], "train")
    with pytest.raises(AbsentSplitError, match=r"write annotations_val\.json, or raise val_fraction"):
        reader.index("val")


def test_what_the_user_gets_told(tmp_path):
    write(tmp_path, [image(1)], [person(10, 1)])
    for arguments, message in (
        ({"skeleton": "fife"}, "skeleton 'fife' is unknown"),
        ({"skeleton": "none.yaml"}, r"none\.yaml: cannot read the skeleton"),
        ({"box_rule": "det-box"}, "box_rule 'det-box' is none of"),
        ({"step": 0}, "step 0"),
        ({"fps": -1.0}, "fps -1"),
        ({"box_jitter": 1.0}, "box_jitter"),
        ({"annotations": "labels.json"}, "must hold {split}"),
    ):
        with pytest.raises(BiposeError, match=message):
            VideoJSON(tmp_path, **{"skeleton": "five.yaml", **arguments})
    with pytest.raises(BiposeError, match="no such folder"):
        VideoJSON(tmp_path / "none", "five.yaml")
    with pytest.raises(BiposeError, match="split 'dev'"):
        read(tmp_path, "dev")
    with pytest.raises(BiposeError, match=r"keypoints are 15 numbers, expected 51 \(17 joints\)"):
        VideoJSON(tmp_path, "coco").index("test")
    path = tmp_path / "annotations_test.json"
    good = path.read_text()
    for old, new, message in (
        ('"left_hand"', '"l_hand"', "joint 1 is 'l_hand' in the labels and 'left_hand' in the skeleton five"),
        (', "right_hip"]', "]", "joint 4 is missing in the labels and 'right_hip' in the skeleton"),
        ('"width": 64, ', "", "left out: annotations: an image without width and height: id 10"),
        ('"file_name": "frames/0001.png", ', "", "without file_name, and no video of its video_id: id 10"),
        (
            '"video_id": "walk"',
            '"video_id": ["walk"]',
            "none of the 1 images can be used; .*video_id: expected int . str",
        ),
        (
            '"image_id": 1',
            '"image_id": "1"',
            "none of the 1 annotations can be used; .*image_id: expected int, got str",
        ),
        ('"track_id": 0', '"track_id": "anna"', "track_id: expected int . null, got str"),
        ('"annotations"', '"labels"', "missing required field annotations"),
    ):
        assert old in good
        path.write_text(good.replace(old, new))
        with pytest.raises(BiposeError, match=message) as caught:
            read(tmp_path)
        assert str(caught.value).startswith(str(path))
    write(tmp_path, [image(1)], [])
    with pytest.raises(BiposeError, match="no person with a labelled joint") as caught:
        read(tmp_path)


def test_what_may_be_left_out_is_not_told(tmp_path):
    write(tmp_path, [image(1)], [person(10, 1, area=..., iscrowd=..., category_id=...)])
    index = read(tmp_path)
    assert index.skipped == {}
    assert index.tracks[0].norms[0, NORMS.index("area")] == pytest.approx(np.sqrt(0.53 * 36 * 34))


def test_sources_are_files_not_numbers(tmp_path):
    def clusters(images, **more):
        write(tmp_path, images, [person(100 + i["id"], i["id"]) for i in images], **more)
        return [t.cluster for t in read(tmp_path).tracks]

    def named(number, name, video=1, frame=None):
        return image(number, video=video, frame=number if frame is None else frame, file_name=name)

    assert clusters([named(1, "walk/0001.png"), named(2, "walk/0002.png"), named(3, "run/0001.png", 2)]) == [
        "walk",
        "run",
    ]
    assert clusters([named(1, "all/walk_01.png"), named(2, "all/walk_02.png"), named(3, "all/run_01.png", 2)]) == [
        "all/walk", "all/run",
    ]  # fmt: skip
    assert clusters([named(1, "f/01.png"), named(2, "f/02.png", 2)]) == [
        "video 1",
        "video 2",
    ]  # frames of two in one row
    assert clusters([named(1, "f/a.png"), named(2, "f/b.png")]) == ["video 1"]  # no name in common
    assert clusters([named(1, "01.png"), named(2, "02.png")]) == ["video 1"]
    assert clusters([named(1, "01.png"), image(2, video=1, frame=2, cluster="mine")]) == ["video 1"]
    film(tmp_path / "v/a.mp4", 4)
    videos = [{"id": 1, "file_name": "v/a.mp4"}]
    assert clusters([image(1, video=1, file_name=..., frame=1)], videos=videos) == ["v/a.mp4"]
    mixed = [image(1, video=1, file_name=..., frame=1), image(2, video=1, frame=2)]  # one video is one source
    assert clusters(mixed, videos=videos) == ["v/a.mp4", "v/a.mp4"]
    assert clusters([image(1, video=..., frame=...)]) == ["frames/0001.png"]
    assert clusters([image(1, video=..., frame=..., file_name="a" + "_" * 200_000 + "b.png")])


def test_a_file_for_two_splits_is_read_once(tmp_path, monkeypatch):
    film(tmp_path / "a.mp4", 4)
    film(tmp_path / "b.mp4", 4)
    images = [
        image(10 * v + f, video=v, frame=f, file_name=..., width=..., height=...) for v in (0, 1) for f in range(3)
    ]
    videos = [{"id": 0, "file_name": "a.mp4"}, {"id": 1, "file_name": "b.mp4"}]
    persons = [person(i["id"], i["id"]) for i in images] + [person(99, 0, track=7, keypoints=[0] * 15)]
    write(tmp_path, images, persons, "train", videos=videos)
    counts = {"read_coco": 0, "probe_video": 0}

    def counting(name, own):
        def call(*given):
            counts[name] += 1
            return own(*given)

        return call

    for name in counts:
        monkeypatch.setattr(video_json, name, counting(name, getattr(video_json, name)))
    built = []
    source = VideoJSON._source
    monkeypatch.setattr(VideoJSON, "_source", lambda self, *given: built.append(0) or source(self, *given))
    reader = VideoJSON(tmp_path, "five.yaml")
    train, val = reader.index("train"), reader.index("val")
    assert counts == {"read_coco": 1, "probe_video": 2}
    assert len(built) == len(train.tracks) + len(val.tracks) == 2  # tracks of the other split are not built
    assert train.skipped == val.skipped == {"no labelled joint": ["annotations_train.json: 0/7-00000"]}
    fresh = [VideoJSON(tmp_path, "five.yaml").index(s) for s in ("train", "val")]
    assert [[t.uid.tolist() for t in i.tracks] for i in fresh] == [
        [t.uid.tolist() for t in i.tracks] for i in (train, val)
    ]
    write(tmp_path, images[:3], persons[:3], "train", videos=videos)
    with pytest.raises(AbsentSplitError):
        reader.index("val")  # the file has changed meanwhile
    assert counts == {"read_coco": 4, "probe_video": 6}  # each reader probes a video once


def test_a_cluster_without_a_labelled_joint_is_not_held_out(tmp_path):
    images = [image(v, video=v, file_name=f"{v}/0.png") for v in range(1, 9)]
    for empty in range(1, 9):
        persons = [person(v, v, **({"keypoints": [0] * 15} if v == empty else {})) for v in range(1, 9)]
        write(tmp_path, images, persons, "train")
        reader = VideoJSON(tmp_path, "five.yaml")
        assert [len(reader.index(s).tracks) for s in ("train", "val")] == [6, 1]
