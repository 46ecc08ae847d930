"""The model of a run and its processor: from a checkpoint, from another model's towers, or small and new."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig
from transformers.models.clip import CLIPImageProcessorPil

from count_clip.datasets_scripts.captions.numbers import NUMBER_WORDS
from count_clip.modeling.configuration_clip_count_density import CLIPCountDensityConfig
from count_clip.modeling.configuration_count_clip import CountCLIPConfig
from count_clip.modeling.image_processing_clip_count_density import CLIPCountDensityImageProcessorPil
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.modeling_count_clip import CLIPForCounting
from count_clip.modeling.processing_clip_count_density import CLIPCountDensityProcessor
from count_clip.modeling.processing_count_clip import CountCLIPProcessor

from ..core.rows import Rows
from .arguments import TASKS, RunArguments, check_keys


BOS, EOS, END_OF_WORD = "<|startoftext|>", "<|endoftext|>", "</w>"
# Of larger training sets so many rows stand for all: for the words of the tokenizer and the mean count.
MAX_ROWS_READ = 10_000
SCRATCH_KEYS = ("vision", "text", "projection_dim", "vocab_size")


def build_model(run: RunArguments, train_rows: Rows) -> tuple[Any, Any]:
    """
    Load or make the model of a run and its processor; the tokenizer of a new model is trained on the texts of the
    training rows. `ValueError` if the run names no source of the model or several, or one of another model;
    `FileNotFoundError` if its folder is missing.
    """
    others = {name: task.other_source for name, task in TASKS.items()}
    allowed = ["model_name_or_path", others[run.task], "scratch"]
    given = [name for name in dict.fromkeys([*allowed, *others.values()]) if getattr(run, name) is not None]
    if len(given) != 1 or given[0] not in allowed:
        raise ValueError(
            f"Expected exactly one of {', '.join(f'`{name}`' for name in allowed)} as the source of the model of a "
            f"{run.task} run, but got {' and '.join(f'`{name}`' for name in given) or 'none'}."
        )
    name = run.model_name_or_path or getattr(run, others[run.task])
    # A name on the Hub has one slash and no folder before it here; `runs/` is where all our configurations write.
    is_folder = name and (name.startswith(("/", ".", "~", "runs/")) or name.count("/") > 1)
    if is_folder and not Path(name).expanduser().is_dir():
        raise FileNotFoundError(
            f"There is no folder {name!r}, which `{given[0]}` names. If it is what another configuration writes, run "
            "that one first."
        )
    model, processor = (_counting_model if run.task == "counting" else _density_model)(run, train_rows)
    if run.attn_implementation is not None:
        model.set_attn_implementation(run.attn_implementation)
    return model, processor


def _counting_model(run: RunArguments, train_rows: Rows) -> tuple[Any, Any]:
    if run.image_processor:
        raise ValueError("`image_processor` is for density runs; the images of a counting run are prepared as CLIP's.")
    overrides = run.model_config or {}
    check_keys(overrides, CountCLIPConfig().to_dict(), "`model_config`")
    if run.scratch is not None:
        return build_counting_model(run.scratch, _texts(train_rows), overrides)
    if run.density_name_or_path is not None:
        return counting_model_from_density(run.density_name_or_path, overrides)
    model = CLIPForCounting.from_pretrained(run.model_name_or_path, dtype=torch.float32, **overrides)
    return model, CountCLIPProcessor.from_pretrained(run.model_name_or_path)


def _density_model(run: RunArguments, train_rows: Rows) -> tuple[Any, Any]:
    overrides, options = run.model_config or {}, run.image_processor or {}
    check_keys(overrides, CLIPCountDensityConfig(text_config={}, vision_config={}).to_dict(), "`model_config`")
    check_keys(options, CLIPCountDensityImageProcessorPil().to_dict(), "`image_processor`")
    if run.scratch is not None:
        return build_density_model(run.scratch, _texts(train_rows), overrides, options)
    if run.clip_name_or_path is not None:
        clip = run.clip_name_or_path
        model = CLIPCountDensityModel.from_clip(clip, **overrides)
        try:  # images as the CLIP's were
            written, _ = CLIPCountDensityImageProcessorPil.get_image_processor_dict(clip)
        except OSError:
            written = {}
        options = {name: written[name] for name in ("image_mean", "image_std") if name in written} | options
        return model, density_processor(model.config, CLIPTokenizer.from_pretrained(clip), options)
    model = CLIPCountDensityModel.from_pretrained(run.model_name_or_path, dtype=torch.float32, **overrides)
    processor = CLIPCountDensityProcessor.from_pretrained(run.model_name_or_path)
    if options:
        processor.image_processor = CLIPCountDensityImageProcessorPil.from_pretrained(
            run.model_name_or_path, **options
        )
    return model, processor


def _texts(rows: Rows) -> list[str]:
    """Texts of the training rows, and the numbers that their counterfactuals will have."""
    return [*sample_rows(rows).column("text"), *NUMBER_WORDS]


def sample_rows(rows: Rows) -> Rows:
    """At most `MAX_ROWS_READ` of the rows, the first and others at even distances."""
    return rows.select(range(0, len(rows), -(-len(rows) // MAX_ROWS_READ)))


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024, max_length: int = 77) -> CLIPTokenizer:
    """
    Train a CLIP tokenizer on captions: byte-level, lower-case, with ends of words; it encodes every string.

    `vocab_size` is the upper bound of its tokens, `max_length` the positions of the text tower. The same texts give
    the same tokenizer. Raises a `ValueError` if the vocabulary is too small for the bytes.
    """
    alphabet = sorted(ByteLevel.alphabet())
    letters = alphabet + [letter + END_OF_WORD for letter in alphabet]
    num_merges = vocab_size - len(letters) - 2
    if num_merges < 0:
        raise ValueError(
            f"`vocab_size` must be at least {len(letters) + 2} (each byte inside and at the end of a word, start and "
            f"end of text), but got {vocab_size}."
        )
    merges = _learn_merges(texts, alphabet, num_merges)
    # Two pairs may merge into one token.
    tokens = dict.fromkeys([*letters, *(first + second for first, second in merges), BOS, EOS])
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=merges, model_max_length=max_length
    )


def _learn_merges(texts: Iterable[str], alphabet: list[str], num_merges: int) -> list[tuple[str, str]]:
    """The most frequent pairs, in the order in which they are merged."""
    # The words of a CLIP tokenizer.
    plain = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(BPE(continuing_subword_prefix="", end_of_word_suffix=END_OF_WORD))
    learner.normalizer, learner.pre_tokenizer = plain.normalizer, plain.pre_tokenizer
    trainer = BpeTrainer(
        # The learner counts only ends of words that it saw: this gives enough merges, or more.
        vocab_size=num_merges + 2 * len(alphabet),
        initial_alphabet=alphabet,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    learner.train_from_iterator(sorted(texts), trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [(first, second) for first, second in merges[:num_merges]]


def build_counting_model(
    scratch: Mapping[str, Any], texts: Iterable[str], model_config: Mapping[str, Any] | None = None
) -> tuple[CLIPForCounting, CountCLIPProcessor]:
    """
    Make a [`CLIPForCounting`] with new weights, and its processor with a tokenizer trained on `texts`.

    `scratch` has the sizes: `vision` (fields of a `CLIPVisionConfig`), `text` (fields of a `CLIPTextConfig`),
    `projection_dim` and `vocab_size`, by default CLIP's; `model_config` has other fields of the [`CountCLIPConfig`].
    Raises a `ValueError` if a key is unknown.
    """
    tokenizer, fields = _towers(scratch, texts, {})
    config = CountCLIPConfig(**fields, **(model_config or {}))
    return CLIPForCounting(config), _counting_processor(config, tokenizer)


def counting_model_from_density(
    name_or_path: str, model_config: Mapping[str, Any] | None = None
) -> tuple[CLIPForCounting, CountCLIPProcessor]:
    """
    Start a [`CLIPForCounting`] from the trained towers of a [`CLIPCountDensityModel`], and make its processor.

    Patch embeddings that localize objects help the class token of a small tower to count, which it learns slowly from
    captions alone. The visual projection starts as that of the patches; the last norm and the logit scale are new.
    Raises a `ValueError` if the checkpoint is not of a density model, or has visual prompts.
    """
    density = CLIPCountDensityModel.from_pretrained(name_or_path, dtype=torch.float32)
    if density.visual_prompts is not None:
        raise ValueError(
            f"The vision tower of {name_or_path!r} was tuned by visual prompts, which a CLIP does not have. Start "
            "from the CLIP that it was made from."
        )
    config = CountCLIPConfig(
        text_config=density.config.text_config.to_dict(),
        vision_config=density.config.vision_config.to_dict(),
        projection_dim=density.config.projection_dim,
        **(model_config or {}),
    )
    model = CLIPForCounting(config)
    for module in ("text_model", "vision_model", "text_projection"):
        getattr(model, module).load_state_dict(getattr(density, module).state_dict())
    with torch.no_grad():
        model.visual_projection.weight.copy_(density.contrastive_patch_projection.weight)
    return model, _counting_processor(config, CLIPTokenizer.from_pretrained(name_or_path))


def _counting_processor(config: CountCLIPConfig, tokenizer: CLIPTokenizer) -> CountCLIPProcessor:
    size = config.vision_config.image_size
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    return CountCLIPProcessor(image_processor, tokenizer, max_text_length=config.text_config.max_position_embeddings)


def build_density_model(
    scratch: Mapping[str, Any],
    texts: Iterable[str],
    model_config: Mapping[str, Any] | None = None,
    image_processor: Mapping[str, Any] | None = None,
) -> tuple[CLIPCountDensityModel, CLIPCountDensityProcessor]:
    """Make a [`CLIPCountDensityModel`] with new weights, and its processor; see [`build_counting_model`]."""
    model_config = dict(model_config or {})
    window_size = {"image_size": model_config["window_size"]} if "window_size" in model_config else {}
    tokenizer, fields = _towers(scratch, texts, window_size)
    config = CLIPCountDensityConfig(**fields, **model_config)
    return CLIPCountDensityModel(config), density_processor(config, tokenizer, image_processor)


def density_processor(
    config: CLIPCountDensityConfig, tokenizer: Any, image_processor: Mapping[str, Any] | None = None
) -> CLIPCountDensityProcessor:
    """The processor of a density model, from its configuration, its tokenizer, and options of the image processor."""
    options = {"window_size": config.window_size, **(image_processor or {})}
    return CLIPCountDensityProcessor(
        CLIPCountDensityImageProcessorPil(**options),
        tokenizer,
        num_context_tokens=config.num_context_tokens,
        max_text_length=config.text_config.max_position_embeddings,
    )


def _towers(
    scratch: Mapping[str, Any], texts: Iterable[str], vision_defaults: Mapping[str, Any]
) -> tuple[CLIPTokenizer, dict[str, Any]]:
    """The tokenizer, and the sizes of the model as fields of its configuration."""
    check_keys(scratch, SCRATCH_KEYS, "`scratch`")
    vision, text = dict(scratch.get("vision") or {}), dict(scratch.get("text") or {})
    check_keys(vision, CLIPVisionConfig().to_dict(), "`scratch.vision`")
    check_keys(text, CLIPTextConfig().to_dict(), "`scratch.text`")
    tokenizer = train_tokenizer(texts, scratch.get("vocab_size", 1024), text.get("max_position_embeddings", 77))
    text |= {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    fields: dict[str, Any] = {"vision_config": {**vision_defaults, **vision}, "text_config": text}
    if "projection_dim" in scratch:
        fields["projection_dim"] = scratch["projection_dim"]
    return tokenizer, fields


__all__ = [
    "build_counting_model",
    "build_density_model",
    "build_model",
    "counting_model_from_density",
    "density_processor",
    "sample_rows",
    "train_tokenizer",
]
