"""The benchmark of exports runs, on a tiny model."""

import importlib.util
from pathlib import Path

import pytest


@pytest.mark.timeout(240)
def test_table_has_a_row_for_each_size(counting_model, tmp_path: Path, capsys, monkeypatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = Path(__file__).parents[2] / "benchmarks" / "export.py"
    spec = importlib.util.spec_from_file_location("benchmark_export", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    counting_model.save_pretrained(tmp_path)
    command = ["--models", "counting", "--counting", str(tmp_path), "--parts", "text_model", "--repeats", "1"]
    module.main([*command, "--sizes", "1x1", "2x3", "--threads", "1"])
    rows = capsys.readouterr().out.splitlines()[-2:]
    for row, texts in zip(rows, (1, 3), strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == "counting: text_model.onnx"
        assert cells[1] == f"input_ids ({texts}, 12)"
        assert float(cells[2]) > 0
        assert float(cells[3]) > 0
        assert float(cells[5]) <= 1e-4
