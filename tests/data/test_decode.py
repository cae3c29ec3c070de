"""What is decoded are the image's pixels, whatever the file holds or is called.

What is seen of them is a scaled image's crop.
"""

import io
import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest
import simplejpeg

from resnet_jax.data.crops import Box, CenterCrop, ResizedCrop, ScaleCrop, View, corners_and_center, scaled
from resnet_jax.data.data_error import CorruptImageError
from resnet_jax.data.decode import decode, decode_crops, image_size
from resnet_jax.data.scale import LINEAR_LIMIT
from tests.data.photographs import jpeg, photograph, photographs


def seen(encoded: bytes, box: Box, size: int) -> np.ndarray:
    out = np.empty((size, size, 3), np.uint8)
    decode_crops(encoded, [box], image_size(encoded), [out])
    return out


def resized_then_cropped(pixels: np.ndarray, view: ScaleCrop | CenterCrop, draws: list[float]) -> np.ndarray:
    """Returns what the view sees, made the long way: the whole image is scaled, and then cropped."""
    height, width = pixels.shape[:2]
    box = view.box(width, height, draws)
    shorter = round(min(width, height) * view.size / min(box.width, box.height))
    new = scaled(width, height, shorter)
    shrinkage = max(width / new[0], height / new[1])
    resized = cv2.resize(
        pixels, new, interpolation=cv2.INTER_AREA if shrinkage > LINEAR_LIMIT else cv2.INTER_LINEAR
    )
    left, top = round(box.left * new[0] / width), round(box.top * new[1] / height)
    return resized[top : top + view.size, left : left + view.size]


SIZES = [(500, 375), (640, 427), (375, 500), (250, 200), (1000, 667), (2100, 1400), (4300, 2900)]
"""From images that are enlarged to such as are decoded at an eighth."""


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_resize_differs_from_resize_then_crop_by_two_levels_at_most(size: tuple[int, int]) -> None:
    random = np.random.RandomState(0)
    for image in photographs():
        encoded = jpeg(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), quality=95)
        pixels = simplejpeg.decode_jpeg(encoded)
        views: list[tuple[ScaleCrop | CenterCrop, int]] = [
            (ScaleCrop(224, 256, 480), 12),
            (CenterCrop(224, 256), 1),
        ]
        for view, count in views:
            for _ in range(count if size[0] < 2000 else 3):
                draws = random.uniform(size=32).tolist()
                expected = resized_then_cropped(pixels, view, draws)
                found = seen(encoded, view.box(*size, draws), 224)
                assert np.abs(found.astype(int) - expected).mean() <= 2.0


def test_the_scale_augmentation_reaches_both_ends_and_every_place() -> None:
    view = ScaleCrop(224, 256, 480)
    draws = np.random.RandomState(0).uniform(size=(4000, 3)).tolist()
    boxes = [view.box(500, 375, drawn) for drawn in draws]
    scales = np.array([224 / box.height * 375 for box in boxes])
    assert (round(scales.min()), round(scales.max())) == (256, 480)
    np.testing.assert_allclose(np.histogram(scales, 8)[0] / 4000, 1 / 8, atol=0.025)
    assert min(box.left for box in boxes) == 0
    assert max(box.left + box.width for box in boxes) == pytest.approx(500)
    assert max(box.top + box.height for box in boxes) == pytest.approx(375)


def test_the_resized_crop_keeps_to_its_areas_and_aspects() -> None:
    view, random = ResizedCrop(224, (0.08, 1.0)), np.random.RandomState(0)
    boxes = np.array([view.box(500, 375, random.uniform(size=32).tolist()) for _ in range(2000)])
    shares, aspects = boxes[:, 2] * boxes[:, 3] / (500 * 375), boxes[:, 2] / boxes[:, 3]
    assert 0.078 < shares.min() < 0.1
    assert shares.max() > 0.9
    assert 0.74 < aspects.min() < 0.8
    assert 1.25 < aspects.max() < 1.35
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= 500).all()
    assert (boxes[:, 1] + boxes[:, 3] <= 375).all()
    assert view.box(1000, 10, [0.99] * 32) == Box(493, 0, 13, 10)  # None that is drawn fits.


def test_ten_crop_testing_sees_the_corners_and_the_center_of_the_scaled_image() -> None:
    pixels = photograph(0, 1)
    height, width = pixels.shape[:2]
    new = scaled(width, height, 160)
    whole = cv2.resize(pixels, new, interpolation=cv2.INTER_LINEAR)
    right, bottom = new[0] - 128, new[1] - 128
    places = [(0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2)]
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    for box, (left, top) in zip(
        corners_and_center(width, height, shorter=160, size=128), places, strict=True
    ):
        expected = whole[top : top + 128, left : left + 128]
        assert np.abs(seen(buffer.getvalue(), box, 128).astype(int) - expected).mean() <= 2.0


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (2, 2), (223, 224)], ids=str)
@pytest.mark.parametrize(
    "view", [ScaleCrop(224, 256, 480), ResizedCrop(224), CenterCrop(224, 256)], ids=lambda v: type(v).__name__
)
def test_images_smaller_than_the_crop_are_enlarged(view: View, size: tuple[int, int]) -> None:
    image = np.full((size[1], size[0], 3), (10, 120, 240), np.uint8)
    encoded, random = jpeg(image, quality=100), np.random.RandomState(0)
    for _ in range(5):
        found = seen(encoded, view.box(*size, random.uniform(size=32).tolist()), 224)
        assert np.abs(found.astype(int) - (10, 120, 240)).max() <= 3


def saved(mode: str, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(photograph(0, 3)).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def png16() -> bytes:
    return cv2.imencode(".png", photograph(0, 3)[..., ::-1].astype(np.uint16) * 257)[1].tobytes()


KINDS = {
    "gray JPEG": saved("L", "JPEG", quality=95),
    "CMYK JPEG": saved("CMYK", "JPEG", quality=95),
    "progressive JPEG": saved("RGB", "JPEG", quality=95, progressive=True),
    "gray PNG": saved("L", "PNG"),
    "palette PNG": saved("P", "PNG"),
    "transparent PNG": saved("RGBA", "PNG"),
    "1-bit PNG": saved("1", "PNG"),
    "16-bit PNG": png16(),
    "WebP": saved("RGB", "WEBP", lossless=True),
    "BMP": saved("RGB", "BMP"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_becomes_the_rgb_that_pillow_sees(kind: str) -> None:
    encoded = KINDS[kind]
    pixels = decode(encoded)
    image = PIL.Image.open(io.BytesIO(encoded))
    expected = photograph(0, 3) if kind == "16-bit PNG" else np.asarray(image.convert("RGB"))
    assert (pixels.shape, pixels.dtype) == (expected.shape, np.uint8)
    assert image_size(encoded) == image.size
    assert np.abs(pixels.astype(int) - expected).mean() <= (1.5 if "CMYK" in kind else 0.5)


def test_orientation_in_exif_is_ignored_by_every_decoder() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    for form in ("JPEG", "PNG"):
        encoded = saved("RGB", form, exif=exif)
        assert (
            decode(encoded).shape[:2][::-1] == image_size(encoded) == PIL.Image.open(io.BytesIO(encoded)).size
        )


def png_claiming(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + b"\0" * 12
    )


def jpeg_claiming(width: int, height: int) -> bytes:
    encoded = jpeg(photograph(0, 0))
    start = encoded.index(b"\xff\xc0") + 5
    return encoded[:start] + struct.pack(">HH", height, width) + encoded[start + 4 :]


WHOLE = jpeg(photograph(0, 0))
DAMAGED = {
    "empty": (b"", "the file is empty"),
    "text": (b"not an image", "it is not an image"),
    "first bytes of a JPEG": (b"\xff\xd8\xff", "the JPEG's header is damaged"),
    "half a JPEG": (WHOLE[: len(WHOLE) // 2], "damaged or cut short"),
    "a JPEG without its end": (WHOLE[:-200], "damaged or cut short"),
    "half a PNG": (saved("RGB", "PNG")[:20000], "the PNG is cut short"),
    "half a CMYK JPEG": (saved("CMYK", "JPEG")[:8000], "the JPEG is cut short"),
    "a JPEG of absurd dimensions": (jpeg_claiming(65500, 65500), "65500×65500 pixels"),
    "a PNG of absurd dimensions": (png_claiming(10**6, 10**6), "1000000×1000000 pixels"),
    "a PNG without pixels": (png_claiming(0, 10), "0×10 pixels"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_damaged_is_refused(kind: str) -> None:
    encoded, message = DAMAGED[kind]
    with pytest.raises(CorruptImageError, match=message):
        decode(encoded)


@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc0", b"\xff\xd9"])
def test_bytes_between_segments_do_no_harm(marker: bytes) -> None:
    """As in some of ImageNet's files."""
    start = WHOLE.rindex(marker)
    np.testing.assert_array_equal(
        decode(WHOLE[:start] + b"\0\0\0" + WHOLE[start:]), simplejpeg.decode_jpeg(WHOLE)
    )
