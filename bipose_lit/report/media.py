"""Pictures and videos as data URIs, so that a report is one file; equal inputs give equal bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def data_uri(data: bytes, mime: str) -> str:
    """Bytes as a data URI (RFC 2397)."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def jpeg(image: NDArray[np.uint8], quality: int = 86) -> str:
    """An RGB picture (H, W, 3) as a JPEG data URI."""
    return data_uri(_encode(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality]), "image/jpeg")


def png(image: NDArray[np.uint8]) -> str:
    """An RGB picture (H, W, 3) as a PNG data URI."""
    return data_uri(_encode(image, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 9]), "image/png")


def mp4(images: Sequence[NDArray[np.uint8]], fps: float, crf: int = 24) -> bytes:
    """RGB pictures of one size as an H.264 MP4 that browsers play (4:2:0).

    Odd sizes are padded by a repeated last row or column, which 4:2:0 needs.

    Args:
        images: frames (H, W, 3) uint8.
        fps: frames per second; 0 (unknown) plays at 12.
        crf: x264's quality; lower is better and larger.

    Raises:
        ValueError: no frames, or frames of different sizes.
    """
    if not images or len({i.shape for i in images}) != 1:
        raise ValueError("a video needs frames of one size")
    height, width = images[0].shape[:2]
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    buffer = io.BytesIO()
    rate = Fraction(fps if fps > 0 else 12.0).limit_denominator(1001)
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.codec_context.flags |= 1 << 23  # AV_CODEC_FLAG_BITEXACT: no encoder version in the file
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.pad(image, pad, mode="edge")), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def video(images: Sequence[NDArray[np.uint8]], fps: float, crf: int = 24) -> str:
    """`mp4` as a data URI."""
    return data_uri(mp4(images, fps, crf), "video/mp4")


def _encode(image: NDArray[np.uint8], suffix: str, options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"cannot encode a picture of shape {image.shape} as {suffix}")
    return bytes(data.tobytes())
