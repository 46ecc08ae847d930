"""Export a count-aware CLIP as a plain `CLIPModel`, for programs without this package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, CLIPConfig, CLIPModel, CLIPProcessor

from count_clip.modeling.modeling_count_clip import CLIPForCounting
from count_clip.trainers.hub.card import write_model_card


# The two classes sum in a different order.
LOGIT_TOLERANCE = 1e-4
# The keys of a configuration that a plain CLIP does not have.
_OWN_KEYS = (
    "architectures",
    "auto_map",
    "counting_logit_scale",
    "counting_loss_weight",
    "custom_pipelines",
    "model_type",
    "transformers_version",
)


class ExportError(ValueError):
    """A checkpoint cannot be exported; the message gives the reason and a remedy."""


def export_clip(checkpoint: str | Path, output: str | Path, dtype: torch.dtype | None = None) -> float:
    """
    Export a [`CLIPForCounting`] as a plain `CLIPModel` with a `CLIPProcessor`.

    The export is loaded again and kept only if its weights and logits equal the checkpoint's.

    Args:
        checkpoint (`str` or `Path`): A folder or a name on the Hub.
        output (`str` or `Path`): The folder to write, new or empty.
        dtype (`torch.dtype`, *optional*): The type of the weights; by default unchanged.

    Returns:
        `float`: The largest difference of the logits, in float32.

    Raises:
        ExportError: If the model type is another, the folder is not empty, or the export differs.
    """
    source = str(checkpoint)
    config = AutoConfig.from_pretrained(source)
    check_exportable(source, config)
    if type(config).model_type == "clip":
        raise ExportError(f"{source} is a plain CLIP already: there is nothing to export.")
    if type(config).model_type == "clip_count_density":
        raise ExportError(
            f"{source} is a density model, which compares patches and not images with texts. Export the CLIP that it "
            "was built from, or use `export onnx`."
        )
    kept = {key: value for key, value in config.to_dict().items() if key not in _OWN_KEYS}
    counting = CLIPForCounting.from_pretrained(source, dtype=dtype or "auto")
    clip = CLIPModel.from_pretrained(source, config=CLIPConfig.from_dict(kept), dtype=counting.dtype)
    with new_folder(output) as folder:
        clip.save_pretrained(folder)
        _save_processor(source, folder)
        write_model_card(folder)
        return _compare(counting, folder)


def check_exportable(source: str, config: Any) -> None:
    """Raise [`ExportError`] for a model that is not of this package and not a CLIP."""
    found = type(config).model_type
    if found not in ("count_clip", "clip", "clip_count_density"):
        wanted = "a model of type count_clip, clip or clip_count_density"
        raise ExportError(f"Expected {wanted}, but {source} is of type {found!r}.")


@contextmanager
def new_folder(output: str | Path) -> Iterator[Path]:
    """
    Yield a temporary folder that is renamed to `output` on success; [`ExportError`] if `output` is not empty or cannot
    be written.
    """
    place = Path(output).expanduser().resolve()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ExportError(f"Expected {output} to be new or an empty folder, but it holds something. Name another.")
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise ExportError(f"{output} cannot be written: {error.strerror or error}.") from error
    try:
        yield partial
        if place.exists():
            place.rmdir()
        partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _save_processor(source: str, folder: Path) -> None:
    """Save the processor as a plain CLIP's, with its image processor in a file of its own for older libraries."""
    processor = AutoProcessor.from_pretrained(source)
    CLIPProcessor(processor.image_processor, processor.tokenizer).save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = [content, content.get("image_processor")]
        if any(part.pop("auto_map", None) for part in parts if isinstance(part, dict)):
            path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for code in folder.glob("*.py"):
        code.unlink()
    classes = {"processor_config.json": "CLIPProcessor", "tokenizer_config.json": "CLIPProcessor"}
    for name, processor_class in classes.items():
        path = folder / name
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**content, "processor_class": processor_class}, indent=2, sort_keys=True) + "\n")


@torch.no_grad()
def _compare(counting: CLIPForCounting, folder: Path) -> float:
    clip = CLIPModel.from_pretrained(folder)
    expected, found = counting.state_dict(), clip.state_dict()
    differing = [name for name in expected if name not in found or not torch.equal(expected[name], found[name])]
    if differing or found.keys() - expected.keys():
        raise ExportError(f"The exported weights differ from the checkpoint's: {', '.join(differing[:3])}.")
    counting, clip = counting.float().eval(), clip.float().eval()
    inputs = random_clip_inputs(counting.config, num_images=2, num_texts=3)
    difference = (counting(**inputs).logits_per_image - clip(**inputs).logits_per_image).abs().max().item()
    if not difference <= LOGIT_TOLERANCE * max(1.0, clip.logit_scale.exp().item()):
        raise ExportError(f"The exported model gives other logits than the checkpoint, by up to {difference:.3g}.")
    return difference


def random_clip_inputs(
    config: Any, num_images: int, num_texts: int, length: int = 8, size: int | None = None
) -> dict[str, torch.Tensor]:
    """Reproducible random images and texts of at most `length` tokens, the shorter ones padded."""
    generator = torch.Generator().manual_seed(num_images * 1000 + num_texts * 100 + length)
    text, side = config.text_config, size or config.vision_config.image_size
    # Without the special tokens at the end of CLIP's vocabulary.
    ids = torch.randint(0, max(1, text.vocab_size - 8), (num_texts, length), generator=generator)
    mask = torch.ones_like(ids)
    ids[:, 0] = text.bos_token_id if text.bos_token_id < text.vocab_size else 0
    end = text.eos_token_id if text.eos_token_id != 2 else text.vocab_size - 1
    for row in range(num_texts):
        last = max(1, length - 1 - row % max(1, length - 1))
        ids[row, last:], mask[row, last + 1 :] = end, 0
    pixel_values = torch.randn(num_images, 3, side, side, generator=generator)
    return {"input_ids": ids, "pixel_values": pixel_values, "attention_mask": mask}


__all__ = ["ExportError", "check_exportable", "export_clip", "new_folder", "random_clip_inputs"]
