"""Decodes boxes of image files to uint8 pixels on the host; pure functions, safe in threads.

The decoders and OpenCV release the interpreter while they work. JPEG goes through libjpeg-turbo with its
exact transform, which decodes only what the box needs (`resnet_jax.data.turbojpeg`; whole images go through
simplejpeg), and at 1/2, 1/4 or 1/8 where a large image is shrunk. The box is then scaled once.
"""

import io
import struct
import warnings
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg

from resnet_jax.data.crops import Box
from resnet_jax.data.data_error import CorruptImageError
from resnet_jax.data.scale import Pixels, crop, keep_to_one_thread, surroundings, thread_memory
from resnet_jax.data.turbojpeg import ALIGNMENT, Region, decode_region

_MAX_PIXELS = 2**27  # Images with more are refused before they are decoded: 400 MB of pixels each.
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_END = b"\xff\xd9"
_BY_OPENCV = (_PNG, b"BM", b"RIFF")  # The other formats are Pillow's.
_FOUR_COLORS = ("CMYK", "YCCK")  # Which only OpenCV turns into RGB.
_EDGE = 2  # Pixels at a region's edges whose chroma may differ from that of the whole image's.


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
    if not width or not height or width * height > _MAX_PIXELS:
        raise CorruptImageError(
            f"it claims to be {width}×{height} pixels; allowed are 1 to {_MAX_PIXELS:,} in all"
        )
    return width, height


def decode(encoded: bytes) -> Pixels:
    """Returns the pixels of an image file in RGB.

    Gray, palette, 16-bit and CMYK images become 8-bit RGB (of 16 bits the upper 8 are kept); transparency is
    dropped, of an animation the first frame is taken, and EXIF orientation is ignored, as in every published
    ImageNet result. Bytes after the end of the image do no harm. The array is the caller's until the thread's
    next call.

    Raises:
        CorruptImageError: The bytes are no image, or it is damaged, or cut short.
    """
    width, height = image_size(encoded)
    if encoded.startswith(_JPEG):
        if _jpeg_header(encoded)[2] not in _FOUR_COLORS:
            return _decode_jpeg(encoded, width, height, 1)
        if not encoded.rstrip(b"\0").endswith(_END) and not _is_whole(encoded):
            raise CorruptImageError("the JPEG is cut short")
        return _decode_by_opencv(encoded)
    if encoded.startswith(_PNG) and b"IEND" not in encoded[-64:]:
        if not _is_whole(encoded):
            raise CorruptImageError("the PNG is cut short")
        return decode_by_pillow(encoded)
    return _decode_by_opencv(encoded) if encoded.startswith(_BY_OPENCV) else decode_by_pillow(encoded)


def decode_crops(encoded: bytes, boxes: Sequence[Box], size: tuple[int, int], outs: Sequence[Pixels]) -> None:
    """Decodes an image file once and writes boxes of it to `outs`, each scaled to its array's shape.

    If TurboJPEG is installed, only the part of a JPEG that the boxes need is decoded, and what lies below
    them is not checked for damage. If every box shrinks by 2 f or more, f = 2, 4 or 8, it is decoded at 1/f:
    the decoder's own shrinking is sharper than averaging, and a half or more is left to averaging, so that
    the two differ little.

    Args:
        encoded: The file.
        boxes: In pixels of the whole image.
        size: Width and height of the whole image.
        outs: Arrays that the pixels are written to, one for each box.

    Raises:
        CorruptImageError: As `decode`.
    """
    if encoded.startswith(_JPEG) and _jpeg_header(encoded)[2] not in _FOUR_COLORS:
        pixels, origin, decoded = _decode_part(encoded, boxes, size, outs)
    else:
        pixels, origin, decoded = decode(encoded), (0, 0), size
    for box, out in zip(boxes, outs, strict=True):
        crop(pixels, _scaled(box, size, decoded), out, origin)


def _scaled(box: Box, size: tuple[int, int], decoded: tuple[int, int]) -> Box:
    across, down = decoded[0] / size[0], decoded[1] / size[1]
    return Box(box.left * across, box.top * down, box.width * across, box.height * down)


def _decode_part(
    encoded: bytes, boxes: Sequence[Box], size: tuple[int, int], outs: Sequence[Pixels]
) -> tuple[Pixels, tuple[int, int], tuple[int, int]]:
    """Returns the pixels of a JPEG that the boxes need, their left and top, and the size of the whole."""
    shrink = min(
        min(box.width / out.shape[1], box.height / out.shape[0]) for box, out in zip(boxes, outs, strict=True)
    )
    factor = next((factor for factor in (8, 4, 2) if shrink >= 2 * factor), 1)
    width, height = -(-size[0] // factor), -(-size[1] // factor)
    if encoded.rstrip(b"\0").endswith(_END):  # Else it may be cut short, below the part too.
        lefts, tops, rights, bottoms = zip(
            *(
                surroundings(_scaled(box, size, (width, height)), *out.shape[:2])
                for box, out in zip(boxes, outs, strict=True)
            ),
            strict=True,
        )
        left, top = max(0, min(lefts) - _EDGE) // ALIGNMENT * ALIGNMENT, max(0, min(tops) - _EDGE)
        right, bottom = min(width, max(rights) + _EDGE), min(height, max(bottoms) + _EDGE)
        pixels = thread_memory("decoded", bottom - top, right - left)
        try:
            decode_region(encoded, Region(left, top, right - left, bottom - top), factor, pixels)
            return pixels, (left, top), (width, height)
        except ValueError:
            pass  # Decoded whole, it says what is wrong with it, or that nothing is.
    pixels = _decode_jpeg(encoded, width, height, factor)
    return pixels, (0, 0), (pixels.shape[1], pixels.shape[0])


def _decode_jpeg(encoded: bytes, width: int, height: int, factor: int) -> Pixels:
    """Returns a whole JPEG decoded at 1/factor to this size; at full size if only OpenCV can read it."""
    options = {"min_height": height, "min_width": width, "min_factor": 2} if factor > 1 else {}
    try:
        return simplejpeg.decode_jpeg(
            encoded, buffer=thread_memory("decoded", height, width).reshape(-1), **options
        )
    except ValueError as error:
        # Bytes between segments do no harm, and ImageNet has such files; OpenCV reads them with the same
        # transform.
        if "remature end" in str(error) or "extraneous bytes" not in str(error) or not _is_whole(encoded):
            raise CorruptImageError(f"the JPEG is damaged or cut short ({error})") from error
    return _decode_by_opencv(encoded)


def _is_whole(encoded: bytes) -> bool:
    """Returns whether Pillow decodes a file to its end; bytes after the image do not matter."""
    import PIL.Image  # Here, since few files need it.

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            PIL.Image.open(io.BytesIO(encoded)).load()
    except Exception:  # Pillow's readers raise what they like.
        return False
    return True


def decode_by_pillow(encoded: bytes) -> Pixels:
    """Returns the pixels of an image file as Pillow decodes it, the first frame of several.

    Raises:
        CorruptImageError: It is no image, damaged, or its pixels have 32 bits.
    """
    import PIL.Image  # Here, since few files need it.

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = PIL.Image.open(io.BytesIO(encoded))
            image.load()
            if image.mode.startswith("I;16"):
                gray = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
                return gray[..., None].repeat(3, axis=-1)
            if image.mode in ("I", "F"):
                raise CorruptImageError(f"its pixels have 32 bits (mode {image.mode}); convert it")
            return np.asarray(image.convert("RGB"))
    except CorruptImageError:
        raise
    except Exception as error:  # Pillow's readers raise what they like.
        raise CorruptImageError(f"it is damaged or cut short ({_in_a_line(error)})") from error


def _decode_by_opencv(encoded: bytes) -> Pixels:
    keep_to_one_thread()
    try:
        pixels = cv2.imdecode(
            np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:
        raise CorruptImageError(f"it cannot be decoded ({_in_a_line(error)})") from error
    if pixels is None:
        raise CorruptImageError("it is damaged, or not of the format that its first bytes name")
    return pixels


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _jpeg_header(encoded: bytes) -> tuple[int, int, str]:
    try:
        height, width, color_space, _ = simplejpeg.decode_jpeg_header(encoded, strict=False)
    except (ValueError, KeyError) as error:
        raise CorruptImageError("the JPEG's header is damaged") from error
    return width, height, color_space


def _size_of_other(encoded: bytes) -> tuple[int, int]:
    import PIL.Image  # Here, since few need it.

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PIL.Image.open(io.BytesIO(encoded)).size
    except Exception as error:  # Pillow's readers raise what they like.
        raise CorruptImageError(f"it is not an image (it begins with {encoded[:12]!r})") from error
