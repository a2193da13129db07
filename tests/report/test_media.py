"""Data URIs decode to what went in."""

import base64
import io

import av
import cv2
import numpy as np
import pytest

from bipose_lit.report import media


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 5 * y, 0 * x + 90], -1).astype(np.uint8)


def decode(uri: str, mime: str) -> bytes:
    head, data = uri.split(",", 1)
    assert head == f"data:{mime};base64"
    return base64.b64decode(data, validate=True)


def test_pictures_keep_their_colours() -> None:
    for uri, mime, tolerance in ((media.png(picture()), "image/png", 0), (media.jpeg(picture(), 95), "image/jpeg", 12)):
        back = cv2.imdecode(np.frombuffer(decode(uri, mime), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(back.astype(int) - picture()).max() <= tolerance


@pytest.mark.parametrize(("size", "fps"), [((40, 60), 25.0), ((41, 61), 29.97), ((40, 60), 0.0)])
def test_video_plays_back(size: tuple[int, int], fps: float) -> None:
    frames = [np.full((*size, 3), 20 * i, np.uint8) for i in range(8)]
    data = decode(media.video(frames, fps), "video/mp4")
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == pytest.approx(fps or 12, rel=1e-3)
        back = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(back) == 8
    assert back[0].shape[:2] == tuple(n + n % 2 for n in size)
    for i, frame in enumerate(back):
        assert abs(float(frame.mean()) - 20 * i) < 4


def test_equal_frames_give_equal_bytes() -> None:
    frames = [np.roll(picture(), i, 1) for i in range(5)]
    assert media.mp4(frames, 25) == media.mp4(frames, 25)
    assert media.jpeg(picture()) == media.jpeg(picture())


def test_bad_videos() -> None:
    for frames in ([], [picture(40), picture(42)]):
        with pytest.raises(ValueError, match="one size"):
            media.mp4(frames, 25)
