"""From the bytes of an image file to the uint8 pixels of one box of it, on the host; pure functions, safe in threads.

The decoders and OpenCV release the interpreter while they work. JPEG goes through libjpeg-turbo (simplejpeg) with its exact
transform; where a large image is shrunk, it is decoded at 1/2, 1/4 or 1/8. The box is then scaled once.
"""

import io
import struct
import threading
import warnings
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8

from resnet_jax.data.errors import CorruptImageError
from resnet_jax.data.scale import crop, keep_to_one_thread
from resnet_jax.data.views import Box

Pixels = UInt8[np.ndarray, "h w 3"]

MAX_PIXELS = 2**27
"""Images with more are refused before they are decoded: 400 MB of pixels each."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_threads = threading.local()


def image_size(encoded: bytes) -> tuple[int, int]:
    """Returns width and height of an image file from its header alone, whatever the file is called.

    Raises:
        CorruptImageError: It is empty, or no image, or its dimensions are 0 or absurd.
    """
    if not encoded:
        raise CorruptImageError("the file is empty")
    if encoded.startswith(_JPEG):
        width, height, _ = _jpeg_header(encoded)
    elif encoded.startswith(_PNG):
        if len(encoded) < 24:
            raise CorruptImageError("the PNG ends in its header")
        width, height = struct.unpack(">II", encoded[16:24])
    else:
        width, height = _size_of_other(encoded)
    if not width or not height or width * height > MAX_PIXELS:
        raise CorruptImageError(f"it claims to be {width}×{height} pixels; allowed are 1 to {MAX_PIXELS:,} in all")
    return width, height


def decode(encoded: bytes, *, shrink: float = 1.0) -> Pixels:
    """Returns all pixels of an image file in RGB; a JPEG at 1/f, f = 2, 4 or 8, where `shrink` is at least 2 f.

    The decoder's own shrinking is sharper than averaging, and a half or more is left to averaging, so that the two differ little.
    Grey, palette, 16-bit and CMYK images become 8-bit RGB; transparency is dropped, and EXIF orientation ignored, as in every
    published ImageNet result. The array is the caller's until the thread's next call.

    Raises:
        CorruptImageError: The bytes are no image, or it is damaged, or cut short.
    """
    width, height = image_size(encoded)
    if encoded.startswith(_JPEG):
        if _jpeg_header(encoded)[2] not in ("CMYK", "YCCK"):
            try:
                return _decode_jpeg(encoded, width, height, shrink)
            except ValueError as error:
                # Bytes between segments do no harm, and ImageNet has such files; OpenCV reads them with the same transform.
                if "remature end" in str(error) or "extraneous bytes" not in str(error):
                    raise CorruptImageError(f"the JPEG is damaged or cut short ({error})") from error
        if not encoded.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise CorruptImageError("the JPEG is cut short")
    elif encoded.startswith(_PNG) and b"IEND" not in encoded[-64:]:
        raise CorruptImageError("the PNG is cut short")
    keep_to_one_thread()
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise CorruptImageError(f"it cannot be decoded ({' '.join(str(error).split())[:120]})") from error
    if pixels is None:
        raise CorruptImageError("it is damaged, or of a format that is not read; JPEG, PNG, WebP and BMP are")
    return pixels


def decode_crop(encoded: bytes, box: Box, size: tuple[int, int], out: Pixels) -> None:
    """Decodes an image file and writes a box of it, scaled to the shape of `out`, there; see `decode_crops`."""
    decode_crops(encoded, [box], size, [out])


def decode_crops(encoded: bytes, boxes: Sequence[Box], size: tuple[int, int], outs: Sequence[Pixels]) -> None:
    """Decodes an image file once and writes boxes of it, each scaled to the shape of its `out`, there.

    Args:
        encoded: The file.
        boxes: In pixels of the whole image.
        size: Width and height of the whole image.
        outs: Where the pixels go, one for each box.

    Raises:
        CorruptImageError: As `decode`.
    """
    shrinks = [min(box.width / out.shape[1], box.height / out.shape[0]) for box, out in zip(boxes, outs, strict=True)]
    pixels = decode(encoded, shrink=min(shrinks))
    across, down = pixels.shape[1] / size[0], pixels.shape[0] / size[1]
    for box, out in zip(boxes, outs, strict=True):
        crop(pixels, Box(box.left * across, box.top * down, box.width * across, box.height * down), out)


def _decode_jpeg(encoded: bytes, width: int, height: int, shrink: float) -> Pixels:
    factor = next((factor for factor in (8, 4, 2) if shrink >= 2 * factor), 1)
    height, width = -(-height // factor), -(-width // factor)
    buffer = getattr(_threads, "buffer", None)
    if buffer is None or buffer.size < height * width * 3:
        # One per thread, since fresh pages cost a twelfth of a decoding.
        buffer = _threads.buffer = np.empty(height * width * 3, np.uint8)
    options = {"min_height": height, "min_width": width, "min_factor": 2} if factor > 1 else {}
    return simplejpeg.decode_jpeg(encoded, buffer=buffer[: height * width * 3], **options)


def _jpeg_header(encoded: bytes) -> tuple[int, int, str]:
    """Returns width, height and the name of the colour space."""
    try:
        height, width, kind, _ = simplejpeg.decode_jpeg_header(encoded, strict=False)
    except (ValueError, KeyError) as error:
        raise CorruptImageError("the JPEG's header is damaged") from error
    return width, height, kind


def _size_of_other(encoded: bytes) -> tuple[int, int]:
    import PIL.Image  # Here, since few need it.

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PIL.Image.open(io.BytesIO(encoded)).size
    except Exception as error:  # Pillow's readers raise what they like.
        raise CorruptImageError(f"it is not an image (it begins with {encoded[:12]!r})") from error
