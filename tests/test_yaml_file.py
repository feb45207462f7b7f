"""Files of settings as people write them: each mistake is one line that says where."""

import json
import re

import pytest

from resources.yaml_file import NotYaml, dump, read_yaml


def read(tmp_path, content: str | bytes):
    path = tmp_path / "file.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_yaml(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("name: a\ngate: {x: 1}\n\ngate: {x: 2}\n", "gate stands there twice, on lines 2 and 4: keep one"),
        ("gate:\n  x: 1\n  y: 2\n  x: 1\n", "gate.x stands there twice, on lines 2 and 4: keep one"),
        ("a:\n- b: 1\n- c: 1\n  d:\n    e: 1\n    e: 1\n", "a.1.d.e stands there twice, on lines 5 and 6: keep one"),
        ("a: {b: 1, 'b': 2}", "a.b stands there twice, on line 1: keep one"),
        ('{"a": 1,\n "b": 2,\n "a": 3,\n "a": 4}', "a stands there 3 times, on lines 1, 3 and 4: keep one"),
        ("a:\n  yes: 1\n  true: 2\n", "a.yes stands there twice, on lines 2 and 3: keep one"),
        (
            "a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a\n",
            "b.<< stands there twice, on lines 3 and 4: write `<<: [*one, *other]`",
        ),
    ],
)
def test_key_that_stands_twice_is_named_with_its_lines(tmp_path, content, says):
    with pytest.raises(NotYaml, match=f"file.yaml: {re.escape(says)}$"):
        read(tmp_path, content)


def test_character_that_json_wrote_as_two_halves_is_one_and_a_single_half_is_named(tmp_path):
    written = json.dumps({"system_prompt": "Smile 😀", "ключ": "é"})
    assert read(tmp_path, written) == {"system_prompt": "Smile 😀", "ключ": "é"}
    with pytest.raises(NotYaml, match=r"file.yaml: line 2: half of a character"):
        read(tmp_path, 'a: 1\nb: "\\ud83d"\n')


def test_equal_keys_in_different_mappings_anchors_and_merged_keys_are_no_mistake(tmp_path):
    content = "a: &a {x: 1, y: 2}\nb: &b\n  <<: *a\n  y: 3\nc:\n  <<: [*a, *b]\n  x: 4\nd: *a\ne: [{x: 1}, {x: 1}]\n"
    assert read(tmp_path, content) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 4, "y": 2},
        "d": {"x": 1, "y": 2},
        "e": [{"x": 1}, {"x": 1}],
    }


def test_numbers_and_text_that_look_alike_are_different_keys(tmp_path):
    assert read(tmp_path, "1: a\n'1': b\nx: 1e-3\n") == {1: "a", "1": "b", "x": 0.001}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("name: [", "line 1, column 8: .*expected the node content"),
        ("name: x\n\tgate: 1", "line 2, column 1: .*cannot start any token"),
        ("name: x\n---\nname: y\n", "expected a single document"),
        ("name: *nobody", "line 1, column 7: found undefined alias"),
        ("name: !!python/object:os.system {}", "could not determine a constructor"),
        ("name: 2024-13-45", "month must be in 1..12"),
        ("name: !!float high", "could not convert string to float"),
        ("name: " + "9" * 5000, "4300 digits"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("? [a, b]\n: c", "unhashable key"),
        ("name: x\n".encode("utf-16"), "UTF-16: save it as UTF-8"),
        ("name: x\n".encode("utf-16-le"), "a character that is no text"),
        ("name: é\n".encode("latin-1"), "no UTF-8 text at byte 6: save it as UTF-8"),
        (b"\x7fELF\x02\x01\x00\xff", "no UTF-8 text at byte 7"),
    ],
)
def test_what_is_no_yaml_is_one_line_that_says_where(tmp_path, content, says):
    with pytest.raises(NotYaml, match=f"file.yaml: not readable as YAML: .*{says}") as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)


def test_byte_order_mark_is_passed_over_and_an_empty_file_is_nothing(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbfname: x\n") == {"name": "x"}
    assert read(tmp_path, "") is None


def test_name_that_begins_like_a_number_is_a_name_and_what_is_written_is_read_as_the_same(tmp_path):
    content = {"revision": "3e8f0a1b5c", "name": "3e8", "rate": 3e8, "small": 1e-3, "list": ["1e5", 2]}
    assert read(tmp_path, dump(content)) == content
    assert read(tmp_path, "revision: 3e8f0a1b5c\nrate: 1e-3") == {"revision": "3e8f0a1b5c", "rate": 0.001}
