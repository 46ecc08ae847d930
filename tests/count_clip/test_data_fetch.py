import io
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from count_clip.cli import main


@pytest.fixture
def addresses(tmp_path: Path, web: Any) -> Path:
    """A list of two pictures, a page and nothing."""
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (9, 9, 9)).save(file, "PNG")
    urls = [
        web.put("/a.png", file.getvalue()),
        web.put("/page.png", b"<html>gone</html>", Content_Type="text/html"),
        f"{web.address}/none.png",
        web.put("/b.png", file.getvalue()),
    ]
    path = tmp_path / "list.csv"
    path.write_text("\n".join(["address,text", *(f"{url},two dogs" for url in urls)]))
    return path


def _arguments(addresses: Path, output: Path, *more: str) -> list[str]:
    return [
        *("data", "fetch", str(addresses), "--output", str(output), "--url-column", "address"),
        *("--allow-private", "--host-delay", "0", *more),
    ]


def test_list_is_fetched(addresses: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(_arguments(addresses, tmp_path / "set")) == 1
    printed = capsys.readouterr()
    assert [line.split() for line in printed.out.splitlines()[1:-1]] == [
        ["fetched", "2"],
        ["not", "to", "be", "had:", "html", "1"],
        ["not", "to", "be", "had:", "status", "1"],
        ["all", "4"],
    ]
    assert printed.out.splitlines()[-1].startswith(f"0.0 MB in {tmp_path / 'set'}, ")
    assert f"2 pictures could not be had, see {tmp_path / 'set'}/failures.jsonl" in printed.err
    rows = datasets.load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["text"][:] == ["two dogs", "two dogs"]
    assert rows[1]["image"].size == (5, 4)
    # What was fetched is a source of captions.
    captions = ["data", "counting-set", str(tmp_path / "set" / "data"), "--output", str(tmp_path / "counting")]
    assert main(captions) == 0


def test_json_says_the_same_again(addresses: Path, tmp_path: Path, capsys: pytest.CaptureFixture, web: Any) -> None:
    arguments = _arguments(addresses, tmp_path / "set", "--format", "folder", "--shard-rows", "3", "--json")
    assert main(arguments) == 1
    first = json.loads(capsys.readouterr().out)
    asked = dict(web.asked)
    assert main(arguments) == 1
    again = json.loads(capsys.readouterr().out)
    assert first["is_new"]
    assert {**first, "is_new": False} == again
    assert (first["rows"], first["fetched"], first["reasons"]) == (4, 2, {"html": 1, "status": 1})
    assert web.asked == asked
    assert len(list((tmp_path / "set").glob("pictures/*/*.png"))) == 2


def test_options_reach_the_fetching(addresses: Path, tmp_path: Path, capsys: pytest.CaptureFixture, web: Any) -> None:
    more = [
        "--user-agent",
        "somebody",
        "--connections",
        "1",
        "--per-host",
        "1",
        "--max-redirects",
        "0",
        "--retries",
        "0",
    ]
    web.put("/page.png", b"", status=302, Location="/a.png")
    assert main(_arguments(addresses, tmp_path / "set", *more, "--json")) == 1
    assert json.loads(capsys.readouterr().out)["reasons"] == {"redirects": 1, "status": 1}
    assert {headers["User-Agent"] for headers in web.headers} == {"somebody"}


def test_private_addresses_are_refused_by_default(
    addresses: Path, tmp_path: Path, capsys: pytest.CaptureFixture, web: Any
) -> None:
    arguments = ["data", "fetch", str(addresses), "--url-column", "address", "--output", str(tmp_path / "set")]
    assert main([*arguments, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["reasons"] == {"private": 4}
    assert not web.asked


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--url-column", "href"], "Expected a column 'href' in"),
        (["--timeout", "0"], "Expected read_timeout to be more than 0"),
        (["--retries", "-1"], "Expected retries to be 0 or more"),
    ],
)
def test_what_cannot_be_carried_out_is_explained(
    addresses: Path, tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], message: str
) -> None:
    assert main(_arguments(addresses, tmp_path / "set", *more)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("count-clip: ")
    assert not (tmp_path / "set").exists()
    assert main(["data", "fetch", str(tmp_path / "none.txt"), "--output", str(tmp_path / "set")]) == 2
    assert "there is no such file" in capsys.readouterr().err
