"""JSON files people hand us: read with limits, refused with the name of the file and the place in it."""

import os
import socket
from dataclasses import replace

import pytest
import refusing

from vit_core.errors import ConfigError, ImageError, MissingFileError
from vit_core.files.json import json_text, read_json
from vit_core.limits import LIMITS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.json"


def read(path, size=1000, error=ConfigError, **limits):
    return read_json(path, limit="config_bytes", error=error, limits=replace(LIMITS, config_bytes=size, **limits))


def refusal(path, error=ConfigError, **options):
    message = refusing.refusal(lambda: read(path, error=error, **options), error)
    assert message.startswith(f"{path}: ") and len(message) < len(str(path)) + 200
    return message


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"{}", {}),
        (b' {"a": [1, 2.5, null, true]}\r\n', {"a": [1, 2.5, None, True]}),
        ('{"\u00fc": "\U0001f600"}'.encode(), {"\u00fc": "\U0001f600"}),
        (b'{"a": {"a": 1}, "b": {"a": 1}, "": "\\u00e9"}', {"a": {"a": 1}, "b": {"a": 1}, "": "\u00e9"}),
        (b'{"a": 1e400}', {"a": float("inf")}),
    ],
)
def test_objects_are_read(path, content, value):
    path.write_bytes(content)
    assert read(path) == value == read(str(path))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "not valid JSON: Expecting value: line 1 column 1"),
        (b'{"a": 1', "not valid JSON: Expecting ',' delimiter: line 1 column 8"),
        (b'{"a": 1}\n{}', "not valid JSON: Extra data: line 2 column 1"),
        (b'{\n "a": nul}', "line 2 column 7"),
        (b'{"a": "\n"}', "Invalid control character"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": "\xff"}', "expected UTF-8 text, got other bytes at position 7"),
        (b"\x80\x02}q\x00.", "expected UTF-8 text, got other bytes at position 0"),
        (b"[1]", "expected a JSON object, got list"),
        (b"3", "expected a JSON object, got int"),
        (b'"text"', "expected a JSON object, got str"),
        (b"null", "expected a JSON object, got NoneType"),
        (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' stands there twice"),
        (b'{"x": [{"' + b"k" * 300 + b'": 1, "' + b"k" * 300 + b'": 1}]}', "the key 'kkk"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON: Exceeds the limit"),
        (
            b'{"a": "' + b"x" * 9993 + b'"}',
            "10002 bytes, above the limit of 10001; to raise it: limits=replace(LIMITS, config",
        ),
    ],
)
def test_what_is_no_object_is_refused(path, content, part):
    path.write_bytes(content)
    for error in (ConfigError, ImageError):
        assert part in refusal(path, error, size=10_001)


def test_the_size_limit_to_the_byte(path):
    path.write_bytes(b"{" + b" " * 998 + b"}")
    assert read(path) == {}
    assert "1000 bytes, above the limit of 999; to raise it: limits=replace(LIMITS, config_bytes=...)" in refusal(
        path, size=999
    )
    assert LIMITS.config_bytes == 16_000_000


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [1, 31, 32, 33, 200, 900, 1100, 5000, 100_000])
def test_the_nesting_limit_to_the_level(path, opening, depth):
    closing = "]" if opening == "[" else "}"
    path.write_text('{"a":' + opening * (depth - 1) + "1" + closing * (depth - 1) + "}")
    if depth <= LIMITS.json_depth == 32:
        assert [*read(path, size=10**6)] == ["a"]
    else:
        assert "nested deeper than the limit of 32; to raise it: " in refusal(path, size=10**6)
    if depth == 33:
        assert [*read(path, json_depth=33)] == ["a"]


def test_empty_objects_and_arrays_are_levels_too(path):
    for empty in "[]", "{}":
        path.write_text(f'{{"a": [{empty}, {empty}, 1]}}')
        assert [*read(path, json_depth=3)] == ["a"]
        assert "deeper than the limit of 2;" in refusal(path, json_depth=2)


def test_a_missing_file_is_its_own_error(path):
    for missing in (path, path / "below"):
        with pytest.raises(MissingFileError if missing == path else (MissingFileError, ConfigError)) as caught:
            read(missing)
        assert str(caught.value).startswith(f"{missing}: ")
    assert issubclass(MissingFileError, FileNotFoundError)


def test_what_is_no_regular_file_is_refused_without_waiting(path, tmp_path):
    os.mkfifo(path)
    assert "expected a regular file" in refusal(path)
    assert "expected a regular file" in refusal(tmp_path)
    assert "expected a regular file" in refusal("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        name = os.path.relpath(tmp_path / "s")  # such names are short
        server.bind(name)
        assert "expected a regular file" in refusal(name)
    assert "cannot be opened: " in refusal(tmp_path / ("n" * 300))
    assert "embedded null" in refusal(f"{tmp_path}/a\0b.json")


def test_a_link_to_a_file_is_that_file(path, tmp_path):
    path.write_text('{"a": 1}')
    (tmp_path / "link.json").symlink_to(path)
    assert read(tmp_path / "link.json") == {"a": 1}
    path.unlink()
    with pytest.raises(MissingFileError):
        read(tmp_path / "link.json")


def test_no_descriptor_is_left_open(path, tmp_path):
    path.write_text("[")
    before = len(os.listdir("/proc/self/fd"))
    for bad in (path, tmp_path, tmp_path / "none"):
        with pytest.raises((ConfigError, MissingFileError)):
            read(bad)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_layout_of_text():
    text = json_text({"b": [1, None], "a": {"10": "\u00e9", "9": 1e-12}, "c": (1,)})
    lines = [
        "{",
        '  "a": {',
        r'    "10": "\u00e9",',
        '    "9": 1e-12',
        "  },",
        '  "b": [',
        "    1,",
        "    null",
        "  ],",
    ]
    assert text.split("\n") == [*lines, '  "c": [', "    1", "  ]", "}", ""]
