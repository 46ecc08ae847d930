"""The maps against a second implementation: the towers written out in float64, gradients by finite differences."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel

from count_clip.evaluation.relevance.explain import counterfactuals_of, end_of_text, explain, roll_out


CAPTION = "Two red dogs"


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.fixture
def model(counting_model):
    """Larger weights than the fresh ones, so that attention and its gradients are not all alike."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in counting_model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(8)
            elif parameter.dim() > 1:
                parameter.mul_(1.5)
    return counting_model


class _Written:
    """The towers step by step, in float64; `nudges[i]` is added to the attention of layer `i`."""

    def __init__(self, model, tower):
        config = getattr(model.config, f"{tower}_config")
        prefix = f"{tower}_model."
        state = {name: value.double() for name, value in model.state_dict().items()}
        self.weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        self.projection = state["visual_projection.weight" if tower == "vision" else "text_projection.weight"]
        self.heads, self.layers, self.tower = config.num_attention_heads, config.num_hidden_layers, tower

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def start(self, inputs):
        """The first hidden states of one image `(3, H, W)` or of one text's token ids, `(L, D)`."""
        if self.tower == "text":
            positions = self.weights["embeddings.position_embedding.weight"][: len(inputs)]
            return self.weights["embeddings.token_embedding.weight"][inputs] + positions
        kernel = self.weights["embeddings.patch_embedding.weight"]
        side = kernel.shape[-1]
        patches = [
            (kernel * inputs[None, :, y : y + side, x : x + side]).sum(dim=(1, 2, 3))
            for y in range(0, inputs.shape[1], side)
            for x in range(0, inputs.shape[2], side)
        ]
        tokens = torch.stack([self.weights["embeddings.class_embedding"], *patches])
        return self.norm("pre_layrnorm", tokens + self.weights["embeddings.position_embedding.weight"])

    def attention(self, name, x, nudge):
        length, width = x.shape
        query, key, value = (
            self.linear(f"{name}.{which}_proj", x).view(length, self.heads, -1).transpose(0, 1) for which in "qkv"
        )
        logits = query @ key.transpose(1, 2) / (width // self.heads) ** 0.5
        if self.tower == "text":
            logits = logits.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        weights = torch.exp(logits - logits.max(-1, keepdim=True).values)
        weights = weights / weights.sum(-1, keepdim=True) + nudge
        mixed = (weights @ value).transpose(0, 1).reshape(length, width)
        return self.linear(f"{name}.out_proj", mixed), weights

    def __call__(self, inputs, end, nudges):
        """The unit embedding, and the attention `(heads, L, L)` of each layer."""
        x, attentions = self.start(inputs), []
        for layer, nudge in enumerate(nudges):
            name = f"encoder.layers.{layer}"
            mixed, weights = self.attention(f"{name}.self_attn", self.norm(f"{name}.layer_norm1", x), nudge)
            attentions.append(weights)
            x = x + mixed
            inner = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.layer_norm2", x))
            x = x + self.linear(f"{name}.mlp.fc2", inner * torch.sigmoid(1.702 * inner))
        last = self.norm("post_layernorm" if self.tower == "vision" else "final_layer_norm", x[end])
        embed = self.projection @ last
        return embed / embed.norm(), attentions

    def still(self, inputs):
        length = len(self.start(inputs))
        return [torch.zeros(self.heads, length, length, dtype=torch.float64) for _ in range(self.layers)]


class _Pair:
    """One image and one caption through the written towers, with a score and its gradients."""

    def __init__(self, model, processor, image, text, wrong=()):
        self.vision, self.text = _Written(model, "vision"), _Written(model, "text")
        self.pixels = processor(images=image)["pixel_values"][0].double()
        self.ids = torch.tensor(processor.tokenizer(text)["input_ids"])
        self.scale = model.logit_scale.detach().double().exp()
        self.nudges = [self.vision.still(self.pixels), self.text.still(self.ids)]
        self.wrong = []
        for other in wrong:
            ids = torch.tensor(processor.tokenizer(other)["input_ids"])
            self.wrong.append(self.text(ids, len(ids) - 1, self.text.still(ids))[0])

    def score(self):
        image, self.of_vision = self.vision(self.pixels, 0, self.nudges[0])
        text, self.of_text = self.text(self.ids, len(self.ids) - 1, self.nudges[1])
        score = self.scale * (image @ text)
        if self.wrong:
            score = score - torch.log(sum(torch.exp(self.scale * (image @ other)) for other in self.wrong))
        return score

    def relevance(self, tower, start_layer=0):
        """The rolled-out matrix of one tower, by loops."""
        for nudges in self.nudges:
            for nudge in nudges:
                nudge.requires_grad_()
        gradients = torch.autograd.grad(self.score(), self.nudges[tower])
        attentions = (self.of_vision, self.of_text)[tower]
        length = attentions[0].shape[-1]
        rolled = np.eye(length)
        for layer in range(start_layer, len(attentions)):
            mean = np.zeros((length, length))
            for head in range(attentions[layer].shape[0]):
                product = (gradients[layer][head] * attentions[layer][head]).detach().numpy()
                mean += np.where(product > 0, product, 0) / attentions[layer].shape[0]
            rolled = rolled + mean @ rolled
        return rolled


@pytest.mark.parametrize("score", ["similarity", "margin"])
@pytest.mark.parametrize("start_layer", [0, 1, -1])
def test_maps_agree_with_a_plain_implementation(model, counting_processor, images, score, start_layer):
    texts = [CAPTION, "a photo of seven small dogs", "ten X"]
    found = explain(model, counting_processor, images, texts, score=score, start_layer=start_layer)
    for image, text, relevance in zip(images, texts, found, strict=True):
        wrong = counterfactuals_of(text) if score == "margin" else ()
        pair = _Pair(model, counting_processor, image, text, wrong)
        assert relevance.score == pytest.approx(float(pair.score()), abs=1e-4)
        of_patches = pair.relevance(0, start_layer % 3)[0, 1:].reshape(4, 4)
        of_tokens = pair.relevance(1, start_layer % 2)[-1, 1:-1]
        assert of_patches.max() > 1e-3
        np.testing.assert_allclose(relevance.patches, of_patches, rtol=2e-3, atol=1e-5 * of_patches.max())
        np.testing.assert_allclose(relevance.tokens, of_tokens, rtol=2e-3, atol=1e-5 * of_tokens.max())


def test_gradients_of_attention_agree_with_finite_differences(model, counting_processor, images):
    """The reference of the test above leans on autograd; here an attention is moved and the score measured."""
    pair = _Pair(model, counting_processor, images[0], CAPTION)
    for nudges in pair.nudges:
        for nudge in nudges:
            nudge.requires_grad_()
    step, checked = 1e-5, 0
    for tower, nudges in enumerate(pair.nudges):
        gradients = torch.autograd.grad(pair.score(), nudges)
        for layer, gradient in enumerate(gradients):
            for head in range(gradient.shape[0]):
                flat = gradient[head].abs().argmax()
                row, column = divmod(int(flat), gradient.shape[-1])
                scores = []
                for sign in (1, -1):
                    with torch.no_grad():
                        pair.nudges[tower][layer][head, row, column] = sign * step
                        scores.append(float(pair.score()))
                        pair.nudges[tower][layer][head, row, column] = 0
                slope = (scores[0] - scores[1]) / (2 * step)
                assert slope == pytest.approx(float(gradient[head, row, column]), rel=1e-4, abs=1e-8)
                checked += abs(slope) > 1e-4
    assert checked > 10


def test_padding_changes_nothing_and_has_no_relevance(model, counting_processor, images):
    texts = ["two", "a photo of three rather long words", "ten X"]
    together = explain(model, counting_processor, images, texts)
    for image, text, relevance in zip(images, texts, together, strict=True):
        (alone,) = explain(model, counting_processor, [image], [text])
        assert len(relevance.tokens) == len(text.replace(" ", ""))
        assert [text[start:end] for start, end in relevance.spans] == list(text.replace(" ", ""))
        np.testing.assert_allclose(relevance.tokens, alone.tokens, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(relevance.patches, alone.patches, rtol=1e-3, atol=1e-6)


def test_words_sum_the_shares_of_their_tokens(model, counting_processor, images):
    (relevance,) = explain(model, counting_processor, images[:1], ["Two  red dogs, 2x"])
    words = relevance.words()
    assert [word.text for word in words] == ["Two", "red", "dogs", ",", "2", "x"]
    assert words[1].share == pytest.approx(float(relevance.tokens[3:6].sum() / relevance.tokens.sum()), rel=1e-5)
    assert sum(word.share for word in words) == pytest.approx(1)
    assert relevance.tokens_between(5, 8).tolist() == [False] * 3 + [True] * 3 + [False] * 7
    content = relevance.to_dict()
    assert np.sum(content["patch_shares"]) == pytest.approx(1)
    assert content["seen_box"] == [0, 0, 32, 32]


def test_margin_changes_the_patches_and_not_the_tokens(model, counting_processor, images):
    similarity, margin = (
        explain(model, counting_processor, images[:1], [CAPTION], score=score)[0] for score in ("similarity", "margin")
    )
    np.testing.assert_allclose(similarity.token_shares(), margin.token_shares(), rtol=1e-3)
    assert np.abs(similarity.patch_shares() - margin.patch_shares()).max() > 0.01


def test_a_plain_clip_with_the_same_weights_has_the_same_relevance(model, counting_processor, images, tmp_path):
    model.save_pretrained(tmp_path)
    plain = CLIPModel.from_pretrained(tmp_path)
    texts = [CAPTION] * 3
    for ours, theirs in zip(
        explain(model, counting_processor, images, texts),
        explain(plain, counting_processor, images, texts, batch_size=2),
        strict=True,
    ):
        np.testing.assert_allclose(ours.patches, theirs.patches, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(ours.tokens, theirs.tokens, rtol=1e-3, atol=1e-6)


def test_bfloat16_agrees_with_float32(model, counting_processor, images):
    texts = [CAPTION] * 3
    exact = explain(model, counting_processor, images, texts)
    rough = explain(model, counting_processor, images, texts, dtype=torch.bfloat16)
    for one, other in zip(exact, rough, strict=True):
        assert other.patches.dtype == np.float32
        assert np.abs(one.patch_shares() - other.patch_shares()).max() < 0.05
        assert np.abs(one.token_shares() - other.token_shares()).max() < 0.05


def test_the_model_is_left_as_it_was(model, counting_processor, images):
    model.set_attn_implementation({"": "sdpa", "vision_config": "sdpa", "text_config": "eager"})
    model.train()
    model.requires_grad_(False)  # frozen weights are explained, too
    (relevance,) = explain(model, counting_processor, images[:1], [CAPTION])
    assert relevance.patches.any()
    assert relevance.tokens.any()
    assert model.training
    assert model.vision_model.config._attn_implementation == "sdpa"
    assert model.text_model.config._attn_implementation == "eager"
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    assert not model.vision_model.embeddings._forward_hooks
    assert not model.text_model.embeddings._forward_hooks


def test_explains_with_gradients_off(model, counting_processor, images):
    with torch.no_grad():
        (one,) = explain(model, counting_processor, images[:1], [CAPTION], score="margin")
    assert one.patches.any()


def test_end_of_text_is_where_the_tower_reads():
    ids = torch.tensor([[9, 4, 8, 8], [9, 8, 8, 8], [9, 4, 5, 8]])
    assert end_of_text(ids, 8).tolist() == [2, 1, 3]
    assert end_of_text(torch.tensor([[7, 3, 9, 0], [7, 9, 0, 0]]), 2).tolist() == [2, 1]


def test_roll_out_by_hand():
    attention = torch.tensor([[[[0.5, 0.5], [0.25, 0.75]], [[1.0, 0.0], [0.5, 0.5]]]])
    gradient = torch.tensor([[[[2.0, -2.0], [4.0, 0.0]], [[1.0, 9.0], [-1.0, 2.0]]]])
    # Positive products: [[1, 0], [1, 0]] and [[1, 0], [0, 1]]; their mean: [[1, 0], [0.5, 0.5]].
    once = roll_out([attention], [gradient])
    assert once.tolist() == [[[2.0, 0.0], [0.5, 1.5]]]
    twice = roll_out([attention, attention], [gradient, gradient])
    assert twice.tolist() == [[[4.0, 0.0], [1.75, 2.25]]]
    assert torch.equal(roll_out([attention, attention], [gradient, gradient], start_layer=1), once)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"texts": ["x" * 39]}, "41 tokens.*reads 40.*Shorten it"),
        ({"texts": [" "]}, "the text is empty"),
        ({"texts": ["a", "b"]}, "caption for each image, but got 2 for 1"),
        ({"score": "fit"}, "one of similarity, margin, but got 'fit'"),
        ({"start_layer": 2}, "from 0 to 1, or from -2 to -1.*3 \\(images\\) and 2 \\(texts\\)"),
        ({"score": "margin", "texts": ["some dogs"]}, "states no number from two to ten"),
        ({"batch_size": 0}, "`batch_size` of at least 1"),
        ({"images": ["nowhere.png"]}, "There is no file nowhere.png"),
    ],
)
def test_bad_input_is_named(model, counting_processor, images, options, words):
    arguments = {"images": images[:1], "texts": [CAPTION], **options}
    with pytest.raises(ValueError, match=words):
        explain(model, counting_processor, **arguments)


def test_broken_weights_are_an_error(model, counting_processor, images):
    with torch.no_grad():
        model.visual_projection.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite: its weights are broken"):
        explain(model, counting_processor, images[:1], [CAPTION])


def test_a_model_without_two_towers_is_rejected(counting_processor, images):
    with pytest.raises(TypeError, match="Expected a CLIP model"):
        explain(torch.nn.Linear(2, 2), counting_processor, images[:1], [CAPTION])


def test_prompts_of_an_adapter_are_rejected(model, counting_processor, images):
    from peft import get_peft_model

    from count_clip.modeling.prompt_tuning import VisualPromptConfig

    adapted = get_peft_model(copy.deepcopy(model), VisualPromptConfig(num_virtual_tokens=2))
    with pytest.raises(ValueError, match="17 tokens.*tower for images.*19.*disable the adapter"):
        explain(adapted.get_base_model(), counting_processor, images[:1], [CAPTION])
