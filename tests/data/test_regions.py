"""Of a JPEG only what a crop needs is decoded, and no pixel of the crop differs."""

import io
import threading

import cv2
import numpy as np
import PIL.Image
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from resnet_jax.data import decode as decoding
from resnet_jax.data import turbojpeg
from resnet_jax.data.crops import Box, ResizedCrop, ScaleCrop, View, corners_and_center
from resnet_jax.data.data_error import CorruptImageError
from resnet_jax.data.decode import decode_crops
from resnet_jax.data.turbojpeg import Region, decode_region
from tests.data.photographs import jpeg, photographs

UPPER = Box(100, 0, 150, 150)

with_the_library = pytest.mark.skipif(
    turbojpeg.find() is None, reason="no TurboJPEG of version 3 on this platform"
)


def scaled_photograph(width: int, height: int) -> np.ndarray:
    return cv2.resize(photographs()[0], (width, height), interpolation=cv2.INTER_AREA)


def seen(encoded: bytes, box: Box, size: tuple[int, int], side: int = 64) -> np.ndarray:
    out = np.empty((side, side, 3), np.uint8)
    decode_crops(encoded, [box], size, [out])
    return out


def refuse(*_: object) -> None:
    raise ValueError("none")


def saved(image: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


@with_the_library
@given(
    size=st.tuples(st.integers(30, 900), st.integers(30, 900)),
    chroma=st.sampled_from(["420", "444", "422", "440", "411", "gray"]),
    view=st.sampled_from(
        [ScaleCrop(224, 256, 480), ResizedCrop(224, (0.08, 1.0)), ResizedCrop(16, (0.02, 1.0))]
    ),
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=32, max_size=32),
)
def test_no_pixel_differs_from_decoding_everything(
    size: tuple[int, int], chroma: str, view: View, draws: list[float]
) -> None:
    encoded = simplejpeg.encode_jpeg(scaled_photograph(*size), quality=90, colorsubsampling=chroma)
    box = view.box(*size, draws)
    found = seen(encoded, box, size, view.size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "decode_region", refuse)
        np.testing.assert_array_equal(found, seen(encoded, box, size, view.size))


@with_the_library
def test_the_boxes_of_ten_crop_testing_are_seen_in_one_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, size = jpeg(scaled_photograph(500, 375)), (500, 375)
    boxes = corners_and_center(*size, shorter=256, size=224)
    outs = np.empty((5, 224, 224, 3), np.uint8)
    regions: list[Region] = []
    monkeypatch.setattr(
        decoding, "decode_region", lambda *given: (regions.append(given[1]), decode_region(*given))
    )
    decode_crops(encoded, boxes, size, list(outs))
    assert len(regions) == 1
    for box, out in zip(boxes, outs, strict=True):
        np.testing.assert_array_equal(out, seen(encoded, box, size, 224))


@with_the_library
def test_little_more_than_the_box_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    regions: list[Region] = []
    monkeypatch.setattr(
        decoding, "decode_region", lambda *given: (regions.append(given[1]), decode_region(*given))
    )
    seen(jpeg(scaled_photograph(800, 600)), Box(400, 300, 128, 128), (800, 600), 128)
    (region,) = regions
    assert 368 <= region.left <= 384
    assert 280 <= region.top <= 284
    assert 128 <= region.width <= 170
    assert 128 <= region.height <= 160


@with_the_library
@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_blocks": 4}, {"subsampling": 0}])
def test_other_kinds_of_jpeg_have_regions_too(options: dict[str, object]) -> None:
    encoded = saved(scaled_photograph(500, 375), **options)
    out = np.empty((100, 64, 3), np.uint8)
    decode_region(encoded, Region(160, 50, 64, 100), 1, out)
    whole = simplejpeg.decode_jpeg(encoded)[50:150, 160:224]
    np.testing.assert_array_equal(out[2:-2, 2:-2], whole[2:-2, 2:-2])


@with_the_library
def test_threads_have_decoders_of_their_own() -> None:
    sizes = [(500, 375), (900, 700), (300, 200), (640, 480)]
    images = [jpeg(scaled_photograph(*size)) for size in sizes]
    box = Box(20, 10, 150, 150)
    expected = [seen(image, box, size) for image, size in zip(images, sizes, strict=True)]
    same: list[bool] = []

    def look(number: int) -> None:
        same.extend(
            np.array_equal(seen(images[number], box, sizes[number]), expected[number]) for _ in range(100)
        )

    threads = [threading.Thread(target=look, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 400


@pytest.mark.parametrize("library", [None, "libc.so.6"], ids=["none", "one of another kind"])
def test_without_the_library_everything_is_decoded(
    library: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, size = jpeg(scaled_photograph(500, 375)), (500, 375)
    expected = seen(encoded, UPPER, size)
    monkeypatch.setattr(turbojpeg, "_packaged", lambda: library)
    monkeypatch.setattr(turbojpeg, "find_library", lambda _: None)
    turbojpeg.find.cache_clear()
    try:
        assert turbojpeg.find() is None
        np.testing.assert_array_equal(seen(encoded, UPPER, size), expected)
    finally:
        turbojpeg.find.cache_clear()


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


def test_what_follows_the_end_of_the_image_does_no_harm() -> None:
    encoded = jpeg(scaled_photograph(500, 375))
    np.testing.assert_array_equal(
        seen(encoded + b"more", UPPER, (500, 375)), seen(encoded, UPPER, (500, 375))
    )
