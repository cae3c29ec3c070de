"""Image folders as people have them: which files are read, which are left out and said, and their labels."""

import io
import os
import unicodedata
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnet_jax.cli import main
from resnet_jax.data.data_error import CorruptImageError, DataError
from resnet_jax.data.decode import decode
from resnet_jax.data.folder import FolderExamples, is_held_out, open_folder
from resnet_jax.data.image_files import find_images
from resnet_jax.data.prepare import open_splits, prepare
from resnet_jax.data.prepared import open_prepared
from resnet_jax.inference.predict_files import find_pictures
from tests.data.colors import color_image, write_colors

FORMATS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF"}
FORMATS |= {".jfif": "JPEG", ".JPEG": "JPEG", ".TIFF": "TIFF", ".ppm": "PPM", ".avif": "AVIF", "": "PNG"}
FORMATS |= {".image": "JPEG", ".1": "PNG"}


def labels_of(examples: FolderExamples) -> dict[str, str]:
    """Returns the class of every file."""
    pairs = zip(examples.files, examples.labels, strict=True)
    return {file: examples.class_names[label] for file, label in pairs}


def test_every_format_is_read_whatever_its_suffix(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number, (suffix, kind) in enumerate(FORMATS.items()):
            color_image(label, 2, number).save(tmp_path / "train" / name / f"{number}{suffix}", kind)
    examples = open_folder(str(tmp_path), "train")
    assert len(examples) == 2 * len(FORMATS)
    for index in range(len(examples)):
        encoded, label = examples.read(index)
        mean = decode(encoded).mean((0, 1))
        expected = np.asarray(color_image(label, 2, 0)).mean((0, 1))
        assert np.abs(mean - expected).max() < 12, examples.describe(index)


def test_images_deeper_in_a_class_are_read_and_what_is_left_out_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_colors(tmp_path, ["cat", "dog"], splits={"train": 2})
    deep = tmp_path / "train" / "cat" / "batch2" / "images"
    deep.mkdir(parents=True)
    color_image(0, 2, 9).save(deep / "x.png")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "stray.png").write_bytes((deep / "x.png").read_bytes())
    (tmp_path / "train" / "dog" / ".DS_Store").write_text("x")
    (tmp_path / "train" / "__MACOSX").mkdir()
    for _ in range(2):
        examples = open_folder(str(tmp_path), "train")
    assert labels_of(examples)["cat/batch2/images/x.png"] == "cat"
    assert examples.class_names == ["cat", "dog"]
    assert len(examples) == 5
    said = capsys.readouterr().err
    assert said.count("left out 2 files: stray.png (not in the folder of a class), cat/notes.txt") == 1
    assert {item.path for item in examples.left_out} == {"cat/notes.txt", "stray.png", "dog/.DS_Store"}


def test_linked_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    write_colors(tmp_path / "elsewhere", ["x"], splits={"shots": 3})
    write_colors(tmp_path / "photos", ["cat", "dog"], splits={"train": 2})
    train = tmp_path / "photos" / "train"
    (train / "cat" / "more").symlink_to(tmp_path / "elsewhere" / "shots" / "x")
    (train / "dog" / "loop").symlink_to(train / "dog")
    (train / "dog" / "up").symlink_to(train)
    examples = open_folder(str(tmp_path / "photos"), "train")
    assert sorted(labels_of(examples).values()) == ["cat"] * 5 + ["dog"] * 2
    assert len(find_pictures([str(train / "cat")])) == 5
    found = find_images(train / "dog")
    assert {item.path for item in found.left_out} == {"loop", "up"}


def test_a_link_to_itself_is_no_folder(tmp_path: Path) -> None:
    """The operating system answers ELOOP, wherever the link lies."""
    write_colors(tmp_path, ["cat", "dog"], splits={"train": 2})
    for folder in (tmp_path, tmp_path / "train", tmp_path / "train" / "cat"):
        (folder / "round").symlink_to("round")
    assert open_folder(str(tmp_path), "train").class_names == ["cat", "dog"]
    assert [item.path for item in open_folder(str(tmp_path), "train").left_out] == ["round", "cat/round"]


def test_a_link_from_a_linked_class_back_up_is_a_loop(tmp_path: Path) -> None:
    """Where the class really lies it has a neighbor, whose images are not of this class."""
    write_colors(tmp_path / "elsewhere", ["x", "y"], splits={"shots": 3})
    write_colors(tmp_path / "photos", ["cat"], splits={"train": 1})
    shots = tmp_path / "elsewhere" / "shots"
    (shots / "x" / "up").symlink_to(shots)
    (tmp_path / "photos" / "train" / "ant").symlink_to(shots / "x")
    examples = open_folder(str(tmp_path / "photos"), "train")
    assert sorted(labels_of(examples).values()) == ["ant"] * 3 + ["cat"]


def test_a_linked_class_folder_is_a_class(tmp_path: Path) -> None:
    write_colors(tmp_path / "elsewhere", ["x"], splits={"shots": 3})
    write_colors(tmp_path / "photos", ["cat"], splits={"train": 1})
    (tmp_path / "photos" / "train" / "ant").symlink_to(tmp_path / "elsewhere" / "shots" / "x")
    assert open_folder(str(tmp_path / "photos"), "train").class_names == ["ant", "cat"]


@pytest.mark.parametrize("trailer", [b"\n", b"\0" * 10, b"appended by a camera" * 20])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "CMYK", "GIF", "TIFF", "BMP", "WEBP"])
def test_bytes_after_the_end_are_no_damage(kind: str, trailer: bytes) -> None:
    image = color_image(1, 3, 5, side=24)
    file = io.BytesIO()
    (image.convert("CMYK") if kind == "CMYK" else image).save(file, "JPEG" if kind == "CMYK" else kind)
    whole = decode(file.getvalue()).copy()
    np.testing.assert_array_equal(decode(file.getvalue() + trailer), whole)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "CMYK", "GIF", "TIFF", "WEBP"])
def test_a_file_cut_in_the_middle_is_damaged(kind: str) -> None:
    image = PIL.Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 40, 3), np.uint8))
    file = io.BytesIO()
    (image.convert("CMYK") if kind == "CMYK" else image).save(file, "JPEG" if kind == "CMYK" else kind)
    with pytest.raises(CorruptImageError):
        decode(file.getvalue()[: len(file.getvalue()) * 2 // 3])


def test_numbered_classes_are_counted_as_numbers(tmp_path: Path) -> None:
    write_colors(tmp_path, [str(number) for number in range(12)], splits={"train": 1, "val": 1})
    examples = open_folder(str(tmp_path), "val")
    assert examples.class_names == [str(number) for number in range(12)]
    as_text = sorted(examples.class_names)
    assert open_folder(str(tmp_path), "val", class_names=as_text).class_names == as_text


def test_folders_that_differ_in_unicode_alone_are_one_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write_colors(tmp_path, [decomposed, "tea"], splits={"train": 3})
    write_colors(tmp_path, [composed, "tea"], splits={"val": 2})
    splits = open_splits(str(tmp_path))
    assert [list(split.class_names) for split in splits.values()] == [[composed, "tea"]] * 2
    write_colors(tmp_path, [composed], splits={"train": 1})
    assert len(open_folder(str(tmp_path), "train")) == 3 + 1 + 3
    assert "2 folders are named 'café' in different Unicode forms" in capsys.readouterr().err


def test_a_folder_of_classes_alone_is_split_by_the_names_of_its_files(tmp_path: Path) -> None:
    root = write_colors(tmp_path, ["cat", "dog"], splits={"photos": 60}) / "photos"
    parts = {split: open_folder(str(root), split) for split in ("train", "test", "all")}
    files = {split: set(part.files) for split, part in parts.items()}
    assert files["train"] | files["test"] == files["all"]
    assert not files["train"] & files["test"]
    assert 12 <= len(files["test"]) <= 36
    color_image(0, 2, 99).save(root / "cat" / "new.png")
    held_out = set(open_folder(str(root), "val").files)
    assert held_out - {"cat/new.png"} == files["test"]
    assert all(map(is_held_out, held_out))


WNIDS = ("n01440764", "n01443537", "n01484850")


def flat_imagenet(root: Path) -> Path:
    """Writes Kaggle's layout: ILSVRC/Data/CLS-LOC with a flat validation and an unlabeled test split."""
    data = write_colors(root / "ILSVRC" / "Data" / "CLS-LOC", WNIDS, splits={"train": 2})
    for split in ("val", "test"):
        (data / split).mkdir()
        for number in range(1, 7):
            file = data / split / f"ILSVRC2012_{split}_{number:08}.JPEG"
            color_image(number % 3, 3, number).save(file, "JPEG")
    rows = [f"ILSVRC2012_val_{number:08},{WNIDS[number % 3]} 1 1 30 30" for number in range(1, 7)]
    text = "ImageId,PredictionString\n" + "\n".join(rows) + "\n"
    (root / "LOC_val_solution.csv").write_text(text, encoding="utf-8-sig")
    return data


def test_kaggles_layout_of_imagenet_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = flat_imagenet(tmp_path)
    for root in (data, tmp_path / "ILSVRC", tmp_path):
        examples = open_folder(str(root), "val")
        for file, name in labels_of(examples).items():
            assert name == WNIDS[int(file[-7:-5]) % 3]
    manifest = prepare(str(data), str(tmp_path / "set"))
    assert {name: split["examples"] for name, split in manifest["splits"].items()} == {
        "train": 6,
        "validation": 6,
    }
    assert "left out test, whose images have no labels" in capsys.readouterr().err
    with pytest.raises(DataError, match="holds 6 images without labels"):
        open_folder(str(data), "test")


def test_the_development_kit_labels_a_flat_split(tmp_path: Path) -> None:
    import scipy.io

    data = flat_imagenet(tmp_path)
    (tmp_path / "LOC_val_solution.csv").unlink()
    kit = data / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    rows = np.array(
        [(3 - number, name) for number, name in enumerate(WNIDS)],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object)],
    )
    scipy.io.savemat(kit / "meta.mat", {"synsets": rows})
    numbers = "\n".join(str(3 - number % 3) for number in range(1, 7))
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(numbers)
    for file, name in labels_of(open_folder(str(data), "val")).items():
        assert name == WNIDS[int(file[-7:-5]) % 3]
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n")
    with pytest.raises(DataError, match="has 2 labels, and the split 6 images"):
        open_folder(str(data), "val")


def test_tiny_imagenet_is_read(tmp_path: Path) -> None:
    for label, name in enumerate(WNIDS[:2]):
        (tmp_path / "train" / name / "images").mkdir(parents=True)
        color_image(label, 2, 0).save(tmp_path / "train" / name / "images" / f"{name}_0.JPEG")
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("n_0.JPEG\t0\t0\t9\t9\n")
    (tmp_path / "val" / "images").mkdir(parents=True)
    for number in range(4):
        color_image(number % 2, 2, number).save(tmp_path / "val" / "images" / f"val_{number}.JPEG")
    rows = [f"val_{number}.JPEG\t{WNIDS[number % 2]}\t0\t0\t9\t9" for number in range(4)]
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(rows))
    assert list(open_folder(str(tmp_path), "train").labels) == [0, 1]
    for file, name in labels_of(open_folder(str(tmp_path), "val")).items():
        assert name == WNIDS[int(file[-6]) % 2]
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(rows[:3]))
    with pytest.raises(DataError, match=r"has no class for images/val_3.JPEG"):
        open_folder(str(tmp_path), "val")


def test_labels_in_a_file_match_folders_in_another_form_of_unicode(tmp_path: Path) -> None:
    """macOS stores the folder decomposed, and the file of labels is composed; the file is not left out."""
    write_colors(tmp_path, ["cafe\u0301", "tea"], splits={"train": 2})
    (tmp_path / "val").mkdir()
    for number in range(2):
        color_image(number, 2, 0).save(tmp_path / "val" / f"val_{number}.png")
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.png\tcaf\u00e9\nval_1.png\ttea\n")
    examples = open_folder(str(tmp_path), "val")
    assert examples.class_names == open_folder(str(tmp_path), "train").class_names == ["caf\u00e9", "tea"]
    assert labels_of(examples) == {"val_0.png": "caf\u00e9", "val_1.png": "tea"}
    assert not examples.left_out


def test_corrected_labels_are_noticed_by_prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "photos"
    write_colors(root, ["cat", "dog"], splits={"train": 2})
    for number, file in enumerate(sorted(root.glob("train/*/*.png"))):
        file.rename(file.with_name(f"IMG_{number}.png"))
    command = ["prepare", str(root), str(tmp_path / "set")]
    assert main(command) == 0
    assert main(command) == 0
    (root / "train" / "cat" / "IMG_1.png").rename(root / "train" / "dog" / "IMG_1.png")
    capsys.readouterr()
    assert main(command) == 2
    assert "of one that has changed since" in capsys.readouterr().err
    assert main([*command, "--verify-contents"]) == 2
    assert "IMG_1.png (example 1) is 'dog', and" in capsys.readouterr().err
    (root / "train" / "dog" / "IMG_1.png").rename(root / "train" / "cat" / "IMG_1.png")
    os.utime(root / "train" / "cat" / "IMG_1.png", (0, 0))
    assert main(command) == 2
    assert main([*command, "--verify-contents"]) == 0
    assert main(command) == 0
    color_image(1, 2, 5).save(root / "train" / "cat" / "IMG_1.png")
    capsys.readouterr()
    assert main([*command, "--verify-contents"]) == 2
    assert "IMG_1.png (example 1) is not what" in capsys.readouterr().err


def test_a_set_prepared_before_stamps_existed_is_compared_by_label(tmp_path: Path) -> None:
    import json

    from resnet_jax.data.preparation_plan import plan_without_stamps

    root = write_colors(tmp_path / "photos", ["cat", "dog"], splits={"train": 2})
    manifest = prepare(str(root), str(tmp_path / "set"))
    options = {"shrink": 0, "raw_share": 0.0}
    before = {**manifest, "plan": plan_without_stamps(open_splits(str(root)), options, 4096)}
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(before))
    assert prepare(str(root), str(tmp_path / "set"))["splits"] == manifest["splits"]
    assert open_prepared(str(tmp_path / "set"), "train").class_names == ["cat", "dog"]


NAMES = st.one_of(
    st.sampled_from(["a", "b.c", "ä", "cafe\u0301", "x y", "-dash", "\udce9t", "日本", "IMG", "#1", "%41"]),
    st.text("abcXYZ0189._- ", min_size=1, max_size=8).filter(lambda name: name.strip(". ") != ""),
)
SUFFIXES = st.sampled_from([*FORMATS, ".txt", ".JPG", ".zip"])
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(
            ["image", "image", "image", "text", "empty", "hidden", "link", "loop", "itself", "pipe"]
        ),
        st.lists(NAMES, max_size=2),
        NAMES,
        SUFFIXES,
    ),
    min_size=1,
    max_size=8,
)
MODES = ("RGB", "L", "P", "1", "RGBA", "LA", "CMYK")


def as_saved(number: int, suffix: str) -> tuple[bytes, np.ndarray, bool]:
    """Returns a file, its pixels as Pillow decodes them, and whether the format is lossless."""
    kind = FORMATS.get(suffix, "JPEG")
    allowed = {
        "JPEG": ("RGB", "L", "CMYK"),
        "PNG": ("RGB", "L", "P", "1", "RGBA", "LA"),
        "GIF": ("L", "P"),
        "TIFF": MODES,
        "BMP": ("RGB", "L", "P", "1"),
        "PPM": ("RGB", "L", "1"),
    }
    modes = allowed.get(kind, ("RGB",))
    mode = modes[number % len(modes)]
    image = color_image(number % 5, 5, number, side=9 + number % 7).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    pixels = np.asarray(PIL.Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    return file.getvalue(), pixels, kind in ("PNG", "GIF", "TIFF", "BMP", "PPM")


def shown(path: str) -> str:
    """Returns the path under which a file is listed: that of the first hidden folder above it, if any."""
    parts = path.split("/")
    hidden = next((number for number, part in enumerate(parts) if part.startswith(".")), len(parts))
    return "/".join(parts[: hidden + 1])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ENTRIES)
def test_every_file_of_a_messy_folder_is_read_or_listed(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, list[str], str, str]]
) -> None:
    root = tmp_path_factory.mktemp("messy") / "train" / "class"
    root.mkdir(parents=True)
    contents: dict[str, tuple[np.ndarray, bool]] = {}
    others: set[str] = set()
    for number, (kind, folders, name, suffix) in enumerate(entries):
        folder = root.joinpath(*(f"{part}_{number}" for part in folders))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{number}{name}{suffix}"
        relative = os.path.relpath(path, root)
        if kind == "image":
            encoded, pixels, lossless = as_saved(number, suffix)
            path.write_bytes(encoded)
            contents[relative] = (pixels, lossless)
        elif kind == "text":
            path.with_suffix(".txt").write_text("text")
            others.add(os.path.relpath(path.with_suffix(".txt"), root))
        elif kind == "empty":
            path.with_suffix("").write_bytes(b"")
            others.add(os.path.relpath(path.with_suffix(""), root))
        elif kind == "hidden":
            (folder / f"._{number}{suffix}").write_bytes(b"x")
            others.add(os.path.relpath(folder / f"._{number}{suffix}", root))
        elif kind == "pipe":
            os.mkfifo(path)
            others.add(relative)
        else:
            path.symlink_to({"loop": root, "itself": path.name}.get(kind, "nowhere.txt"))
            others.add(relative)
    others = {shown(path) for path in {*others, *contents} if shown(path) != path or path in others}
    contents = {path: content for path, content in contents.items() if shown(path) == path}
    listing = find_images(root)
    broken = {item for item in others if (root / item).is_symlink() and not (root / item).exists()}
    assert set(listing.images) - broken == set(contents)
    assert {item.path for item in listing.left_out} | (set(listing.images) & broken) == others
    assert all(item.reason for item in listing.left_out)
    if not contents or set(listing.images) & broken:
        return
    examples = open_folder(str(root.parents[1]), "train")
    for index, file in enumerate(examples.files):
        pixels, lossless = contents[file.removeprefix("class/")]
        found = decode(examples.read(index)[0]).astype(int)
        assert np.abs(found - pixels).max() <= (0 if lossless else 2), file


def test_of_16_bits_the_upper_8_are_kept_and_of_an_animation_the_first_frame(tmp_path: Path) -> None:
    deep = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    for suffix in (".png", ".tif"):
        PIL.Image.fromarray(deep).save(tmp_path / f"deep{suffix}")
        pixels = decode((tmp_path / f"deep{suffix}").read_bytes())
        np.testing.assert_array_equal(pixels[..., 0], deep >> 8)
    frames = [color_image(label, 3, 0) for label in range(3)]
    for suffix in (".gif", ".tif"):
        path = tmp_path / f"moving{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        first = np.asarray(PIL.Image.open(path).convert("RGB"))
        np.testing.assert_array_equal(decode(path.read_bytes()), first)
    PIL.Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(CorruptImageError, match="32 bits"):
        decode((tmp_path / "float.tif").read_bytes())
