"""
Export both models as ONNX files.

A file is kept only if its outputs under onnxruntime equal the model's, for several numbers of images and texts and
several text lengths.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoProcessor, CLIPProcessor

from .clip import ExportError, check_exportable, new_folder, random_clip_inputs


OPSET = 18
"""The lowest opset of the exporter, for onnxruntime 1.14 and later."""
TOLERANCE = 1e-4
"""Largest difference from the model's output, relative to the largest value of the output."""
_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_VERSIONS = ("torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class OnnxFile:
    """One file of an export; variable sizes in the shapes have names."""

    name: str
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    difference: float
    """Largest difference from the model, relative to the largest value of the output."""
    size: int
    """Bytes."""


class _Wrapper(nn.Module):
    def __init__(self, model: Any):
        super().__init__()
        self.model = model


class _Text(_Wrapper):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if hasattr(self.model, "get_text_embeds"):
            return self.model.get_text_embeds(input_ids, attention_mask)
        embeds = self.model.get_text_features(input_ids, attention_mask=attention_mask).pooler_output
        return embeds / embeds.norm(p=2, dim=-1, keepdim=True)


class _Vision(_Wrapper):
    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        embeds = self.model.get_image_features(pixel_values).pooler_output
        return embeds / embeds.norm(p=2, dim=-1, keepdim=True)


class _Clip(_Wrapper):
    def forward(
        self, input_ids: torch.Tensor, pixel_values: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        outputs = self.model(input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask)
        return outputs.logits_per_image, outputs.logits_per_text, outputs.text_embeds, outputs.image_embeds


class _Density(_Wrapper):
    def forward(self, pixel_values: torch.Tensor, text_embeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.model(pixel_values=pixel_values, text_embeds=text_embeds)
        return outputs.density_map, outputs.counts


class _DensityOfTokens(_Wrapper):
    def forward(
        self, input_ids: torch.Tensor, pixel_values: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.model(pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask)
        return outputs.density_map, outputs.counts


@dataclass(frozen=True)
class _Part:
    """A file to export: its module, its inputs with the names of their variable axes, and its outputs."""

    module: type[nn.Module]
    inputs: dict[str, dict[int, str]]
    outputs: tuple[str, ...]


_TOKENS = {0: "text_batch_size", 1: "sequence_length"}
_CLIP_PARTS = {
    "model": _Part(
        _Clip,
        {"input_ids": _TOKENS, "pixel_values": {0: "image_batch_size"}, "attention_mask": _TOKENS},
        ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds"),
    ),
    "text_model": _Part(_Text, {"input_ids": _TOKENS, "attention_mask": _TOKENS}, ("text_embeds",)),
    "vision_model": _Part(_Vision, {"pixel_values": {0: "image_batch_size"}}, ("image_embeds",)),
}
_PAIRS = {0: "batch_size", 1: "sequence_length"}
_DENSITY_PARTS = {
    "model": _Part(
        _DensityOfTokens,
        {"input_ids": _PAIRS, "pixel_values": {0: "batch_size"}, "attention_mask": _PAIRS},
        ("density_map", "counts"),
    ),
    "text_model": _Part(_Text, {"input_ids": _TOKENS, "attention_mask": _TOKENS}, ("text_embeds",)),
    "density_model": _Part(
        _Density,
        {"pixel_values": {0: "batch_size"}, "text_embeds": {0: "batch_size", 1: "num_prompts"}},
        ("density_map", "counts"),
    ),
}
PARTS = {"count_clip": _CLIP_PARTS, "clip": _CLIP_PARTS, "clip_count_density": _DENSITY_PARTS}
"""The exportable files of each model type."""


def export_onnx(
    checkpoint: str | Path, output: str | Path, parts: Sequence[str] | None = None, opset: int = OPSET
) -> list[OnnxFile]:
    """
    Export a model as ONNX files, with its configuration, its processor and a README.

    The numbers of images, texts and prompts per image are variable, and so is the length of texts.

    Args:
        checkpoint (`str` or `Path`): A folder or a name on the Hub.
        output (`str` or `Path`): The folder to write, new or empty.
        parts (`Sequence[str]`, *optional*): Keys of `PARTS[model_type]`; by default all.
        opset (`int`, *optional*, defaults to 18): The version of ONNX's operators.

    Returns:
        `list[OnnxFile]`: The files, with their differences from the model.

    Raises:
        ExportError: If a package is missing, the model type or a part is unknown, the folder is not empty, the export
            fails, or an output differs.
    """
    check_packages()
    source = str(checkpoint)
    config = AutoConfig.from_pretrained(source)
    check_exportable(source, config)
    model_type = type(config).model_type
    known = PARTS[model_type]
    names = list(known) if parts is None else list(dict.fromkeys(parts))
    if unknown := [name for name in names if name not in known] or not names:
        raise ExportError(f"Expected parts of a {model_type} ({', '.join(known)}), but got {unknown or 'none'}.")
    if opset < OPSET:
        raise ExportError(f"Expected an opset of {OPSET} or more, but got {opset}: the exporter writes no older ones.")
    # In float32: onnxruntime does not support every operator in lower precision.
    model = AutoModel.from_pretrained(source, dtype=torch.float32, attn_implementation="sdpa").eval()
    with new_folder(output) as folder:
        files = export_parts(model, folder, names, opset)
        model.config.save_pretrained(folder)
        processor = AutoProcessor.from_pretrained(source)
        if model_type != "clip_count_density":
            processor = CLIPProcessor(processor.image_processor, processor.tokenizer)
        processor.save_pretrained(folder)
        _write_about(folder, model_type, files, opset)
    return files


def export_parts(model: Any, folder: Path, parts: Sequence[str], opset: int = OPSET) -> list[OnnxFile]:
    """
    Export parts of a model in float32 and evaluation mode as ONNX files, without processor and README; [`ExportError`]
    if the export fails, or an output differs.
    """
    known = PARTS[model.config.model_type]
    return [_export_part(model, name, known[name], folder, opset) for name in parts]


def part_inputs(model: Any, part: str, num_images: int, num_texts: int, length: int) -> dict[str, torch.Tensor]:
    """
    Reproducible random inputs of a part, by name; `num_images` may be windows, `num_texts` embedded prompts per
    window.
    """
    return _inputs(model, PARTS[model.config.model_type][part], num_images, num_texts, length)


def part_module(model: Any, part: str) -> nn.Module:
    """The PyTorch module of a part: it takes the inputs of [`part_inputs`] in their order."""
    return PARTS[model.config.model_type][part].module(model).eval()


def check_packages() -> None:
    """Raise [`ExportError`] if a package of the extra `onnx` is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"This needs {' and '.join(missing)}: pip install 'count-clip[onnx]'.")


@torch.no_grad()
def _export_part(model: Any, name: str, part: _Part, folder: Path, opset: int) -> OnnxFile:
    module = part.module(model).eval()
    example = _inputs(model, part, 2, 3, _longest_text(model))
    # In the example no variable size may be 1 (the exporter takes it for a constant), nor equal to another.
    longest = {"sequence_length": _longest_text(model)}
    shapes = {
        key: {axis: torch.export.Dim(name, min=1, max=longest.get(name, 2**15)) for axis, name in axes.items()}
        for key, axes in part.inputs.items()
    }
    path = folder / f"{name}.onnx"
    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                tuple(example.values()),
                dynamo=True,
                input_names=list(part.inputs),
                output_names=list(part.outputs),
                dynamic_shapes=tuple(shapes.values()),
                opset_version=opset,
                verbose=False,
            )
        except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ExportError(f"{name} cannot be exported by torch {torch.__version__}: {reason}") from error
        if program is None:
            raise ExportError(f"{name} cannot be exported by torch {torch.__version__}: no program was returned.")
        program.save(path)
    return _check(module, model, part, path)


def _longest_text(model: Any) -> int:
    context = getattr(model.config, "num_context_tokens", 0)
    return int(model.config.text_config.max_position_embeddings - context)


def _inputs(model: Any, part: _Part, num_images: int, num_texts: int, length: int) -> dict[str, torch.Tensor]:
    """Random inputs of a part; where images and texts are pairs, as many texts as images."""
    if part.module is _DensityOfTokens:
        num_texts = num_images
    size = getattr(model.config, "window_size", None)
    made = random_clip_inputs(model.config, num_images, num_texts, length, size)
    if "text_embeds" in part.inputs:
        generator = torch.Generator().manual_seed(num_texts)
        shape = (num_images, num_texts, model.config.projection_dim)
        made["text_embeds"] = torch.randn(shape, generator=generator)
    return {name: made[name] for name in part.inputs}


def _check(module: nn.Module, model: Any, part: _Part, path: Path) -> OnnxFile:
    """Compare the file with the module on several inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    longest = _longest_text(model)
    for num_images, num_texts, length in ((1, 1, min(4, longest)), (2, 3, longest), (3, 2, min(7, longest))):
        inputs = _inputs(model, part, num_images, num_texts, length)
        expected = module(*inputs.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        try:
            found = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        except _onnxruntime_errors() as error:
            raise ExportError(f"{path.name} does not run: {str(error).strip().splitlines()[0]}") from error
        for output, right, got in zip(part.outputs, expected, found, strict=True):
            right_values = right.numpy()
            if got.shape != right_values.shape:
                raise ExportError(
                    f"Expected {output} of {path.name} of shape {right_values.shape}, but got {got.shape}."
                )
            scale = max(float(np.abs(right_values).max()), 1e-6)
            difference = float(np.abs(got - right_values).max()) / scale
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"{output} of {path.name} differs from the model's by up to {difference:.3g} of its largest value "
                    f"(allowed: {TOLERANCE:g}). Nothing was kept."
                )
            worst = max(worst, difference)
    size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    input_shapes, output_shapes = (
        {one.name: list(one.shape) for one in group} for group in (session.get_inputs(), session.get_outputs())
    )
    return OnnxFile(path.name, input_shapes, output_shapes, worst, size)


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """The errors of onnxruntime have no common base but `Exception`."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes and its own deprecated calls."""
    levels = [(logger, logger.level) for logger in map(logging.getLogger, ("torch.onnx", "onnxscript", "onnx_ir"))]
    for logger, _ in levels:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in levels:
                logger.setLevel(level)


_RUN_CLIP = """import numpy as np
import onnxruntime
from PIL import Image
from transformers import AutoProcessor

processor = AutoProcessor.from_pretrained("FOLDER")
session = onnxruntime.InferenceSession("FOLDER/model.onnx")
captions = [f"a photo of {number} dogs" for number in ("two", "three", "four")]
inputs = processor(text=captions, images=[Image.open("image.png")], padding=True, return_tensors="np")
inputs = {one.name: inputs[one.name] for one in session.get_inputs()}
logits = session.run(["logits_per_image"], inputs)[0]  # (images, captions)
print(captions[int(np.argmax(logits[0]))])"""
_RUN_DENSITY = """import numpy as np
import onnxruntime
import torch
from PIL import Image
from transformers import AutoProcessor

# Splits images into windows and merges the maps.
processor = AutoProcessor.from_pretrained("FOLDER", trust_remote_code=True)
text_session = onnxruntime.InferenceSession("FOLDER/text_model.onnx")
session = onnxruntime.InferenceSession("FOLDER/density_model.onnx")
inputs = processor([Image.open("image.png")], ["red apples"])
# Encode a prompt once for all windows of all images.
tokens = {name: inputs[name][:1].numpy() for name in ("input_ids", "attention_mask")}
text_embeds = text_session.run(["text_embeds"], tokens)[0]  # (prompts, width)
pixel_values = inputs["pixel_values"].numpy()
prompts = np.repeat(text_embeds[None], len(pixel_values), axis=0)  # (windows, prompts, width)
maps, counts = session.run(["density_map", "counts"], {"pixel_values": pixel_values, "text_embeds": prompts})
outputs = {"density_map": torch.from_numpy(maps[:, 0])}  # of the first prompt
result = processor.post_process_density(outputs, inputs["window_positions"], inputs["image_sizes"])[0]
print(result["count"])"""


def _write_about(folder: Path, model_type: str, files: Sequence[OnnxFile], opset: int) -> None:
    """Write `onnx_export.json` and a README."""
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
    about = {
        "model_type": model_type,
        "opset": opset,
        "dtype": "float32",
        "tolerance": TOLERANCE,
        "versions": versions,
        "files": {
            one.name: {"inputs": one.inputs, "outputs": one.outputs, "difference": one.difference} for one in files
        },
    }
    (folder / "onnx_export.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    rows = []
    for one in files:
        cells = [f"`{one.name}`", _shapes(one.inputs), _shapes(one.outputs), f"{one.size / 1e6:.1f}"]
        rows.append(f"| {' | '.join(cells)} | {one.difference:.1e} |")
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    is_density = model_type == "clip_count_density"
    needed, code = (
        ({"text_model.onnx", "density_model.onnx"}, _RUN_DENSITY) if is_density else ({"model.onnx"}, _RUN_CLIP)
    )
    run = ["", "```python", code.replace("FOLDER", "."), "```"] if needed <= {one.name for one in files} else []
    text = [
        "# ONNX export",
        "",
        f"A `{model_type}` model in float32, opset {opset}, exported with {made}. Named sizes are variable."
        + ("" if is_density else " Embeddings have unit norm."),
        "Each file was compared with the model under onnxruntime; the last column is the largest difference, relative",
        f"to the largest value of an output (allowed: {TOLERANCE:g}).",
        "",
        "| file | inputs | outputs | MB | largest difference |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        *run,
    ]
    (folder / "README.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def _shapes(named: dict[str, list[int | str]]) -> str:
    return "<br>".join(f"`{name}` ({', '.join(map(str, shape))})" for name, shape in named.items())


__all__ = [
    "OPSET",
    "PARTS",
    "TOLERANCE",
    "OnnxFile",
    "check_packages",
    "export_onnx",
    "export_parts",
    "part_inputs",
    "part_module",
]
