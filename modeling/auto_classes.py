"""The classes of each model type, and their registration with transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    Pipeline,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_clip_count_density import CLIPCountDensityConfig
from .configuration_count_clip import CountCLIPConfig
from .configuration_efficientnet_lite import EfficientNetLiteConfig
from .configuration_vision_text_count_density import VisionTextCountDensityConfig
from .image_processing_clip_count_density import CLIPCountDensityImageProcessorPil
from .modeling_clip_count_density import CLIPCountDensityModel
from .modeling_count_clip import CLIPForCounting
from .modeling_efficientnet_lite import EfficientNetLiteBackbone, EfficientNetLiteModel
from .modeling_vision_text_count_density import VisionTextCountDensityModel
from .pipeline_caption_counting import CaptionCountingPipeline
from .pipeline_object_counting import ObjectCountingPipeline
from .processing_clip_count_density import CLIPCountDensityProcessor
from .processing_count_clip import CountCLIPProcessor


@dataclass(frozen=True)
class ModelFamily:
    """The classes of one model type."""

    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    processor: type[ProcessorMixin]
    task: str
    """The name of its pipeline in `transformers.pipeline`."""
    pipeline: type[Pipeline]
    image_processor: Any = None
    """The image processor, unless it is one of transformers."""
    auto_models: tuple[Any, ...] = (AutoModel,)
    """The auto classes that load the model."""

    @property
    def model_type(self) -> str:
        """The name of the family in `config.json`."""
        return self.config.model_type


MODEL_FAMILIES = {
    family.model_type: family
    for family in (
        ModelFamily(
            CountCLIPConfig,
            CLIPForCounting,
            CountCLIPProcessor,
            "caption-counting",
            CaptionCountingPipeline,
            auto_models=(AutoModel, AutoModelForZeroShotImageClassification),
        ),
        ModelFamily(
            CLIPCountDensityConfig,
            CLIPCountDensityModel,
            CLIPCountDensityProcessor,
            "object-counting",
            ObjectCountingPipeline,
            image_processor=CLIPCountDensityImageProcessorPil,
        ),
        ModelFamily(
            VisionTextCountDensityConfig,
            VisionTextCountDensityModel,
            CLIPCountDensityProcessor,
            "object-counting",
            ObjectCountingPipeline,
            image_processor=CLIPCountDensityImageProcessorPil,
        ),
    )
}


def register_with_transformers() -> None:
    """
    Register the models, processors and pipelines, and have `save_pretrained` write the code of the classes.

    A second call changes nothing.
    """
    AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
    AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)
    AutoBackbone.register(EfficientNetLiteConfig, EfficientNetLiteBackbone, exist_ok=True)
    for family in MODEL_FAMILIES.values():
        AutoConfig.register(family.model_type, family.config, exist_ok=True)
        for auto_model in family.auto_models:
            auto_model.register(family.config, family.model, exist_ok=True)
        AutoProcessor.register(family.config, family.processor, exist_ok=True)
        if family.image_processor is not None:
            classes = {"pil": family.image_processor}
            AutoImageProcessor.register(family.config, image_processor_classes=classes, exist_ok=True)
        for one in (family.config, family.model, family.processor, family.image_processor):
            if one is not None:
                one.register_for_auto_class()
        # transformers warns about a task registered twice.
        if PIPELINE_REGISTRY.supported_tasks.get(family.task, {}).get("impl") is not family.pipeline:
            PIPELINE_REGISTRY.register_pipeline(
                family.task, pipeline_class=family.pipeline, pt_model=AutoModel, type="multimodal"
            )


__all__ = ["MODEL_FAMILIES", "ModelFamily", "register_with_transformers"]
