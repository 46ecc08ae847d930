import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextBackbone,
    ConvNextConfig,
    Dinov2Backbone,
    Dinov2Config,
    PreTrainedModel,
    ResNetBackbone,
    ResNetConfig,
    SiglipTextConfig,
    SiglipTextModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinBackbone,
    SwinConfig,
    pipeline,
)

from count_clip.modeling.configuration_efficientnet_lite import EfficientNetLiteConfig
from count_clip.modeling.configuration_vision_text_count_density import VisionTextCountDensityConfig
from count_clip.modeling.image_processing_clip_count_density import CLIPCountDensityImageProcessorPil
from count_clip.modeling.modeling_efficientnet_lite import EfficientNetLiteBackbone
from count_clip.modeling.modeling_vision_text_count_density import (
    VisionTextCountDensityModel,
    block_count_loss,
    relative_density_loss,
)
from count_clip.modeling.processing_clip_count_density import CLIPCountDensityProcessor


VIT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
TOWER = {**VIT, "intermediate_size": 30, "image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 20, "intermediate_size": 30, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
SPECIAL = {"bos_token_id": 48, "eos_token_id": 49, "pad_token_id": 0}

BACKBONES: dict[str, tuple[Callable[[], PreTrainedModel], list[int]]] = {
    "efficientnet_lite": (
        lambda: EfficientNetLiteBackbone(
            EfficientNetLiteConfig(embedding_size=4, hidden_sizes=[3, 5, 7, 9, 11, 13, 15], depths=[1] * 7)
        ),
        [4, 8, 16, 32],
    ),
    "dinov2": (lambda: Dinov2Backbone(Dinov2Config(**VIT, image_size=56, patch_size=14)), [14]),
    "convnext": (lambda: ConvNextBackbone(ConvNextConfig(hidden_sizes=[4, 6, 8, 10], depths=[1] * 4)), [4, 8, 16, 32]),
    "resnet": (
        lambda: ResNetBackbone(
            ResNetConfig(embedding_size=4, hidden_sizes=[4, 8, 12, 16], depths=[1] * 4, layer_type="basic")
        ),
        [4, 8, 16, 32],
    ),
    "swin": (
        lambda: SwinBackbone(SwinConfig(embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 4], window_size=4)),
        [4, 8, 16, 32],
    ),
    "clip": (lambda: CLIPVisionModel(CLIPVisionConfig(**TOWER)), [8]),
    "siglip": (lambda: SiglipVisionModel(SiglipVisionConfig(**TOWER)), [8]),
}
TEXT_ENCODERS: dict[str, tuple[Callable[[], PreTrainedModel], str]] = {
    "bert": (lambda: BertModel(BertConfig(**TEXT)), "mean"),
    "clip": (lambda: CLIPTextModel(CLIPTextConfig(**TEXT, **SPECIAL)), "pooler"),
    "siglip": (lambda: SiglipTextModel(SiglipTextConfig(**TEXT, **SPECIAL, projection_size=20)), "pooler"),
}


@pytest.fixture(scope="module")
def build() -> Callable[..., VisionTextCountDensityModel]:
    models: dict[tuple[str, str], VisionTextCountDensityModel] = {}

    def build(vision: str = "efficientnet_lite", text: str = "bert") -> VisionTextCountDensityModel:
        if (vision, text) not in models:
            torch.manual_seed(0)
            models[vision, text] = VisionTextCountDensityModel.from_backbone(
                BACKBONES[vision][0](),
                TEXT_ENCODERS[text][0](),
                hidden_sizes=[8, 12, 16, 16],
                similarity_hidden_size=18,
            )
        return copy.deepcopy(models[vision, text])

    return build


@pytest.fixture
def prompts() -> dict[str, torch.Tensor]:
    input_ids = torch.tensor([[48, 7, 8, 49, 0], [48, 9, 10, 11, 49]])
    return {"input_ids": input_ids, "attention_mask": (input_ids > 0).long()}


@pytest.mark.parametrize(
    ("vision", "text"), [*((vision, "bert") for vision in BACKBONES), *(("resnet", text) for text in TEXT_ENCODERS)]
)
def test_any_backbone_and_text_encoder_train_save_and_load(build, prompts, tmp_path, vision, text):
    model = build(vision, text)
    assert model.config.feature_strides == BACKBONES[vision][1]
    assert model.config.text_pooling == TEXT_ENCODERS[text][1]
    pixel_values, labels = torch.randn(2, 3, 90, 130), torch.rand(2, 90, 130) / 1000
    model.train()
    outputs = model(pixel_values=pixel_values, labels=labels, **prompts)
    outputs.loss.backward()
    untouched = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert {name.split(".")[0] for name in untouched} <= {"backbone", "text_model"}  # poolers and unread stages
    model.eval().save_pretrained(tmp_path)
    loaded = VisionTextCountDensityModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected, found = (one(pixel_values=pixel_values, **prompts) for one in (model, loaded))
    assert expected.density_map.shape == (2, 90, 130)
    torch.testing.assert_close(found.density_map, expected.density_map)


@torch.no_grad()
def test_encoders_keep_the_weights_they_start_from():
    torch.manual_seed(1)
    vision, text = BACKBONES["convnext"][0](), TEXT_ENCODERS["bert"][0]()
    model = VisionTextCountDensityModel.from_backbone(
        vision, text, hidden_sizes=[8, 12, 16, 16], similarity_hidden_size=18
    )
    for name, weight in vision.state_dict().items():
        torch.testing.assert_close(model.backbone.model.state_dict()[name], weight)
    for name, weight in text.state_dict().items():
        torch.testing.assert_close(model.text_model.state_dict()[name], weight)


def test_encoders_load_from_folders(tmp_path, prompts):
    from count_clip.modeling.modeling_efficientnet_lite import EfficientNetLiteModel

    vision = EfficientNetLiteModel(BACKBONES["efficientnet_lite"][0]().config)
    vision.save_pretrained(tmp_path / "vision")
    TEXT_ENCODERS["bert"][0]().save_pretrained(tmp_path / "text")
    model = VisionTextCountDensityModel.from_backbone(
        str(tmp_path / "vision"), str(tmp_path / "text"), hidden_sizes=[8, 12, 16, 16], similarity_hidden_size=18
    )
    torch.testing.assert_close(model.backbone.model.embedder.convolution.weight, vision.embedder.convolution.weight)


@torch.no_grad()
def test_several_prompts_give_what_each_gives_alone(build, prompts):
    model, pixel_values = build(), torch.randn(2, 3, 64, 96)
    text_embeds = model.get_text_embeds(**prompts)
    together = model(pixel_values=pixel_values, text_embeds=text_embeds.expand(2, 2, -1))
    assert together.counts.shape == (2, 2)
    for index in range(2):
        alone = model(pixel_values=pixel_values, text_embeds=text_embeds[[index, index]])
        torch.testing.assert_close(together.density_map[:, index], alone.density_map, atol=1e-7, rtol=1e-4)
        torch.testing.assert_close(together.similarity_map[:, index], alone.similarity_map)


@torch.no_grad()
def test_padding_of_a_prompt_changes_nothing(build):
    model = build()
    short = torch.tensor([[48, 7, 8, 49]])
    padded = torch.tensor([[48, 7, 8, 49, 0, 0]])
    torch.testing.assert_close(model.get_text_embeds(short), model.get_text_embeds(padded, (padded > 0).long()))


@torch.no_grad()
def test_the_map_sums_to_the_count_of_the_head_at_its_own_stride(build, prompts):
    model, pixel_values = build(), torch.randn(2, 3, 64, 96)
    seen = []
    model.pyramid.register_forward_hook(lambda module, inputs, output: seen.append(output))
    outputs = model(pixel_values=pixel_values, **prompts)
    scaled = torch.cat(seen)
    assert scaled.shape == (2, 16, 24)
    expected = scaled.clamp(min=0).sum(dim=(1, 2)) / model.config.density_scale
    torch.testing.assert_close(outputs.counts, expected)
    torch.testing.assert_close(outputs.density_map.sum(dim=(1, 2)), outputs.counts)
    assert (outputs.density_map >= 0).all()


def test_training_sees_densities_below_zero(build, prompts):
    model = build().train()
    with torch.no_grad():
        model.pyramid.density_projection.bias.fill_(-10)
    assert (model(pixel_values=torch.randn(2, 3, 64, 96), **prompts).counts < 0).all()
    assert (model.eval()(pixel_values=torch.randn(2, 3, 64, 96), **prompts).counts == 0).all()


def test_losses_are_those_worked_out_by_hand():
    generator = np.random.default_rng(0)
    density, labels = (generator.random((2, 5, 7)).astype(np.float32) for _ in range(2))
    labels[1] = 0
    expected = np.mean([((d - t) ** 2).sum() / ((t**2).sum() + 0.5) for d, t in zip(density, labels, strict=True)])
    found = relative_density_loss(torch.tensor(density), torch.tensor(labels), empty_energy=0.5)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    blocks = [
        [
            (d[r : r + 2, c : c + 2].sum(), t[r : r + 2, c : c + 2].sum())
            for r in range(0, 5, 2)
            for c in range(0, 7, 2)
        ]
        for d, t in zip(density, labels, strict=True)
    ]
    expected = np.mean([(p - t) ** 2 / (1 + t) for of_image in blocks for p, t in of_image])
    found = block_count_loss(torch.tensor(density), torch.tensor(labels), 2)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_a_density_model_learns_which_colour_the_text_names(build, prompts):
    """Forty steps on two images of one red and one green square each: the prompt decides."""
    torch.manual_seed(0)
    model = build().train()
    pixel_values, labels = torch.zeros(2, 3, 64, 64), torch.zeros(2, 64, 64)
    pixel_values[:, 0, 8:24, 8:24] = 2
    pixel_values[:, 1, 40:56, 40:56] = 2
    labels[0, 12:20, 12:20] = 1 / 64
    labels[1, 44:52, 44:52] = 1 / 64
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    first = last = None
    for _ in range(40):
        last = model(pixel_values=pixel_values, labels=labels, **prompts).loss
        first = first if first is not None else last.item()
        optimizer.zero_grad()
        last.backward()
        optimizer.step()
    assert last.item() < 0.5 * first


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "`pixel_values` is missing"),
        ({"pixel_values": torch.zeros(1, 3, 64, 64)}, "got neither"),
        ({"pixel_values": torch.zeros(1, 3, 64, 64), "text_embeds": torch.zeros(2, 20)}, r"got \(2, 20\)"),
        (
            {
                "pixel_values": torch.zeros(1, 3, 64, 64),
                "text_embeds": torch.ones(1, 20),
                "labels": torch.zeros(1, 3, 3),
            },
            "must have the shape of the density map",
        ),
        (
            {"pixel_values": torch.zeros(1, 3, 64, 64), "text_embeds": torch.ones(1, 20), "return_loss": True},
            "`labels`",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(build, inputs, message):
    with pytest.raises(ValueError, match=message):
        build()(**inputs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_sizes": [20]}, "each of the 4 levels"),
        ({"depths": [0, 0, 0, 0]}, "one level at least"),
        ({"feature_strides": [8, 4]}, "increasing"),
        ({"text_pooling": "max"}, "one of mean, pooler"),
        ({"block_sizes": [10, 80, 320]}, "multiples of `density_stride`"),
        ({"backbone_config": {"hidden_size": 3}}, "needs a `model_type`"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(Exception, match=message):
        VisionTextCountDensityConfig(**fields)


def test_strides_that_do_not_fit_the_backbone_are_refused():
    config = VisionTextCountDensityConfig(
        feature_strides=[8, 16], hidden_sizes=[8, 8], depths=[1, 1], text_config=BertConfig(**TEXT)
    )
    with pytest.raises(ValueError, match="4 feature maps"):
        VisionTextCountDensityModel(config)


def test_pipelines_and_processes_without_the_package_load_a_folder(tokenizer, make_image, tmp_path, check_remote_code):
    torch.manual_seed(0)
    text = BertModel(BertConfig(**{**TEXT, "vocab_size": len(tokenizer)}))
    model = VisionTextCountDensityModel.from_backbone(
        BACKBONES["efficientnet_lite"][0](), text, hidden_sizes=[8, 12, 16, 16], similarity_hidden_size=18
    )
    image_processor = CLIPCountDensityImageProcessorPil(window_size=64)
    processor = CLIPCountDensityProcessor(image_processor, tokenizer, num_context_tokens=0, max_text_length=40)
    for one in (model, processor):
        one.save_pretrained(tmp_path / "model")
    result = pipeline("object-counting", model=str(tmp_path / "model"))(make_image(150, 70), text=["dogs", "cats"])
    inputs = processor([make_image(150, 70)], [["dogs", "cats"]])
    with torch.no_grad():
        outputs = model.eval()(**inputs)
    expected = processor.post_process_density(outputs, inputs["window_positions"], inputs["image_sizes"])[0]
    assert [one["count"] for one in result] == pytest.approx([one["count"] for one in expected], rel=1e-4)
    assert result[0]["density_map"].shape == (70, 150)
    check_remote_code(tmp_path / "model")
