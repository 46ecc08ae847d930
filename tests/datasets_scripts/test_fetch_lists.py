import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from count_clip.datasets_scripts.fetch_lists import AddressList


ROWS = [
    ("http://a/1.jpg", {"text": "two, cats", "place": 1, "score": 0.5}),
    (None, {"text": 'the "third"\nline', "place": 2, "score": 2.0}),
    ("http://a/3.jpg", {"text": None, "place": None, "score": 1.25}),
]


def _parquet(path: Path) -> None:
    columns = {name: [others[name] for _, others in ROWS] for name in ("text", "place", "score")}
    pq.write_table(pa.table({"URL": [url for url, _ in ROWS], **columns}), path, row_group_size=2)


def _json_lines(path: Path) -> None:
    path.write_text(
        '{"image_url": " http://a/1.jpg ", "text": "two, cats", "place": 1, "score": 0.5}\n'
        '{"image_url": "", "text": "the \\"third\\"\\nline", "place": 2, "score": 2}\n\n'
        '{"image_url": "http://a/3.jpg", "score": 1.25}\n'
    )


@pytest.mark.parametrize(("name", "write"), [("a.parquet", _parquet), ("a.jsonl", _json_lines)])
def test_lists_with_types_keep_them(tmp_path: Path, name: str, write: Callable) -> None:
    write(tmp_path / name)
    found = AddressList(tmp_path / name)
    assert list(found.rows()) == ROWS
    assert found.num_rows == 3
    assert {column: kind.dtype for column, kind in found.features.items()} == {
        "text": "string",
        "place": "int64",
        "score": "float64",
    }


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("A.TSV", "\t"), ("a.csv.gz", ",")])
def test_tables_hold_words(tmp_path: Path, name: str, delimiter: str) -> None:
    text = '\ufeffkey,Image_URL,text\r\n1,http://a/1.jpg,"two, cats"\r\n2,,"two\nlines"\r\n3,http://a/3.jpg,\r\n'
    content = text.replace(",", delimiter).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = AddressList(tmp_path / name)
    assert found.url_name == "Image_URL"
    assert list(found.rows()) == [
        ("http://a/1.jpg", {"key": "1", "text": f"two{delimiter} cats"}),
        (None, {"key": "2", "text": "two\nlines"}),
        ("http://a/3.jpg", {"key": "3", "text": ""}),
    ]
    assert found.num_rows == 3
    assert found.features == datasets.Features({"key": datasets.Value("string"), "text": datasets.Value("string")})


def test_text_has_an_address_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# pictures\nhttp://a/1.jpg\n\n  http://a/ä b.jpg#2  \n")
    found = AddressList(tmp_path / "a.txt")
    assert list(found.rows()) == [("http://a/1.jpg", {}), ("http://a/ä b.jpg#2", {})]
    assert found.num_rows == 2


def test_column_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("url,large\nhttp://a/small,http://a/large\n")
    assert next(AddressList(tmp_path / "a.csv", "large").rows()) == ("http://a/large", {"url": "http://a/small"})
    with pytest.raises(ValueError, match="Expected a column 'huge' in .*a.csv, but it has url, large"):
        AddressList(tmp_path / "a.csv", "huge")


def test_columns_of_several_kinds_are_kept_as_json(tmp_path: Path) -> None:
    lines = ['{"url": "http://a", "x": 1, "y": [1, 2], "z": true}', '{"url": "http://b", "x": "one", "y": null}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = AddressList(tmp_path / "a.jsonl")
    assert list(found.rows()) == [
        ("http://a", {"x": "1", "y": "[1, 2]", "z": True}),
        ("http://b", {"x": "one", "y": None, "z": None}),
    ]
    assert {name: kind.dtype for name, kind in found.features.items()} == {"x": "string", "y": "string", "z": "bool"}


def test_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    for name, text in (("a.txt", "http://a"), ("b.txt", "http://a"), ("c.txt", "http://c")):
        (tmp_path / name).write_text(text)
    a, b, c = (AddressList(tmp_path / f"{name}.txt").fingerprint for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.xlsx", b"", ValueError, r"Expected a list of addresses \(.txt, .csv"),
        ("a", b"", ValueError, r"Expected a list of addresses \(.txt, .csv"),
        ("a.parquet.gz", b"", ValueError, "Expected a list of addresses"),
        ("a.csv", b"", ValueError, "a.csv, but it has none"),
        ("a.csv", b"a,b\n1,2\n", ValueError, "Expected a column url or image_url in .*a.csv, but it has a, b"),
        ("a.csv", b"url,x,x\n", ValueError, "each column of .*a.csv under a name of its own, but got url, x, x"),
        ("a.csv", b"url,x\nhttp://a,1,2\n", ValueError, "Expected 2 values in line 2 of .*a.csv, but got more"),
        ("a.csv", b"url,x\nhttp://a\n", ValueError, "Expected 2 values in line 2 of .*a.csv, but got fewer"),
        ("a.csv", b'url,x\n"http://a,1\n', ValueError, "addresses in .*a.csv, but cannot go on: unexpected end"),
        ("a.csv", b"url\n\xff\xfe\n", ValueError, "addresses in .*a.csv, but cannot"),
        ("a.csv.gz", gzip.compress(b"url\n" * 99)[:-9], ValueError, "addresses in .*a.csv.gz, but cannot"),
        ("a.jsonl", b'{"url": "http://a"}\n{"url": "htt', ValueError, "Expected json in line 2 of .*a.jsonl"),
        ("a.jsonl", b"[1]\n", ValueError, r"Expected an object in line 1 of .*a.jsonl, but got \[1\]"),
        ("a.parquet", b"PAR1 and then nothing", ValueError, "Expected to read addresses in .*a.parquet"),
    ],
)
def test_bad_lists_are_named(tmp_path: Path, name: str, content: bytes, error: type, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        list(AddressList(tmp_path / name).rows())


def test_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Expected a list of addresses at .*a.txt, but there is no such file"):
        AddressList(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("http://a")
    with pytest.raises(ValueError, match="which has no columns"):
        AddressList(tmp_path / "a.txt", "url")


def test_lists_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text('{"url": "http://a"}\n' * 5)
    rows = AddressList(tmp_path / "a.jsonl").rows()
    read: list[Any] = []
    plain = AddressList._json_row
    monkeypatch.setattr(AddressList, "_json_row", lambda *said: read.append(said) or plain(*said))
    next(rows)
    read.clear()
    next(rows)
    assert len(read) == 1
