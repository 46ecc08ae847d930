"""Makes transformers know the model types, processors and pipelines of this package; imports all of these."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    Pipeline,
)
from transformers.pipelines import PIPELINE_REGISTRY

from count_clip.modeling.configuration_clip_count_density import CLIPCountDensityConfig
from count_clip.modeling.configuration_count_clip import CountCLIPConfig
from count_clip.modeling.image_processing_clip_count_density import CLIPCountDensityImageProcessorPil
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.modeling_count_clip import CLIPForCounting
from count_clip.modeling.pipeline_caption_counting import CaptionCountingPipeline
from count_clip.modeling.pipeline_object_counting import ObjectCountingPipeline
from count_clip.modeling.processing_clip_count_density import CLIPCountDensityProcessor
from count_clip.modeling.processing_count_clip import CountCLIPProcessor


PIPELINES: dict[str, type[Pipeline]] = {
    "caption-counting": CaptionCountingPipeline,
    "object-counting": ObjectCountingPipeline,
}


def register_with_transformers() -> None:
    """Make the models, processors and pipelines of this package known by their names."""
    register_models()
    register_pipelines()


def register_models() -> None:
    """Register the model types with the auto classes, and have `save_pretrained` put the code beside the weights."""
    # `exist_ok` makes a second call harmless.
    AutoConfig.register("count_clip", CountCLIPConfig, exist_ok=True)
    AutoModel.register(CountCLIPConfig, CLIPForCounting, exist_ok=True)
    AutoModelForZeroShotImageClassification.register(CountCLIPConfig, CLIPForCounting, exist_ok=True)
    AutoProcessor.register(CountCLIPConfig, CountCLIPProcessor, exist_ok=True)

    AutoConfig.register("clip_count_density", CLIPCountDensityConfig, exist_ok=True)
    AutoModel.register(CLIPCountDensityConfig, CLIPCountDensityModel, exist_ok=True)
    AutoProcessor.register(CLIPCountDensityConfig, CLIPCountDensityProcessor, exist_ok=True)
    AutoImageProcessor.register(
        CLIPCountDensityConfig, image_processor_classes={"pil": CLIPCountDensityImageProcessorPil}, exist_ok=True
    )

    for remote_code_class in (
        CountCLIPConfig,
        CLIPForCounting,
        CountCLIPProcessor,
        CLIPCountDensityConfig,
        CLIPCountDensityModel,
        CLIPCountDensityImageProcessorPil,
        CLIPCountDensityProcessor,
    ):
        remote_code_class.register_for_auto_class()


def register_pipelines() -> None:
    """Register the two tasks with `transformers.pipeline`."""
    for task, pipeline_class in PIPELINES.items():
        # transformers warns about a task registered twice.
        if PIPELINE_REGISTRY.supported_tasks.get(task, {}).get("impl") is not pipeline_class:
            PIPELINE_REGISTRY.register_pipeline(
                task, pipeline_class=pipeline_class, pt_model=AutoModel, type="multimodal"
            )
