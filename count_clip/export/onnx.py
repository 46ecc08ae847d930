"""
Both models as ONNX files, for programs without PyTorch.

A file is kept only if onnxruntime computes with it what the model computes, for several numbers of images and texts
and lengths of texts.
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
"""The oldest one that the exporter writes, for onnxruntime 1.14 and later."""
TOLERANCE = 1e-4
"""How far an output may be from the model's, as a part of the output's largest value."""
_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_VERSIONS = ("torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class OnnxFile:
    """
    One file of an export.

    Args:
        name (`str`): Its name.
        inputs, outputs (`dict[str, list[int | str]]`): Their names and shapes; sizes that may vary have names.
        difference (`float`): The largest difference from the model, as a part of an output's largest value.
        size (`int`): Bytes.
    """

    name: str
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    difference: float
    size: int


class _Text(nn.Module):
    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if hasattr(self.model, "get_text_embeds"):
            return self.model.get_text_embeds(input_ids, attention_mask)
        embeds = self.model.get_text_features(input_ids, attention_mask=attention_mask).pooler_output
        return embeds / embeds.norm(p=2, dim=-1, keepdim=True)


class _Vision(nn.Module):
    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        embeds = self.model.get_image_features(pixel_values).pooler_output
        return embeds / embeds.norm(p=2, dim=-1, keepdim=True)


class _Clip(nn.Module):
    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, pixel_values: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        outputs = self.model(input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask)
        return outputs.logits_per_image, outputs.logits_per_text, outputs.text_embeds, outputs.image_embeds


class _Density(nn.Module):
    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor, text_embeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.model(pixel_values=pixel_values, text_embeds=text_embeds)
        return outputs.density_map, outputs.counts


class _DensityOfTokens(nn.Module):
    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, pixel_values: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.model(pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask)
        return outputs.density_map, outputs.counts


@dataclass(frozen=True)
class _Part:
    """A file to write: what computes it, its inputs with the names of their axes that vary, and its outputs."""

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
"""For each type of models, what can be exported of it."""


def export_onnx(
    checkpoint: str | Path, output: str | Path, parts: Sequence[str] | None = None, opset: int = OPSET
) -> list[OnnxFile]:
    """
    Write a model as ONNX files, with its configuration, its processor, and a text on how to run them.

    The number of images, of texts and of an image's prompts may vary, and so may the length of texts.

    Args:
        checkpoint (`str` or `Path`): A folder or a name on the Hub.
        output (`str` or `Path`): The folder to write; it must not be there, or be empty.
        parts (`Sequence[str]`, *optional*): Which of `PARTS`; by default all.
        opset (`int`, *optional*, defaults to 18): The version of ONNX's operators.

    Returns:
        `list[OnnxFile]`: The files, with the differences that were found.

    Raises:
        ExportError: If a package is missing, it is another kind of model or part, the folder holds something, the
            exporter cannot do it, or the result computes something else.
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
    # In float32, whatever the weights are kept in: few processors compute in less, and onnxruntime not everything.
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
    Write parts of a model as ONNX files, and nothing else.

    Args:
        model: In float32 and in evaluation mode.
        folder (`Path`): Where to.
        parts (`Sequence[str]`): Which of `PARTS`.
        opset (`int`, *optional*, defaults to 18): The version of ONNX's operators.

    Returns:
        `list[OnnxFile]`: The files, with the differences that were found.

    Raises:
        ExportError: If the exporter cannot do it, or the result computes something else.
    """
    known = PARTS[model.config.model_type]
    return [_export_part(model, name, known[name], folder, opset) for name in parts]


def part_inputs(model: Any, part: str, num_images: int, num_texts: int, length: int) -> dict[str, torch.Tensor]:
    """
    Make inputs of a part, the same each time, of no meaning.

    Args:
        model: The model.
        part (`str`): One of `PARTS`.
        num_images (`int`): Images, or windows of images.
        num_texts (`int`): Texts; prompts of each window, where a part takes embedded ones.
        length (`int`): Tokens of the longest text.

    Returns:
        `dict[str, torch.Tensor]`: By the names of the part's inputs.
    """
    return _inputs(model, PARTS[model.config.model_type][part], num_images, num_texts, length)


def part_module(model: Any, part: str) -> nn.Module:
    """
    What a part computes, as PyTorch computes it.

    Args:
        model: The model.
        part (`str`): One of `PARTS`.

    Returns:
        `nn.Module`: It takes what [`part_inputs`] makes, in that order, and returns what the file returns.
    """
    return PARTS[model.config.model_type][part].module(model).eval()


def check_packages() -> None:
    """
    Refuse to begin without the packages of the extra `onnx`.

    Raises:
        ExportError: If one is missing.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"This needs {' and '.join(missing)}: pip install 'count-clip[onnx]'.")


@torch.no_grad()
def _export_part(model: Any, name: str, part: _Part, folder: Path, opset: int) -> OnnxFile:
    module = part.module(model).eval()
    example = _inputs(model, part, 2, 3, _longest_text(model))
    # A size must not be one in the example, or it is taken for a constant; nor may two that differ be alike.
    shapes = {key: {axis: _axis(model, size) for axis, size in axes.items()} for key, axes in part.inputs.items()}
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
            raise ExportError(f"{name} cannot be exported by torch {torch.__version__}: it gave no program.")
        program.save(path)
    return _check(module, model, part, path)


def _axis(model: Any, name: str) -> Any:
    """An axis of any size that the exporter calls by a name."""
    return torch.export.Dim(name, min=1, max=_longest_text(model) if name == "sequence_length" else 2**15)


def _longest_text(model: Any) -> int:
    context = getattr(model.config, "num_context_tokens", 0)
    return int(model.config.text_config.max_position_embeddings - context)


def _inputs(model: Any, part: _Part, num_images: int, num_texts: int, length: int) -> dict[str, torch.Tensor]:
    """Inputs of a part, in its order; where images and texts are pairs, as many texts as images."""
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
    """Compute some cases both ways."""
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
                    f"{path.name} gives {output} of shape {got.shape} for inputs whose shape should be "
                    f"{right_values.shape}. Nothing was kept."
                )
            scale = max(float(np.abs(right_values).max()), 1e-6)
            difference = float(np.abs(got - right_values).max()) / scale
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"{path.name} gives another {output} than the model: by up to {difference:.3g} of its largest "
                    f"value, where {TOLERANCE:g} is allowed. Nothing was kept."
                )
            worst = max(worst, difference)
    size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
    return OnnxFile(
        path.name,
        {one.name: list(one.shape) for one in session.get_inputs()},
        {one.name: list(one.shape) for one in session.get_outputs()},
        worst,
        size,
    )


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """Its errors have no class in common but `Exception`."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on what it does not need, and its own deprecated calls."""
    logger = logging.getLogger("torch.onnx")
    optimizer = logging.getLogger("onnxscript")
    levels = [(one, one.level) for one in (logger, optimizer, logging.getLogger("onnx_ir"))]
    for one, _ in levels:
        one.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for one, level in levels:
                one.setLevel(level)


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

# Cuts images into windows and puts the maps together again.
processor = AutoProcessor.from_pretrained("FOLDER", trust_remote_code=True)
text_session = onnxruntime.InferenceSession("FOLDER/text_model.onnx")
session = onnxruntime.InferenceSession("FOLDER/density_model.onnx")
inputs = processor([Image.open("image.png")], ["red apples"])
# A prompt is embedded once, for all windows of all images.
tokens = {name: inputs[name][:1].numpy() for name in ("input_ids", "attention_mask")}
text_embeds = text_session.run(["text_embeds"], tokens)[0]  # (prompts, width)
pixel_values = inputs["pixel_values"].numpy()
prompts = np.repeat(text_embeds[None], len(pixel_values), axis=0)  # (windows, prompts, width)
maps, counts = session.run(["density_map", "counts"], {"pixel_values": pixel_values, "text_embeds": prompts})
outputs = {"density_map": torch.from_numpy(maps[:, 0])}  # of the first prompt
result = processor.post_process_density(outputs, inputs["window_positions"], inputs["image_sizes"])[0]
print(result["count"])"""


def _write_about(folder: Path, model_type: str, files: Sequence[OnnxFile], opset: int) -> None:
    """A text for people and a file for programs."""
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
    rows = ["| file | inputs | outputs | MB | largest difference |", "| --- | --- | --- | --- | --- |"]
    for one in files:
        inputs, outputs = _shapes(one.inputs), _shapes(one.outputs)
        rows.append(f"| `{one.name}` | {inputs} | {outputs} | {one.size / 1e6:.1f} | {one.difference:.1e} |")
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    unit = "" if model_type == "clip_count_density" else " Embeddings have length one."
    needed = {"text_model.onnx", "density_model.onnx"} if model_type == "clip_count_density" else {"model.onnx"}
    has_needed = needed <= {one.name for one in files}
    code = _RUN_DENSITY if model_type == "clip_count_density" else _RUN_CLIP
    run = ["", "```python", code.replace("FOLDER", "."), "```"] if has_needed else []
    text = [
        "# ONNX export",
        "",
        f"A `{model_type}` model in float32, opset {opset}, written with {made}. Sizes with a name may vary.{unit}",
        "Each file was run with onnxruntime and compared with the model; the last column is the largest difference,",
        f"as a part of an output's largest value (allowed: {TOLERANCE:g}).",
        "",
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
