"""A crop's image is decoded no further than the crop, and no pixel of the crop differs."""

import io

import cv2
import numpy as np
import PIL.Image
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax.data import decode as decoding
from resnet_jax.data.decode import decode_crop
from resnet_jax.data.errors import CorruptImageError
from resnet_jax.data.rows import first_rows
from resnet_jax.data.views import Box, ResizedCrop, ScaleCrop
from tests.data.photographs import jpeg, photographs

UPPER = Box(100, 0, 150, 150)


def scaled_photograph(width: int, height: int) -> np.ndarray:
    return cv2.resize(photographs()[0], (width, height), interpolation=cv2.INTER_AREA)


def seen(encoded: bytes, box: Box, size: tuple[int, int], side: int = 64) -> np.ndarray:
    out = np.empty((side, side, 3), np.uint8)
    decode_crop(encoded, box, size, out)
    return out


def saved(image: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


@given(
    size=st.tuples(st.integers(200, 900), st.integers(200, 900)),
    chroma=st.sampled_from(["420", "444", "422", "gray"]),
    view=st.sampled_from([ScaleCrop(224, 256, 480), ResizedCrop(224, (0.08, 1.0)), ResizedCrop(32, (0.02, 1.0))]),
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=32, max_size=32),
)
def test_no_pixel_differs_from_decoding_everything(size: tuple[int, int], chroma: str, view: ScaleCrop, draws: list[float]) -> None:
    encoded = simplejpeg.encode_jpeg(scaled_photograph(*size), quality=90, colorsubsampling=chroma)
    box = view.box(*size, draws)
    found = seen(encoded, box, size, view.size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "first_rows", lambda *_: None)
        np.testing.assert_array_equal(found, seen(encoded, box, size, view.size))


@pytest.mark.parametrize(
    ("chroma", "wanted", "decoded"), [("420", 150, 160), ("420", 159, 160), ("420", 160, 176), ("444", 150, 152)]
)
def test_whole_bands_and_one_row_more_are_decoded(chroma: str, wanted: int, decoded: int) -> None:
    encoded = simplejpeg.encode_jpeg(scaled_photograph(500, 375), colorsubsampling=chroma)
    shorter, rows = first_rows(encoded, wanted) or (b"", 0)
    assert rows == decoded == simplejpeg.decode_jpeg_header(shorter)[0]


def test_what_cannot_be_shortened_is_decoded_whole() -> None:
    image = scaled_photograph(500, 375)
    whole = [saved(image, progressive=True), saved(image, restart_marker_blocks=4), saved(image), saved(image)[:2]]
    wanted = [150, 150, 374, 150]
    assert [first_rows(encoded, rows) for encoded, rows in zip(whole, wanted, strict=True)] == [None] * 4
    for encoded in whole[:2]:
        expected = seen(simplejpeg.encode_jpeg(image, quality=100, colorsubsampling="444"), UPPER, (500, 375))
        assert np.abs(seen(encoded, UPPER, (500, 375)).astype(int) - expected).mean() < 3


def test_components_in_scans_of_their_own_are_decoded_whole() -> None:
    encoded = bytearray(jpeg(scaled_photograph(500, 375)))
    encoded[encoded.index(b"\xff\xda") + 4] = 1
    assert first_rows(bytes(encoded), 150) is None


def test_damage_above_the_end_of_the_box_is_seen() -> None:
    encoded = jpeg(scaled_photograph(500, 375))
    begin = encoded.index(b"\xff\xda") + 14
    with pytest.raises(CorruptImageError, match="damaged or cut short"):
        seen(encoded[: begin + 4000], UPPER, (500, 375))
    marked = encoded[: begin + 4000] + b"\xff\xd9" + encoded[begin + 4002 :]
    with pytest.raises(CorruptImageError, match="damaged or cut short"):
        seen(marked, UPPER, (500, 375))


def test_a_file_that_ends_below_the_box_is_cut_short_all_the_same() -> None:
    encoded = jpeg(scaled_photograph(500, 375))
    with pytest.raises(CorruptImageError, match="cut short"):
        seen(encoded[:-2000], UPPER, (500, 375))
