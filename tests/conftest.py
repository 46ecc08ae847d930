"""Tiny models, processors and images, built from configurations in which all sizes differ."""

import os


# Before anything of Hugging Face is imported: no test may reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import copy
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModel, AutoProcessor, CLIPTokenizer
from transformers.models.clip import CLIPImageProcessorPil

from count_clip.modeling.configuration_clip_count_density import CLIPCountDensityConfig
from count_clip.modeling.configuration_count_clip import CountCLIPConfig
from count_clip.modeling.image_processing_clip_count_density import CLIPCountDensityImageProcessorPil
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.modeling_count_clip import CLIPForCounting
from count_clip.modeling.processing_clip_count_density import CLIPCountDensityProcessor
from count_clip.modeling.processing_count_clip import CountCLIPProcessor


REPOSITORY = Path(__file__).resolve().parents[1]
MAX_LENGTH = 40


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data beside the checkout; tests that need it are skipped elsewhere."""
    path = REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip("no real data beside this checkout")
    return path


@pytest.fixture
def hub() -> Iterator[Any]:
    """A Hub on this machine, see `hub_stand_in.HubStandIn`; processes started with its `environment` talk to it."""
    with _stand_in("hub_stand_in").HubStandIn() as running:
        yield running


@pytest.fixture
def web() -> Iterator[Any]:
    """A web server on this machine, see `web_stand_in.WebStandIn`."""
    with _stand_in("web_stand_in").WebStandIn() as running:
        yield running


def _stand_in(name: str) -> Any:
    # Tests are no package to import from.
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hub_here(hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """
    The same for this process, which otherwise may not reach for the network.

    A process remembers which commit a branch named: read what was pushed as `main` under a name of its own.
    """
    from huggingface_hub import constants, hf_api
    from transformers.utils import hub as transformers_hub

    monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
    # transformers keeps an interface of its own, with the URL from its import.
    monkeypatch.setattr(transformers_hub, "_hf_api", None)
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    hosts = constants.HF_URL_HOSTS | {"127.0.0.1"}
    monkeypatch.setattr(constants, "HF_URL_HOSTS", hosts)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return hub


REMOTE = """
import importlib.util, json, sys
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoProcessor

assert importlib.util.find_spec("count_clip") is None, "this process can import the package"
config, model, processor = (
    auto.from_pretrained(sys.argv[1], trust_remote_code=True) for auto in (AutoConfig, AutoModel, AutoProcessor)
)
with torch.no_grad():
    outputs = model.eval()(**processor([Image.new("RGB", (70, 50), (200, 30, 90))], ["two dogs"]))
value = outputs.counts if "counts" in outputs else outputs.logits_per_image
names = [type(one).__name__ for one in (config, model, processor)]
print("RESULT", json.dumps(names), value.flatten().tolist(), sep="|")
"""


@pytest.fixture
def check_remote_code(tmp_path: Path) -> Callable[[Path], None]:
    """Check that a process without this package loads a folder with `trust_remote_code` and gets the same numbers."""

    def check(folder: Path) -> None:
        environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
        environment.pop("PYTHONPATH", None)
        # An editable install is found through a hook in site-packages: the child takes the packages without it.
        site = next(path for path in sys.path if path.endswith("site-packages"))
        command = [sys.executable, "-S", "-c", f"import sys; sys.path.append({site!r})\n{REMOTE}", str(folder)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=55, check=False
        )
        assert done.returncode == 0, done.stderr
        line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
        names, values = map(json.loads, line.split("|")[1:])
        model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
        assert names == [type(one).__name__ for one in (model.config, model, processor)]
        with torch.no_grad():
            outputs = model(**processor([Image.new("RGB", (70, 50), (200, 30, 90))], ["two dogs"]))
        expected = outputs.counts if "counts" in outputs else outputs.logits_per_image
        torch.testing.assert_close(torch.tensor(values), expected.flatten())

    return check


@pytest.fixture(scope="session")
def tokenizer() -> CLIPTokenizer:
    """A byte-level CLIP tokenizer without merges: a token a character."""
    alphabet = sorted(ByteLevel.alphabet())
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=MAX_LENGTH)


@pytest.fixture(scope="session")
def tower_sizes(tokenizer: CLIPTokenizer) -> dict:
    """The two towers and the projection of the tiny models."""
    return {
        "text_config": {
            "hidden_size": 24,
            "intermediate_size": 36,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": MAX_LENGTH,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "vision_config": {
            "hidden_size": 40,
            "intermediate_size": 56,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
        "projection_dim": 64,
    }


@pytest.fixture(scope="session")
def _counting_model(tower_sizes: dict) -> CLIPForCounting:
    torch.manual_seed(0)
    return CLIPForCounting(CountCLIPConfig(**copy.deepcopy(tower_sizes))).eval()


@pytest.fixture
def counting_model(_counting_model: CLIPForCounting) -> CLIPForCounting:
    """A tiny counting CLIP, a fresh copy for each test."""
    return copy.deepcopy(_counting_model)


@pytest.fixture(scope="session")
def counting_processor(tokenizer: CLIPTokenizer) -> CountCLIPProcessor:
    """The processor of the tiny counting CLIP."""
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return CountCLIPProcessor(image_processor, tokenizer, max_text_length=MAX_LENGTH)


@pytest.fixture(scope="session")
def density_config(tower_sizes: dict) -> Callable[..., CLIPCountDensityConfig]:
    """Configurations of tiny density models; keyword arguments replace fields."""

    def build(**fields: object) -> CLIPCountDensityConfig:
        defaults: dict = {
            "window_size": 48,
            "num_norm_groups": 2,
            "num_interaction_heads": 8,
            "num_interaction_layers": 2,
            "num_visual_prompts": 5,
            "visual_prompt_depth": 2,
            "num_context_tokens": 2,
        }
        return CLIPCountDensityConfig(**copy.deepcopy(tower_sizes), **{**defaults, **fields})

    return build


@pytest.fixture(scope="session")
def _density_model(density_config: Callable[..., CLIPCountDensityConfig]) -> CLIPCountDensityModel:
    torch.manual_seed(0)
    return CLIPCountDensityModel(density_config()).eval()


@pytest.fixture
def density_model(_density_model: CLIPCountDensityModel) -> CLIPCountDensityModel:
    """A tiny density model, a fresh copy for each test."""
    return copy.deepcopy(_density_model)


@pytest.fixture(scope="session")
def density_processor(tokenizer: CLIPTokenizer) -> CLIPCountDensityProcessor:
    """The processor of the tiny density model."""
    return CLIPCountDensityProcessor(
        CLIPCountDensityImageProcessorPil(window_size=48), tokenizer, num_context_tokens=2, max_text_length=MAX_LENGTH
    )


@pytest.fixture
def make_image() -> Callable[..., Image.Image]:
    """Images of random pixels, of any size."""

    def draw(width: int, height: int, seed: int = 0) -> Image.Image:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    return draw


@pytest.fixture(scope="session")
def owl_folder(tokenizer: CLIPTokenizer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny open-vocabulary detector that was never trained, but runs: its boxes depend on image and words."""
    from transformers import OwlViTConfig, OwlViTForObjectDetection, OwlViTProcessor
    from transformers.models.owlvit import OwlViTImageProcessorPil

    torch.manual_seed(1)
    tower = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": MAX_LENGTH, "pad_token_id": 0}
    words = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = OwlViTConfig(
        text_config={**tower, **text, **words},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    model = OwlViTForObjectDetection(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:  # as small as they are initialised, all scores are alike
                torch.nn.init.normal_(weight, std=1.5 * weight[0].numel() ** -0.5)
    folder = tmp_path_factory.mktemp("owl")
    model.save_pretrained(folder)
    images = OwlViTImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    OwlViTProcessor(images, copy.deepcopy(tokenizer)).save_pretrained(folder)
    return str(folder)
