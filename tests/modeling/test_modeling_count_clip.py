"""Promises of the counting CLIP: its losses, and that it stays a CLIP."""

import inspect
import math

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from count_clip.modeling.configuration_clip_count_density import CLIPCountDensityConfig
from count_clip.modeling.configuration_count_clip import CountCLIPConfig
from count_clip.modeling.modeling_count_clip import CLIPForCounting, counting_loss, image_text_contrastive_loss


CAPTIONS = ["a photo of three dogs", "two cats", "some birds on a wire", "seven red cars in a row"]


@pytest.fixture
def batch(counting_processor, make_image):
    """Four images, of which the second and the last count, with two wrong captions each."""
    wrong = [["five cats", "nine cats"], ["two red cars in a row", "three red cars in a row"]]
    inputs = counting_processor([make_image(50, 40, seed) for seed in range(4)], CAPTIONS, wrong)
    return {**inputs, "counting_mask": torch.tensor([False, True, False, True]), "return_loss": True}


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_counting_loss_is_the_papers_formula():
    rng = np.random.default_rng(0)
    image, true, wrong = (_unit(rng.normal(size=shape)) for shape in ((3, 7), (3, 7), (3, 2, 7)))
    expected = 0.0
    for i in range(3):
        numerator = math.exp(5.0 * image[i] @ true[i])
        denominator = numerator + sum(math.exp(5.0 * image[i] @ wrong[i, j]) for j in range(2))
        expected += -math.log(numerator / denominator) / 3
    loss = counting_loss(*(torch.from_numpy(x) for x in (image, true, wrong)), logit_scale=5.0)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_counting_loss_of_indifferent_images_is_log_of_the_number_of_captions():
    image = torch.nn.functional.normalize(torch.randn(4, 6), dim=-1)
    text = torch.nn.functional.normalize(torch.randn(4, 6), dim=-1)
    assert counting_loss(image, text, text[:, None].expand(-1, 3, -1), 100.0).item() == pytest.approx(math.log(4))


def test_counting_loss_rejects_unpaired_captions():
    with pytest.raises(ValueError, match="counting_mask"):
        counting_loss(torch.ones(3, 4), torch.ones(3, 4), torch.ones(2, 1, 4))


def test_contrastive_loss_is_clips(counting_model, batch):
    outputs = counting_model(**batch)
    plain = CLIPModel(counting_model.config)
    plain.load_state_dict(counting_model.state_dict())
    names = ("input_ids", "attention_mask", "pixel_values")
    expected = plain.eval()(**{name: batch[name] for name in names}, return_loss=True)
    torch.testing.assert_close(outputs.contrastive_loss, expected.loss)
    torch.testing.assert_close(outputs.logits_per_image, expected.logits_per_image)


def test_forward_combines_the_losses(counting_model, batch):
    counting_model.config.counting_loss_weight = 0.25
    outputs = counting_model(**batch)
    torch.testing.assert_close(outputs.loss, outputs.contrastive_loss + 0.25 * outputs.counting_loss)
    assert outputs.counterfactual_embeds.shape == (2, 2, 64)
    rows = batch["counting_mask"]
    expected = counting_loss(
        outputs.image_embeds[rows],
        outputs.text_embeds[rows],
        outputs.counterfactual_embeds,
        counting_model.logit_scale.exp(),
    )
    torch.testing.assert_close(outputs.counting_loss, expected)


def test_loss_is_the_first_output(counting_model, batch):
    outputs = counting_model(**batch)
    assert next(iter(outputs)) == "loss"
    assert outputs[0] is outputs.loss
    assert counting_model(**batch, return_dict=False)[0] == outputs.loss


def test_arguments_have_clips_order(counting_model, batch):
    ours, clips = (list(inspect.signature(x.forward).parameters.values()) for x in (CLIPForCounting, CLIPModel))
    positional = [x.name for x in ours if x.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert positional == [x.name for x in clips if x.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    plain = CLIPModel(counting_model.config)
    plain.load_state_dict(counting_model.state_dict())
    inputs = (batch["input_ids"], batch["pixel_values"], batch["attention_mask"], None, True, True)
    torch.testing.assert_close(counting_model(*inputs).contrastive_loss, plain.eval()(*inputs).loss)


def test_hidden_states_and_attentions_of_the_towers(counting_model, batch):
    counting_model.set_attn_implementation("eager")
    outputs = counting_model(**batch, output_hidden_states=True, output_attentions=True)
    assert [x.shape[0] for x in outputs.text_model_output.hidden_states] == [8] * 3  # captions and counterfactuals
    assert [tuple(x.shape) for x in outputs.vision_model_output.hidden_states] == [(4, 17, 40)] * 4
    assert [tuple(x.shape) for x in outputs.vision_model_output.attentions] == [(4, 4, 17, 17)] * 3


def test_counterfactuals_are_encoded_as_if_alone(counting_model, batch, counting_processor):
    together = counting_model(**batch).counterfactual_embeds
    alone = counting_model.encode_text(**counting_processor(text=["nine cats"]))
    torch.testing.assert_close(together[0, 1], alone[0], atol=1e-5, rtol=1e-4)


def test_logit_scale_can_be_left_out_of_the_counting_loss(counting_model, batch):
    scaled = counting_model(**batch).counting_loss
    counting_model.config.counting_logit_scale = "none"
    outputs = counting_model(**batch)
    rows = batch["counting_mask"]
    expected = counting_loss(outputs.image_embeds[rows], outputs.text_embeds[rows], outputs.counterfactual_embeds, 1.0)
    torch.testing.assert_close(outputs.counting_loss, expected)
    assert not torch.isclose(outputs.counting_loss, scaled)


@pytest.mark.parametrize("with_empty_tensors", [True, False])
def test_batch_without_counting_rows_has_the_contrastive_loss_alone(counting_model, batch, with_empty_tensors):
    for name in ("counterfactual_input_ids", "counterfactual_attention_mask"):
        batch[name] = torch.zeros(0, 1, 1, dtype=torch.long) if with_empty_tensors else None
    batch["counting_mask"] = torch.zeros(4, dtype=torch.bool) if with_empty_tensors else None
    outputs = counting_model(**batch)
    assert outputs.counting_loss.item() == 0
    torch.testing.assert_close(outputs.loss, outputs.contrastive_loss)
    outputs.loss.backward()
    assert counting_model.visual_projection.weight.grad.isfinite().all()


def test_counting_rows_without_counterfactuals_raise(counting_model, batch):
    batch["counting_mask"] = torch.ones(4, dtype=torch.bool)
    with pytest.raises(ValueError, match="counting_mask"):
        counting_model(**batch)


def test_missing_inputs_are_named(counting_model, batch):
    with pytest.raises(ValueError, match="pixel_values is missing"):
        counting_model(input_ids=batch["input_ids"])


def test_unpaired_loss_raises(counting_model, batch):
    with pytest.raises(ValueError, match="4 images and 3 captions"):
        counting_model(input_ids=batch["input_ids"][:3], pixel_values=batch["pixel_values"], return_loss=True)


def test_clip_checkpoint_loads_and_the_result_loads_as_clip(counting_model, batch, tmp_path):
    CLIPModel(counting_model.config).save_pretrained(tmp_path / "unused")  # a CLIP that shares nothing with ours
    plain = CLIPModel.from_pretrained(tmp_path / "unused")
    plain.config.model_type = "clip"
    plain.save_pretrained(tmp_path / "clip")
    counting = CLIPForCounting.from_pretrained(tmp_path / "clip")
    assert counting.config.model_type == "count_clip"
    counting.save_pretrained(tmp_path / "counting")
    back = CLIPModel.from_pretrained(tmp_path / "counting").eval()
    names = ("input_ids", "attention_mask", "pixel_values")
    inputs = {name: batch[name] for name in names}
    torch.testing.assert_close(back(**inputs).logits_per_image, plain.eval()(**inputs).logits_per_image)
    torch.testing.assert_close(counting.eval()(**inputs).logits_per_image, plain(**inputs).logits_per_image)


def test_towers_load_alone_with_their_projections(counting_model, batch, tmp_path):
    """As `transformers` and diffusion pipelines load them; the width is then read from the tower's configuration."""
    assert counting_model.config.projection_dim != CLIPTextConfig().projection_dim
    counting_model.save_pretrained(tmp_path)
    text_model = CLIPTextModelWithProjection.from_pretrained(tmp_path).eval()
    vision_model = CLIPVisionModelWithProjection.from_pretrained(tmp_path).eval()
    names = ("input_ids", "attention_mask")
    text_embeds = text_model(**{name: batch[name] for name in names}).text_embeds
    image_embeds = vision_model(pixel_values=batch["pixel_values"]).image_embeds
    expected = counting_model(**{name: batch[name] for name in (*names, "pixel_values")})
    for found, unit in ((text_embeds, expected.text_embeds), (image_embeds, expected.image_embeds)):
        torch.testing.assert_close(torch.nn.functional.normalize(found, dim=-1), unit)


def test_density_checkpoint_raises(density_model, tmp_path):
    density_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="clip_count_density"):
        CLIPForCounting.from_pretrained(tmp_path)


def test_attention_implementations_agree(counting_model, batch):
    losses = {}
    for name in ("eager", "sdpa"):
        counting_model.set_attn_implementation(name)
        losses[name] = counting_model(**batch).loss
    torch.testing.assert_close(losses["eager"], losses["sdpa"])


def test_gradient_checkpointing_changes_no_gradient(counting_model, batch):
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            counting_model.gradient_checkpointing_enable()
        counting_model.train()
        counting_model.zero_grad()
        counting_model(**batch).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in counting_model.named_parameters()})
    assert counting_model.is_gradient_checkpointing
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_contrastive_loss_of_perfect_pairs_is_small():
    embeds = torch.eye(5)
    assert image_text_contrastive_loss(embeds, embeds, torch.tensor(100.0)).item() < 1e-6
    assert image_text_contrastive_loss(embeds, embeds, torch.tensor(0.0)).item() == pytest.approx(math.log(5))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"counting_logit_scale": "some"}, "counting_logit_scale"),
        ({"counting_loss_weight": -1.0}, "must not be negative"),
    ],
)
def test_invalid_configurations_raise(fields, named):
    with pytest.raises(Exception, match=named):
        CountCLIPConfig(**fields)


def test_configurations_raise_for_files_of_each_other(counting_model, density_model, tmp_path):
    counting_model.config.save_pretrained(tmp_path / "counting")
    density_model.config.save_pretrained(tmp_path / "density")
    with pytest.raises(ValueError, match="from_clip"):
        CLIPCountDensityConfig.from_pretrained(tmp_path / "counting")
    with pytest.raises(ValueError, match="clip_count_density"):
        CountCLIPConfig.from_pretrained(tmp_path / "density")


def test_similarities_keep_their_digits_under_autocast(counting_model, batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = counting_model(**batch)
        assert outputs.logits_per_image.dtype == torch.float32
    product = outputs.image_embeds.detach().double() @ outputs.text_embeds.detach().double().t()
    scale = counting_model.logit_scale.detach().exp().double()
    torch.testing.assert_close(outputs.logits_per_image.detach().double(), product * scale, rtol=1e-5, atol=1e-5)


def test_processor_converts_every_image_to_upright_rgb(counting_processor):
    grey = np.tile(np.linspace(0, 65535, 40).astype(np.uint16), (30, 1))
    pixels = counting_processor(images=Image.fromarray(grey))["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    assert len(pixels[0, 0].unique()) > 20  # all tones, not black and white alone
    assert counting_processor(images=np.zeros((30, 40), np.uint8))["pixel_values"].shape == (1, 3, 32, 32)
    turned = Image.new("RGB", (40, 20))
    turned.paste((200, 0, 0), (0, 0, 20, 20))
    turned.getexif()[0x0112] = 6
    upright = counting_processor(images=turned)["pixel_values"][0, 0]
    assert upright[:16].mean() > upright[16:].mean()
