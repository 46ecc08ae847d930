"""Promises of the density model: its forward pass, losses, prompts and loading."""

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from count_clip.modeling import modeling_clip_count_density as modeling
from count_clip.modeling.modeling_clip_count_density import (
    CLIPCountDensityModel,
    patch_text_contrastive_loss,
    region_text_contrastive_loss,
    sinusoidal_positions,
)


INTERACTIONS = ["hierarchical", "plain", "add"]


@pytest.fixture
def batch(density_processor, make_image):
    """Two windows with prompts and a target of three and one objects."""
    inputs = dict(density_processor([make_image(48, 48, 1), make_image(48, 48, 2)], ["red apples", "dogs"]))
    labels = torch.zeros(2, 48, 48)
    labels[0, 10, 12] = labels[0, 30, 31] = labels[0, 40, 5] = labels[1, 7, 8] = 1.0
    return {**inputs, "labels": labels}


@pytest.mark.parametrize("interaction", INTERACTIONS)
@pytest.mark.parametrize("prompts", [(0, 0, 0), (5, 1, 2), (5, 2, 0), (3, 3, 1)])
def test_every_configuration_runs_and_counts_what_its_map_sums_to(density_config, batch, interaction, prompts):
    num_visual, depth, num_context = prompts
    model = CLIPCountDensityModel(
        density_config(
            interaction=interaction,
            num_visual_prompts=num_visual,
            visual_prompt_depth=depth or 1,
            num_context_tokens=num_context,
        )
    ).eval()
    outputs = model(**batch)
    assert outputs.density_map.shape == (2, 48, 48)
    assert outputs.similarity_map.shape == (2, 4, 4)
    assert outputs.patch_embeds.shape == (2, 16, 64)
    torch.testing.assert_close(outputs.counts, outputs.density_map.double().sum(dim=(1, 2)).float())
    assert (outputs.density_map >= 0).all()
    assert outputs.loss.isfinite()
    outputs.loss.backward()


def test_density_loss_is_the_mean_squared_error_of_the_scaled_map(density_model, batch):
    outputs = density_model(**batch)
    difference = 60.0 * (outputs.density_map.detach().numpy().astype(np.float64) - batch["labels"].numpy())
    assert outputs.density_loss.item() == pytest.approx((difference**2).mean(), rel=1e-5)
    torch.testing.assert_close(outputs.loss, outputs.density_loss)
    density_model.config.contrastive_loss_weight = 0.5
    outputs = density_model(**batch)
    torch.testing.assert_close(outputs.loss, outputs.density_loss + 0.5 * outputs.contrastive_loss)
    density_model.config.count_loss_weight = 2.0
    outputs = density_model(**batch)
    count_loss = np.abs(outputs.counts.detach().numpy() - [3.0, 1.0]).mean()
    assert outputs.count_loss.item() == pytest.approx(count_loss, rel=1e-5)
    parts = outputs.density_loss + 0.5 * outputs.contrastive_loss + 2.0 * outputs.count_loss
    torch.testing.assert_close(outputs.loss, parts)


@pytest.mark.parametrize("sharpness", [1, 4.0])
def test_softplus_has_the_configured_sharpness(density_config, batch, sharpness):
    config = density_config(density_activation="softplus", density_sharpness=sharpness)
    model = CLIPCountDensityModel(config).eval()
    torch.nn.init.zeros_(model.decoder.density_projection.weight)
    for logit in (-1.5, 0.0, 3.0):
        torch.nn.init.constant_(model.decoder.density_projection.bias, logit)
        scaled = np.log1p(np.exp(sharpness * logit)) / sharpness
        expected = torch.full((2, 48, 48), scaled / config.density_scale)
        torch.testing.assert_close(model(**batch).density_map, expected, rtol=1e-4, atol=0)


def test_contrastive_loss_is_the_share_of_the_positive_patches():
    similarity = np.array([[[0.1, -0.2], [0.3, 0.05]]])
    density = np.zeros((1, 8, 8))
    density[0, 1, 6] = 0.2  # the patch in the first row, second column
    weights = np.exp(similarity[0] / 0.07)
    expected = -np.log((weights[0, 1] + 1e-5) / (weights.sum() + 2e-5))
    loss = patch_text_contrastive_loss(torch.from_numpy(similarity), torch.from_numpy(density))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_contrastive_loss_is_finite_without_objects():
    loss = patch_text_contrastive_loss(torch.zeros(2, 3, 3), torch.zeros(2, 12, 12))
    assert loss.isfinite()


def test_contrastive_loss_of_windows_without_objects_can_be_left_out():
    similarity = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    density = torch.zeros(3, 8, 8)
    density[1, 1, 6] = 0.2
    loss = patch_text_contrastive_loss(similarity, density, count_empty=False)
    loss.backward()
    alone = patch_text_contrastive_loss(similarity[1:2].detach(), density[1:2])
    # It stays a mean over all windows: several processes' losses have the mean that one process has.
    assert loss.item() == pytest.approx(alone.item() / 3, rel=1e-5)
    assert similarity.grad[[0, 2]].abs().max() == 0
    assert similarity.grad[1].abs().max() > 0


def test_region_loss_is_the_cross_entropy_of_the_objects_text():
    generator = np.random.default_rng(0)
    patches, texts = generator.normal(size=(2, 4, 5)), generator.normal(size=(2, 2, 5))
    counts = np.array([[[1.0, 0, 0.5, 0], [0, 2, 0, 0]], [[0, 0, 0, 0], [0, 0, 1, 1]]])
    same = np.eye(4, dtype=bool)
    same[0, 3] = same[3, 0] = True
    losses = []
    for b, t in np.ndindex(2, 2):
        if counts[b, t].sum() == 0:
            losses.append(0.0)
            continue
        region = sum(c * p / np.linalg.norm(p) for c, p in zip(counts[b, t], patches[b], strict=True))
        scores = [
            np.exp(region @ text / np.linalg.norm(region) / np.linalg.norm(text) / 0.2) for text in texts.reshape(4, 5)
        ]
        row = 2 * b + t
        others = [score for column, score in enumerate(scores) if column == row or not same[row, column]]
        losses.append(-np.log(scores[row] / sum(others)))
    loss = region_text_contrastive_loss(
        torch.from_numpy(patches).float(),
        torch.from_numpy(texts).float(),
        torch.from_numpy(counts).float(),
        torch.from_numpy(same),
        temperature=0.2,
    )
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_region_loss_is_included_where_it_has_a_weight(density_config, density_processor):
    model = CLIPCountDensityModel(density_config(region_loss_weight=2.0)).eval()
    pixels, labels = torch.rand(2, 3, 48, 48), torch.zeros(2, 2, 48, 48)
    labels[0, 0, 10:14, 30:34], labels[1, 1, 40:44, 5:9] = 0.5, 0.25
    tokens = density_processor.tokenize(["dogs", "ox", "ox", "red apples"])
    stacked = {name: tensor.unflatten(0, (2, 2)) for name, tensor in tokens.items()}
    outputs = model(pixel_values=pixels, labels=labels, **stacked)
    assert 0 < outputs.region_loss.item() < 10
    torch.testing.assert_close(outputs.loss, outputs.density_loss + 2 * outputs.region_loss)
    by_embeds = model(pixel_values=pixels, labels=labels, text_embeds=outputs.text_embeds)
    torch.testing.assert_close(by_embeds.region_loss, outputs.region_loss)
    outputs.region_loss.backward()
    assert model.text_projection.weight.grad.abs().max() > 0
    assert model.contrastive_patch_projection.weight.grad.abs().max() > 0
    # Without objects there are no classes.
    nothing = model(pixel_values=pixels, labels=torch.zeros(2, 2, 48, 48), **stacked)
    assert nothing.region_loss == 0


def test_contrastive_loss_is_finite_at_low_temperatures():
    similarity = torch.tensor([[[0.95, -0.9], [0.2, 0.1]]], requires_grad=True)
    density = torch.zeros(1, 8, 8)
    density[0, 1, 1] = 1.0
    loss = patch_text_contrastive_loss(similarity, density, temperature=0.01)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert similarity.grad.isfinite().all()


def test_forward_uses_similarities_of_the_patches_it_returns(density_model, batch):
    outputs = density_model(**batch)
    patches, text = outputs.patch_embeds[0].detach().numpy(), outputs.text_embeds[0].detach().numpy()
    cosine = patches @ text / (np.linalg.norm(patches, axis=1) * np.linalg.norm(text))
    np.testing.assert_allclose(outputs.similarity_map[0].detach().numpy().ravel(), cosine, atol=1e-5)


def test_positions_are_sines_and_cosines():
    positions = sinusoidal_positions(5, 6).numpy()
    for position in range(5):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert positions[position, 2 * i] == pytest.approx(np.sin(angle), abs=1e-5)
            assert positions[position, 2 * i + 1] == pytest.approx(np.cos(angle), abs=1e-5)


def test_text_without_context_is_that_of_clip(density_config, counting_model, batch):
    model = CLIPCountDensityModel(density_config(num_context_tokens=0)).eval()
    for name in ("text_model", "text_projection"):
        getattr(model, name).load_state_dict(getattr(counting_model, name).state_dict())
    expected = counting_model.get_text_features(batch["input_ids"], attention_mask=batch["attention_mask"])
    embeds = model.get_text_embeds(batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(embeds, expected.pooler_output, atol=1e-5, rtol=1e-4)


def test_vision_tower_without_prompts_is_that_of_clip(density_config, counting_model, batch):
    model = CLIPCountDensityModel(density_config(num_visual_prompts=0, window_size=32)).eval()
    model.vision_model.load_state_dict(counting_model.vision_model.state_dict())
    pixels = batch["pixel_values"][:, :, :32, :32]
    expected = counting_model.vision_model(pixels).last_hidden_state[:, 1:]
    torch.testing.assert_close(model.get_patch_features(pixels), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("readout", ["eos", "authors"])
@pytest.mark.parametrize("masked", [True, False])
def test_padding_never_changes_a_text(density_config, density_processor, readout, masked):
    model = CLIPCountDensityModel(density_config(text_readout=readout)).eval()
    tokens = density_processor.tokenize(["red apples"])
    short = model.get_text_embeds(tokens["input_ids"], tokens["attention_mask"] if masked else None)
    eos = model.config.text_config.eos_token_id
    padded_ids = torch.nn.functional.pad(tokens["input_ids"], (0, 40 - tokens["input_ids"].shape[1]), value=eos)
    padded_mask = torch.nn.functional.pad(tokens["attention_mask"], (0, 40 - tokens["attention_mask"].shape[1]))
    long = model.get_text_embeds(padded_ids, padded_mask if masked else None)
    torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-4)


def test_one_token_prompts_differ_unless_read_where_the_authors_read(density_config, density_processor):
    tokens = density_processor.tokenize(["a", "b"])  # one token each
    assert tokens["input_ids"].shape[1] == 3
    torch.manual_seed(0)
    model = CLIPCountDensityModel(density_config(text_readout="eos")).eval()
    embeds = model.get_text_embeds(**tokens)
    assert (embeds[0] - embeds[1]).abs().max() > 1e-3
    model.config.text_readout = "authors"
    embeds = model.get_text_embeds(**tokens)
    torch.testing.assert_close(embeds[0], embeds[1])


def test_text_without_positions_for_the_context_raises(density_model, density_processor):
    ids = density_processor.tokenizer(["x " * 38], return_tensors="pt")["input_ids"]
    assert ids.shape[1] == 40
    with pytest.raises(ValueError, match="has 40 tokens"):
        density_model.get_text_embeds(ids)


def test_several_prompts_of_a_window_equal_single_prompts(density_model, density_processor, batch):
    texts = density_model.get_text_embeds(**density_processor.tokenize(["red apples", "dogs", "tall trees"]))
    pixels = batch["pixel_values"]
    together = density_model(pixel_values=pixels, text_embeds=texts.expand(2, -1, -1))
    assert together.density_map.shape == (2, 3, 48, 48)
    assert together.counts.shape == (2, 3)
    for i, text in enumerate(texts):
        alone = density_model(pixel_values=pixels, text_embeds=text.expand(2, -1))
        torch.testing.assert_close(together.density_map[:, i], alone.density_map)
        torch.testing.assert_close(together.similarity_map[:, i], alone.similarity_map)


def test_tokens_of_several_prompts_equal_their_embeddings(density_model, density_processor, batch):
    prompts = ["red apples", "dogs", "tall trees", "ox"]
    tokens = density_processor.tokenize(prompts)
    texts = density_model.get_text_embeds(**tokens).unflatten(0, (2, 2))
    pixels = batch["pixel_values"]
    labels = torch.rand(2, 2, 48, 48) / 100
    expected = density_model(pixel_values=pixels, text_embeds=texts, labels=labels)
    stacked = {name: tensor.unflatten(0, (2, 2)) for name, tensor in tokens.items()}
    outputs = density_model(pixel_values=pixels, **stacked, labels=labels)
    torch.testing.assert_close(outputs.density_map, expected.density_map)
    assert outputs.density_map.shape == (2, 2, 48, 48)
    # All prompts weigh the same in each loss.
    parts = [
        density_model(
            pixel_values=pixels, **{name: tensor[:, i] for name, tensor in stacked.items()}, labels=labels[:, i]
        )
        for i in range(2)
    ]
    for name in ("density_loss", "contrastive_loss", "count_loss"):
        mean = (getattr(parts[0], name) + getattr(parts[1], name)) / 2
        torch.testing.assert_close(getattr(outputs, name), mean)


@torch.no_grad()
@pytest.mark.parametrize("masked", [True, False])
def test_a_prompt_of_many_windows_is_encoded_once(density_model, density_processor, batch, masked):
    tokens = density_processor.tokenize(["red apples", "dogs", "red apples"])
    if not masked:
        del tokens["attention_mask"]
    expected = density_model.get_text_embeds(**tokens)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    encoded = []
    density_model.text_model.register_forward_hook(lambda *x: encoded.append(len(x[-1].last_hidden_state)))
    pixels = batch["pixel_values"][[0, 1, 1]]
    outputs = density_model(pixel_values=pixels, **tokens, output_hidden_states=True)
    assert encoded == [2]
    torch.testing.assert_close(outputs.text_embeds, expected)
    assert outputs.text_hidden_states[0].shape[0] == 3
    torch.testing.assert_close(outputs.text_hidden_states[-1][0], outputs.text_hidden_states[-1][2])


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_many_prompts_have_the_maps_of_few(density_config, batch, monkeypatch, interaction):
    torch.manual_seed(0)
    model = CLIPCountDensityModel(density_config(interaction=interaction)).eval()
    inputs = {"pixel_values": batch["pixel_values"], "text_embeds": torch.randn(2, 5, 64)}
    expected = model(**inputs).density_map
    decoded = []
    model.decoder.register_forward_hook(lambda *x: decoded.append(len(x[-1])))
    monkeypatch.setattr(modeling, "PROMPTS_AT_ONCE", 2)
    torch.testing.assert_close(model(**inputs).density_map, expected)
    assert decoded == [4, 4, 2]


@pytest.mark.parametrize(("num_visual", "depth"), [(0, 1), (5, 1), (5, 2), (5, 3)])
def test_hidden_states_and_attentions_have_the_sizes_of_the_towers(density_config, batch, num_visual, depth):
    config = density_config(num_visual_prompts=num_visual, visual_prompt_depth=depth, num_context_tokens=2)
    model = CLIPCountDensityModel(config).eval()
    plain = model(**batch)
    assert plain.hidden_states is plain.attentions is plain.text_hidden_states is plain.text_attentions is None
    model.set_attn_implementation("eager")
    outputs = model(**batch, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(outputs.loss, plain.loss)
    # A layer sees prompts up to the depth, or all do if the prompts are shallow.
    seen = [1 + 16 + (num_visual if depth == 1 or layer < depth else 0) for layer in range(3)]
    assert [tuple(x.shape) for x in outputs.hidden_states] == [(2, length, 40) for length in [seen[0], *seen]]
    assert [tuple(x.shape) for x in outputs.attentions] == [(2, 4, length, length) for length in seen]
    length = batch["input_ids"].shape[1] + 2
    assert [tuple(x.shape) for x in outputs.text_hidden_states] == [(2, length, 24)] * 3
    assert [tuple(x.shape) for x in outputs.text_attentions] == [(2, 3, length, length)] * 2
    assert outputs.text_attentions[0].triu(diagonal=1).max() == 0
    model.config.output_hidden_states = True
    assert len(model(**batch).hidden_states) == 4
    given = model(pixel_values=batch["pixel_values"], text_embeds=plain.text_embeds)
    assert len(given.hidden_states) == 4
    assert given.text_hidden_states is None


def test_loss_is_the_first_output(density_model, batch):
    outputs = density_model(**batch)
    assert next(iter(outputs)) == "loss"
    assert outputs[0] is outputs.loss
    assert density_model(**batch, return_dict=False)[0] == outputs.loss
    without = {name: value for name, value in batch.items() if name != "labels"}
    assert density_model(**without, return_dict=False)[0].shape == (2, 48, 48)


def test_input_embeddings_are_those_of_the_tokens(density_model):
    assert density_model.get_input_embeddings() is density_model.text_model.embeddings.token_embedding
    new = torch.nn.Embedding(7, 24)
    density_model.set_input_embeddings(new)
    assert density_model.get_input_embeddings() is new


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_different_prompts_give_different_maps(density_config, density_processor, batch, interaction):
    torch.manual_seed(1)
    model = CLIPCountDensityModel(density_config(interaction=interaction)).eval()
    pixels = batch["pixel_values"][:1].expand(2, -1, -1, -1)
    maps = model(pixel_values=pixels, **density_processor.tokenize(["apples", "dogs"])).density_map
    assert (maps[0] - maps[1]).abs().max() > 1e-6


def test_windows_of_other_sizes_need_interpolation_and_keep_their_size(density_model, density_processor):
    pixels = torch.rand(1, 3, 48, 144)
    text = density_processor.tokenize(["dogs"])
    with pytest.raises(ValueError, match="48x144"):
        density_model(pixel_values=pixels, **text)
    outputs = density_model(pixel_values=pixels, **text, interpolate_pos_encoding=True)
    assert outputs.density_map.shape == (1, 48, 144)
    assert outputs.similarity_map.shape == (1, 4, 12)


def test_visual_prompts_change_the_map_and_only_where_they_are(density_config, batch):
    torch.manual_seed(0)
    model = CLIPCountDensityModel(density_config(visual_prompt_depth=2)).eval()
    before = model(**batch).counts
    with torch.no_grad():
        model.visual_prompts.prompt_embeds[1] += 1.0
    assert not torch.allclose(before, model(**batch).counts)
    # After the last layer with prompts, only the patches remain.
    assert model.get_patch_features(batch["pixel_values"]).shape == (2, 16, 40)


@pytest.mark.parametrize("field", ["pixel_values", "input_ids"])
def test_missing_inputs_are_named(density_model, batch, field):
    batch[field] = None
    with pytest.raises(ValueError, match=field):
        density_model(**batch)


def test_labels_of_another_size_raise(density_model, batch):
    batch["labels"] = torch.zeros(2, 32, 32)
    with pytest.raises(ValueError, match=r"\(2, 48, 48\).*\(2, 32, 32\)"):
        density_model(**batch)


def test_prompts_that_do_not_match_the_windows_raise(density_model, batch):
    with pytest.raises(ValueError, match="each of the 2 windows"):
        density_model(pixel_values=batch["pixel_values"], input_ids=batch["input_ids"][:1])


def test_attention_implementations_agree(density_model, batch):
    maps = {}
    for name in ("eager", "sdpa"):
        density_model.set_attn_implementation(name)
        maps[name] = density_model(**batch).density_map
    torch.testing.assert_close(maps["eager"], maps["sdpa"])


def test_gradient_checkpointing_changes_no_gradient(density_config, batch):
    torch.manual_seed(0)
    model = CLIPCountDensityModel(
        density_config(interaction_dropout=0.0, visual_prompt_dropout=0.0, contrastive_loss_weight=1.0)
    ).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert model.is_gradient_checkpointing
    assert "vision_model.encoder.layers.0.mlp.fc1.weight" in gradients[0]
    assert "interaction.text_layers.1.mlp.0.weight" in gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_every_new_parameter_takes_part_in_training(density_config, batch):
    for interaction in INTERACTIONS:
        model = CLIPCountDensityModel(density_config(interaction=interaction, contrastive_loss_weight=1.0)).train()
        model(**batch).loss.backward()
        # The tower's last norm belongs to its class token, which the patches' path never reads.
        without = {name for name, p in model.named_parameters() if p.grad is None}
        assert without == {"vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias"}


def test_save_and_load_give_the_same_map(density_model, batch, tmp_path):
    density_model.save_pretrained(tmp_path)
    loaded = CLIPCountDensityModel.from_pretrained(tmp_path)
    for name, tensor in density_model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0, msg=name)
    # Not to the last bit: the order of a sum depends on the alignment in memory.
    torch.testing.assert_close(loaded(**batch).density_map, density_model(**batch).density_map)


def test_bfloat16_is_close_and_counts_in_float32(density_model, batch):
    expected = density_model(**batch).counts
    outputs = density_model.to(torch.bfloat16)(**batch)
    assert outputs.density_map.dtype == torch.float32
    torch.testing.assert_close(outputs.counts, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("model_name", ["clip", "count_clip"])
def test_from_clip_takes_the_towers(counting_model, density_processor, batch, tmp_path, model_name):
    clip = counting_model
    if model_name == "clip":
        clip = CLIPModel(counting_model.config)
        clip.config.model_type = "clip"
    clip.save_pretrained(tmp_path)
    model = CLIPCountDensityModel.from_clip(
        str(tmp_path), window_size=48, visual_prompt_depth=3, num_norm_groups=4, num_visual_prompts=6
    )
    assert model.config.model_type == "clip_count_density"
    for name in ("text_model", "vision_model", "text_projection"):
        for key, tensor in getattr(clip, name).state_dict().items():
            torch.testing.assert_close(getattr(model, name).state_dict()[key], tensor, rtol=0, atol=0)
    assert model(**batch).loss.isfinite()


def test_from_clip_raises_for_a_density_checkpoint(density_model, tmp_path):
    density_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="from_pretrained"):
        CLIPCountDensityModel.from_clip(str(tmp_path))


def test_counting_checkpoint_raises(counting_model, tmp_path):
    counting_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="from_clip"):
        CLIPCountDensityModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"interaction": "sum"}, "interaction"),
        ({"text_readout": "cls"}, "text_readout"),
        ({"density_activation": "relu"}, "density_activation"),
        ({"density_sharpness": 0}, "density_sharpness"),
        ({"visual_prompt_depth": 4}, "visual_prompt_depth"),
        ({"num_context_tokens": 38}, "leaves no positions"),
        ({"num_norm_groups": 8}, "projection_dim"),
        ({"num_interaction_heads": 7}, "num_interaction_heads"),
        ({"window_size": 0}, "window_size"),
        ({"contrastive_temperature": 0}, "contrastive_temperature"),
        ({"interaction": "plain", "num_interaction_layers": 0}, "num_interaction_layers"),
    ],
)
def test_invalid_configurations_raise(density_config, fields, named):
    with pytest.raises(Exception, match=named):
        density_config(**fields)


@pytest.mark.parametrize("tower", ["vision_model", "text_model"])
def test_new_towers_are_initialised_as_those_of_clip(density_config, tower):
    config = density_config()
    torch.manual_seed(0)
    expected = getattr(CLIPModel(config), tower).state_dict()
    found = getattr(CLIPCountDensityModel(config), tower).state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        if weight.is_floating_point() and weight.numel() > 500:
            assert found[name].std().item() == pytest.approx(weight.std().item(), rel=0.15), name
