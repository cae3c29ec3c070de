import json
import os
from pathlib import Path

import pytest
from etils import epath

from resnet_jax.files import (
    is_partial,
    open_for_replacing,
    read_json,
    replace_when_written,
    write_bytes,
    write_json,
    write_text,
)


@pytest.mark.parametrize("kind", [str, Path, epath.Path])
def test_a_file_is_replaced_whole(tmp_path, kind):
    path = kind(tmp_path / "file")
    write_bytes(path, b"first")
    write_text(path, "größer")
    assert (tmp_path / "file").read_bytes() == "größer".encode()
    write_json(path, {"a": [1, None]}, indent=2)
    assert read_json(path) == {"a": [1, None]}
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(TypeError), open_for_replacing(path) as file:
        file.write(b"ne" + 1)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(TypeError):
        write_json(path, object())
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "missing" / "file", "new")
    assert path.read_text() == "old"


def test_the_old_file_stays_while_the_new_one_is_written(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, 1)
    with replace_when_written(path) as temporary:
        temporary.write_text(json.dumps(2))
        assert read_json(path) == 1
        assert [is_partial(name) for name in sorted(os.listdir(tmp_path))] == [True, False]
    assert read_json(path) == 2
