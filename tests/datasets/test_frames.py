"""Frame sources: order, colours, truncated and damaged files, the cache, the fingerprint."""

import struct
import subprocess
import sys

import av
import cv2
import numpy as np
import pytest

from bipose_lit.datasets import frames
from bipose_lit.datasets.frames import FolderFrames, VideoFrames, image_size, probe_video, read_image
from bipose_lit.types import BiposeError


def picture(value: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A smooth RGB picture whose red level is `value` and whose other channels differ from it."""
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = value
    image[..., 1] = np.linspace(0, 80, width)[None]
    image[..., 2] = np.linspace(200, 120, height)[:, None]
    return image


def write_video(path, images, codec="mjpeg"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.options = {"qmin": "2", "qmax": "2"} if codec == "mjpeg" else {}
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def folder(tmp_path):
    images = [picture(v) for v in (10, 60, 110, 160)]
    names = []
    for i, image in enumerate(images):
        extension = "png" if i % 2 else "jpg"
        names.append(f"clip/{i:05d}.{extension}")
        (tmp_path / "clip").mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / names[-1]), image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    return tmp_path, tuple(names), images


def test_folder_frames_are_rgb_and_in_the_order_asked_for(folder):
    root, names, images = folder
    source = FolderFrames(root, names)
    assert len(source) == 4
    for image, expected in zip(source.read([3, 0, 1]), (images[3], images[0], images[1]), strict=True):
        assert image.dtype == np.uint8
        assert np.abs(image.astype(int) - expected).mean() < 2.5  # a swap of red and blue would be tens of levels


def test_a_png_is_read_without_loss(folder):
    root, names, images = folder
    np.testing.assert_array_equal(read_image(root / names[1]), images[1])


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
def test_truncated_images_are_refused_by_name(folder, which, keep):
    root, names, _ = folder
    path = root / names[which]
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(BiposeError, match=path.name):
        FolderFrames(root, names).read([which])


def test_opencv_alone_would_not_have_noticed_the_truncated_jpeg(folder):
    root, names, _ = folder
    path = root / names[0]
    path.write_bytes(path.read_bytes()[:-40])
    assert cv2.imread(str(path)) is not None


def test_a_damaged_png_is_refused(folder):
    root, names, _ = folder
    path = root / names[1]
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(BiposeError, match="checksum"):
        read_image(path)


def test_a_jpeg_with_bytes_after_its_end_is_accepted(folder):
    root, names, images = folder
    path = root / names[0]
    path.write_bytes(path.read_bytes() + b"\0" * 300)
    assert read_image(path).shape == images[0].shape


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(BiposeError, match=r"gone\.png"):
        FolderFrames(tmp_path, ("gone.png",)).read([0])
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(BiposeError, match=r"text\.jpg"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(BiposeError, match=r"gone\.avi"):
        VideoFrames(tmp_path, "gone.avi", 3).read([0])
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(BiposeError, match=r"text\.avi"):
        probe_video(tmp_path / "text.avi")


def test_image_size_reads_width_then_height(folder):
    root, names, _ = folder
    assert image_size(root / names[0]) == (64, 48)
    assert image_size(root / names[1]) == (64, 48)


@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4"])
def test_video_frames_come_back_in_order(tmp_path, codec):
    images = [picture(v) for v in range(20, 220, 20)]
    write_video(tmp_path / "v.avi", images, codec)
    info = probe_video(tmp_path / "v.avi")
    assert (info.frames, info.size, info.fps) == (10, (64, 48), 25.0)
    source = VideoFrames(tmp_path, "v.avi", info.frames)
    for image, value in zip(source.read([7, 2, 2]), (160, 60, 60), strict=True):
        assert abs(float(image[..., 0].mean()) - value) < 5
        assert image.shape == (48, 64, 3)


def test_a_video_is_decoded_once_for_many_reads(tmp_path, monkeypatch):
    write_video(tmp_path / "v.avi", [picture(v) for v in (10, 90, 170)])
    calls = []
    decode = frames.decode_video
    monkeypatch.setattr(frames, "decode_video", lambda path: calls.append(path) or decode(path))
    source = VideoFrames(tmp_path, "v.avi", 3)
    for t in (0, 1, 2, 0):
        source.read([t])
    assert len(calls) == 1
    write_video(tmp_path / "v.avi", [picture(v) for v in (40, 40, 40, 40)])
    assert abs(float(source.read([1])[0][..., 0].mean()) - 40) < 4, "a rewritten file is read anew"


@pytest.mark.parametrize(("mebibytes", "kept"), [("0", 1), ("1", 1), ("3", 3), ("8", 4)])
def test_the_cache_is_bounded(mebibytes, kept, tmp_path, monkeypatch):
    monkeypatch.setenv(frames.CACHE, mebibytes)
    monkeypatch.setenv(frames.SHARERS, "1")
    monkeypatch.setattr(frames, "_cache", type(frames._cache)())
    for i in range(4):
        write_video(tmp_path / f"{i}.avi", [np.full((320, 512, 3), v, np.uint8) for v in (10, 200)])  # 0.94 MiB
        VideoFrames(tmp_path, f"{i}.avi", 2).read([0])
    assert len(frames._cache) == kept


def test_processes_share_the_cache(monkeypatch):
    monkeypatch.setenv(frames.SHARERS, "1")
    monkeypatch.setenv(frames.CACHE, "64")
    assert frames.cache_bytes() == 64 * 2**20
    frames.share_cache(8)
    assert frames.cache_bytes() == 8 * 2**20
    told = "from bipose_lit.datasets import frames; print(frames.cache_bytes() // 2**20)"
    alone = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert alone.stdout.strip() == "8", "a process that was not forked has its share too"
    monkeypatch.delenv(frames.CACHE)
    assert 96 * 2**20 <= frames.cache_bytes() <= 2**30 // 8, "a share of the memory, by itself"


def test_a_cache_size_that_is_no_number_is_told(monkeypatch):
    monkeypatch.setenv(frames.CACHE, "1 GB")
    with pytest.raises(BiposeError, match="BIPOSE_VIDEO_CACHE=1 GB: expected a whole number of MiB"):
        frames.cache_bytes()


def test_a_shared_frame_cannot_be_written_to(tmp_path):
    write_video(tmp_path / "v.avi", [picture(50)])
    with pytest.raises(ValueError, match="read-only"):
        VideoFrames(tmp_path, "v.avi", 1).read([0])[0][:] = 0


def test_a_truncated_video_is_refused(tmp_path):
    write_video(tmp_path / "v.avi", [picture(v) for v in range(10, 250, 10)])
    data = (tmp_path / "v.avi").read_bytes()
    (tmp_path / "v.avi").write_bytes(data[: len(data) // 2])
    with pytest.raises(BiposeError, match="truncated"):
        VideoFrames(tmp_path, "v.avi", 24).read([0])


def test_fewer_frames_than_indexed_are_an_error(tmp_path):
    write_video(tmp_path / "v.avi", [picture(v) for v in (10, 90)])
    with pytest.raises(BiposeError, match="2 frames decode where 5"):
        VideoFrames(tmp_path, "v.avi", 5).read([3])


def test_the_fingerprint_follows_content_and_not_place_or_time(folder, tmp_path_factory):
    root, names, _ = folder
    before = FolderFrames(root, names).fingerprint()
    other = tmp_path_factory.mktemp("copy")
    (other / "clip").mkdir()
    for name in names:
        (other / name).write_bytes((root / name).read_bytes())
    assert FolderFrames(other, names).fingerprint() == before
    data = bytearray((other / names[0]).read_bytes())
    data[-30] ^= 1
    (other / names[0]).write_bytes(bytes(data))
    assert FolderFrames(other, names).fingerprint() != before
    (root / names[2]).write_bytes((root / names[2]).read_bytes() + b"x")
    assert FolderFrames(root, names).fingerprint() != before
    assert FolderFrames(root, names[::-1]).fingerprint() != FolderFrames(root, names).fingerprint()


@pytest.mark.parametrize(("turned", "matrix", "size"), [
    (0, (1, 0, 0, 1), (64, 48)), (90, (0, 1, -1, 0), (48, 64)), (180, (-1, 0, 0, -1), (64, 48)), (270, (0, -1, 1, 0), (48, 64)),
])  # fmt: skip
def test_a_turned_video_has_the_size_that_is_shown(tmp_path, turned, matrix, size):
    """A phone held upright writes lying pictures and a matrix that turns them (ISO 14496-12, 8.3.2)."""
    path = tmp_path / "v.mp4"
    write_video(path, [picture(v) for v in (20, 80, 140)], "mpeg4")
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    a, b, c, d = (n * 65536 for n in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    info = probe_video(path)
    assert (info.frames, info.size) == (3, size)
    assert VideoFrames(tmp_path, "v.mp4", 3).read([1])[0].shape == (size[1], size[0], 3)
