"""
CLIP that counts what you name in words.

Importing this package registers its model types, pipelines, adapters and data sets with the Hugging Face libraries:
`AutoModel.from_pretrained`, `pipeline("object-counting")`, `PeftModel.from_pretrained` and
`load_dataset("countscenes")` work with them. The public names are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .registration import register


if TYPE_CHECKING:
    from count_clip.datasets_scripts.countscenes.builder import CountScenes as CountScenes
    from count_clip.evaluation.figures.figures import draw_density as draw_density
    from count_clip.modeling.configuration_clip_count_density import CLIPCountDensityConfig as CLIPCountDensityConfig
    from count_clip.modeling.configuration_count_clip import CountCLIPConfig as CountCLIPConfig
    from count_clip.modeling.configuration_efficientnet_lite import EfficientNetLiteConfig as EfficientNetLiteConfig
    from count_clip.modeling.configuration_vision_text_count_density import (
        VisionTextCountDensityConfig as VisionTextCountDensityConfig,
    )
    from count_clip.modeling.image_processing_clip_count_density import (
        CLIPCountDensityImageProcessorPil as CLIPCountDensityImageProcessorPil,
    )
    from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel as CLIPCountDensityModel
    from count_clip.modeling.modeling_count_clip import CLIPForCounting as CLIPForCounting
    from count_clip.modeling.modeling_efficientnet_lite import EfficientNetLiteBackbone as EfficientNetLiteBackbone
    from count_clip.modeling.modeling_vision_text_count_density import (
        VisionTextCountDensityModel as VisionTextCountDensityModel,
    )
    from count_clip.modeling.optimization_cpu import optimize_for_cpu as optimize_for_cpu
    from count_clip.modeling.pipeline_caption_counting import CaptionCountingPipeline as CaptionCountingPipeline
    from count_clip.modeling.pipeline_object_counting import ObjectCountingPipeline as ObjectCountingPipeline
    from count_clip.modeling.processing_clip_count_density import (
        CLIPCountDensityProcessor as CLIPCountDensityProcessor,
    )
    from count_clip.modeling.processing_count_clip import CountCLIPProcessor as CountCLIPProcessor
    from count_clip.modeling.prompt_tuning import AdapterStack as AdapterStack
    from count_clip.modeling.prompt_tuning import ContextPromptConfig as ContextPromptConfig
    from count_clip.modeling.prompt_tuning import VisualPromptConfig as VisualPromptConfig
    from count_clip.modeling.prompt_tuning import adapter_to_prompts as adapter_to_prompts
    from count_clip.modeling.prompt_tuning import load_adapted_model as load_adapted_model
    from count_clip.modeling.prompt_tuning import prompts_to_adapter as prompts_to_adapter
    from count_clip.trainers.counting.config import CountingConfig as CountingConfig
    from count_clip.trainers.counting.trainer import CountingTrainer as CountingTrainer
    from count_clip.trainers.density.config import DensityConfig as DensityConfig
    from count_clip.trainers.density.trainer import DensityTrainer as DensityTrainer


# The module of each public name. Trainers and figures import libraries that models do not need.
_MODULES = {
    "AdapterStack": "modeling.prompt_tuning",
    "CLIPCountDensityConfig": "modeling.configuration_clip_count_density",
    "CLIPCountDensityImageProcessorPil": "modeling.image_processing_clip_count_density",
    "CLIPCountDensityModel": "modeling.modeling_clip_count_density",
    "CLIPCountDensityProcessor": "modeling.processing_clip_count_density",
    "CLIPForCounting": "modeling.modeling_count_clip",
    "CaptionCountingPipeline": "modeling.pipeline_caption_counting",
    "ContextPromptConfig": "modeling.prompt_tuning",
    "CountCLIPConfig": "modeling.configuration_count_clip",
    "CountCLIPProcessor": "modeling.processing_count_clip",
    "CountScenes": "datasets_scripts.countscenes.builder",
    "CountingConfig": "trainers.counting.config",
    "CountingTrainer": "trainers.counting.trainer",
    "DensityConfig": "trainers.density.config",
    "DensityTrainer": "trainers.density.trainer",
    "EfficientNetLiteBackbone": "modeling.modeling_efficientnet_lite",
    "EfficientNetLiteConfig": "modeling.configuration_efficientnet_lite",
    "ObjectCountingPipeline": "modeling.pipeline_object_counting",
    "VisionTextCountDensityConfig": "modeling.configuration_vision_text_count_density",
    "VisionTextCountDensityModel": "modeling.modeling_vision_text_count_density",
    "VisualPromptConfig": "modeling.prompt_tuning",
    "adapter_to_prompts": "modeling.prompt_tuning",
    "draw_density": "evaluation.figures.figures",
    "load_adapted_model": "modeling.prompt_tuning",
    "optimize_for_cpu": "modeling.optimization_cpu",
    "prompts_to_adapter": "modeling.prompt_tuning",
}

__all__ = [*_MODULES, "__version__", "register"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register()
