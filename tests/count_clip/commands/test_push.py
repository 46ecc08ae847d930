"""`count-clip push`, against a Hub on this machine that speaks the real one's protocol."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, constants
from peft import LoraConfig, get_peft_model
from safetensors.torch import load, load_file, save_file
from transformers import AutoModel, AutoProcessor

from count_clip import AdapterStack, CLIPForCounting, ContextPromptConfig, VisualPromptConfig
from count_clip.cli import main


SECRET = "hf_qKbR7secretTokenWxYz"

# Runs the code blocks of a card, one after the other, in a process that cannot import the package but for the first.
READ_CARD = """
import json, re, sys
from huggingface_hub import hf_hub_download

site, name, with_package = sys.argv[1:]
if with_package == "no":
    import importlib.abc

    class Blocker(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname, path=None, target=None):
            if fullname.split(".")[0] == "count_clip":
                raise ImportError("this process may not import count_clip")

    sys.meta_path.insert(0, Blocker())
text = open(hf_hub_download(name, "README.md"), encoding="utf-8").read()
blocks = re.findall(r"```python\\n(.*?)```", text, re.DOTALL)
chosen = [block for block in blocks if ("import count_clip" in block) == (with_package == "yes")]
assert chosen, text
import torch
from PIL import Image
found = []
for block in chosen:
    names = {}
    exec(block, names)
    model, processor = names["model"].eval(), names["processor"]
    inputs = processor(images=[Image.new("RGB", (70, 50), (200, 30, 90))], text=["two dogs"], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    values = outputs.counts if "counts" in outputs else outputs.logits_per_image
    found.append([type(model).__name__, type(model).__module__.split(".")[0], values.flatten().tolist()])
print("RESULT", json.dumps(found))
"""


@pytest.fixture
def push(hub_here: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`count-clip push` with a token that must be seen nowhere."""
    hub_here.tokens[SECRET] = "write"
    monkeypatch.setenv("HF_TOKEN", SECRET)
    return lambda folder, name="org/model", *more: main(["push", str(folder), name, "--yes", *more])


@pytest.fixture
def copied(density_folder: str, counting_folder: str, tmp_path: Path) -> Callable[[str], Path]:
    """A folder that a test may change."""

    def copy(name: str) -> Path:
        source = {"density": density_folder, "counting": counting_folder}[name]
        return Path(shutil.copytree(source, tmp_path / "folders" / name, dirs_exist_ok=True))

    return copy


def pulled(hub: Any, folder: Path, name: str = "org/model") -> Path:
    """What a repository holds now, as a folder: within one process the client remembers what `main` was."""
    folder.mkdir()
    for path, content in hub.files("model", name).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def read_card(hub: Any, home: Path, name: str, with_package: bool) -> list[list[Any]]:
    home.mkdir()
    site = next(path for path in sys.path if path.endswith("site-packages"))
    from PIL import Image

    Image.new("RGB", (70, 50), (200, 30, 90)).save(home / "image.png")
    environment = {**os.environ, **hub.environment, "HF_HOME": str(home), "HF_TOKEN": SECRET}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", READ_CARD, site, name, "yes" if with_package else "no"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=home,
        timeout=140,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert "RESULT " in done.stdout, done.stdout[-1000:] + done.stderr[-3000:]
    assert "[y/N]" not in done.stdout, "a prompt about remote code was shown"
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


@pytest.mark.parametrize("name", ["counting", "density"])
@pytest.mark.timeout(300)  # two processes that import torch and transformers
def test_pushed_model_loads_in_a_fresh_process_in_every_way_of_its_card(
    name: str, push: Callable, hub: Any, copied: Callable, tmp_path: Path
) -> None:
    folder = copied(name)
    assert push(folder) == 0
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    from PIL import Image

    inputs = processor(images=[Image.new("RGB", (70, 50), (200, 30, 90))], text=["two dogs"], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    expected = (outputs.counts if name == "density" else outputs.logits_per_image).flatten()
    remote = read_card(hub, tmp_path / "without", "org/model", with_package=False)
    local = read_card(hub, tmp_path / "with", "org/model", with_package=True)
    for _, _, values in [*remote, *local]:
        torch.testing.assert_close(torch.tensor(values), expected, rtol=1e-4, atol=1e-5)
    own = type(model).__name__
    assert [one[:2] for one in local] == [[own, "count_clip"]]
    plain = [["CLIPModel", "transformers"]] if name == "counting" else []
    assert [one[:2] for one in remote] == [[own, "transformers_modules"], *plain]


def test_push_brings_code_card_and_safetensors_and_leaves_the_rest(
    push: Callable, hub: Any, copied: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = copied("counting")
    for name in ("training_args.bin", "notes.txt", "optimizer.pt"):
        (folder / name).write_text("x")
    (folder / "checkpoint-3").mkdir()
    (folder / "checkpoint-3" / "model.safetensors").write_bytes(b"x")
    assert push(folder, "org/model", "--license", "apache-2.0") == 0
    files = hub.files("model", "org/model")
    assert set(files) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "configuration_count_clip.py",
        "counting_engine.py",
        "model.safetensors",
        "modeling_count_clip.py",
        "images.py",
        "pipeline_caption_counting.py",
        "pipeline_images.py",
        "processing_count_clip.py",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads(files["config.json"])
    assert config["auto_map"]["AutoModel"] == "modeling_count_clip.CLIPForCounting"
    assert config["auto_map"]["AutoModelForZeroShotImageClassification"] == "modeling_count_clip.CLIPForCounting"
    data = ModelCard(files["README.md"].decode()).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "apache-2.0",
        "transformers",
        "zero-shot-image-classification",
    )
    printed = capsys.readouterr()
    assert f"pushed: {hub.url}/org/model/commit/" in printed.out
    assert "not pushed: notes.txt, optimizer.pt" in printed.err
    everything = b"".join([*files.values(), printed.out.encode(), printed.err.encode()])
    assert SECRET.encode() not in everything
    assert str(tmp_path).encode() not in b"".join(files.values()), "a folder of this machine was published"
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".md") == [], "the folder was changed"


def test_pushing_again_sends_only_what_has_changed(
    push: Callable, hub: Any, copied: Callable, capsys: pytest.CaptureFixture
) -> None:
    folder = copied("density")
    assert push(folder) == 0
    uploads = [request for request in hub.requests if request.startswith("PUT /upload")]
    assert len(uploads) == 1
    assert push(folder) == 0
    assert "nothing has changed" in capsys.readouterr().out
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "density_scale": 61.0}))
    assert push(folder) == 0
    repository = hub.repositories["model", "org/model"]
    assert repository.sent[1:] == [{"config.json"}], "an empty commit, or files that have not changed"
    assert [request for request in hub.requests if request.startswith("PUT /upload")] == uploads
    assert json.loads(hub.files("model", "org/model")["config.json"])["density_scale"] == 61.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("trained_in", [torch.float32, torch.bfloat16])
def test_weights_are_written_in_the_chosen_type(
    dtype: str, trained_in: torch.dtype, push: Callable, hub: Any, tmp_path: Path, density_model, density_processor
) -> None:
    density_model.to(trained_in).save_pretrained(tmp_path / "model")
    density_processor.save_pretrained(tmp_path / "model")
    assert push(tmp_path / "model", "org/model", "--dtype", dtype) == 0
    files = hub.files("model", "org/model")
    tensors = load(files["model.safetensors"])
    wanted = getattr(torch, dtype)
    assert {tensor.dtype for tensor in tensors.values()} == {wanted}
    expected = {name: tensor.to(wanted) for name, tensor in density_model.state_dict().items()}
    assert expected.keys() == tensors.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
    assert json.loads(files["config.json"])["dtype"] == dtype
    assert AutoModel.from_pretrained(pulled(hub, tmp_path / "pulled")).dtype == wanted
    assert f"in {dtype}" in files["README.md"].decode()
    if dtype != "float32":
        assert 'dtype="float32"' in files["README.md"].decode()


def test_values_that_a_type_cannot_hold_are_refused(
    push: Callable, hub: Any, copied: Callable, capsys: pytest.CaptureFixture
) -> None:
    folder = copied("density")
    tensors = load_file(folder / "model.safetensors")
    tensors["visual_prompts.norm.bias"][0] = 1e6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert push(folder, "org/model", "--dtype", "float16") == 2
    printed = capsys.readouterr().err
    assert "visual_prompts.norm.bias" in printed
    assert "Use bfloat16" in printed
    assert ("model", "org/model") not in hub.repositories


def test_weights_in_shards_and_pickles_become_whole_safetensors(
    push: Callable, hub: Any, copied: Callable, counting_model: CLIPForCounting, tmp_path: Path
) -> None:
    folder = copied("counting")
    assert push(folder) == 0
    (folder / "model.safetensors").unlink()
    counting_model.save_pretrained(folder, max_shard_size="100KB")
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert push(folder, "org/model", "--dtype", "bfloat16") == 0
    files = hub.files("model", "org/model")
    assert sorted(name for name in files if name.endswith(".safetensors")) == shards, "the whole file is stale"
    index = json.loads(files["model.safetensors.index.json"])
    assert index["metadata"]["total_size"] == 2 * sum(p.numel() for p in counting_model.parameters())
    assert AutoModel.from_pretrained(pulled(hub, tmp_path / "pulled")).dtype == torch.bfloat16
    for name in [*shards, "model.safetensors.index.json"]:
        (folder / name).unlink()
    torch.save(counting_model.state_dict(), folder / "pytorch_model.bin")
    assert push(folder) == 0
    files = hub.files("model", "org/model")
    assert [name for name in files if name.endswith((".bin", ".safetensors"))] == ["model.safetensors"]
    assert torch.equal(load(files["model.safetensors"])["logit_scale"], counting_model.logit_scale)


def test_tag_branch_private_and_gated(push: Callable, hub: Any, copied: Callable, monkeypatch, capsys) -> None:
    folder = copied("counting")
    assert push(folder, "org/gated", "--private", "--gated", "manual", "--tag", "v1.0") == 0
    repository = hub.repositories["model", "org/gated"]
    assert repository.private
    assert repository.gated == "manual"
    assert repository.tags == {"v1.0": repository.commits[-1][0]}
    gate = next(i for i, request in enumerate(hub.requests) if request.endswith("/settings"))
    commit = next(i for i, request in enumerate(hub.requests) if "/commit/" in request)
    assert gate < commit, "the files would have been there for everybody for a moment"

    (folder / "generation_config.json").write_text("{}")
    before = repository.commits[-1]
    assert push(folder, "org/gated", "--revision", "try/out", "--tag", "v1.1") == 0
    assert repository.commits[-1] == before, "main was changed"
    assert "generation_config.json" in repository.branches["try/out"][-1][1]
    assert repository.tags["v1.1"] == repository.branches["try/out"][-1][0]
    capsys.readouterr()
    assert push(folder, "org/gated", "--tag", "v1.0") == 2
    assert "has a tag v1.0 already" in capsys.readouterr().err
    assert repository.commits[-1] == before

    hub.tokens["hf_stranger"] = "read"
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    assert main(["info", "org/gated"]) == 2
    assert "is gated: ask for access" in capsys.readouterr().err
    repository.admitted.add("hf_stranger")
    assert main(["info", "org/gated", "--revision", "v1.1"]) == 0


@pytest.mark.parametrize(
    ("pattern", "code", "words"),
    [
        ("PUT /upload", 403, "may not write to org/model"),
        ("POST .*/commit/", 400, "The Hub refused what was sent (It is broken.). Nothing was published."),
        ("POST .*/commit/", 409, "Nothing was published; push again"),
        ("POST .*/preupload/", 413, "The Hub failed (code 413)"),
        ("POST /api/repos/create", 403, "may not write to org/model"),
        ("POST .*/objects/batch", 401, "may have expired or been revoked"),
    ],
)
def test_failed_push_publishes_nothing(
    pattern: str, code: int, words: str, push: Callable, hub: Any, copied: Callable, capsys
) -> None:
    folder = copied("counting")
    hub.failures = [(pattern, code)]
    assert push(folder) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err
    assert SECRET not in printed.err
    if ("model", "org/model") in hub.repositories:
        assert set(hub.files("model", "org/model")) == {".gitattributes"}
    hub.failures = []
    assert push(folder, "org/model", "--tag", "v1") == 0
    state = hub.files("model", "org/model")
    hub.failures = [(pattern.replace("/api/repos/create", "never"), code)]
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    if "create" not in pattern:
        assert push(folder) == 2
        assert hub.files("model", "org/model") == state, "a part of the new state is there"


def test_commit_that_cannot_be_tagged_is_reported(push: Callable, hub: Any, copied: Callable, capsys) -> None:
    hub.failures = [("POST .*/tag/", 403)]
    assert push(copied("counting"), "org/model", "--tag", "v1") == 2
    printed = capsys.readouterr().err
    assert f"The commit {hub.repositories['model', 'org/model'].commits[-1][0]} was pushed" in printed
    assert "could not be tagged v1" in printed


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("other/model", "may not write to other/model"),
        ("model", "Expected ORGANISATION/NAME"),
        ("a/b/c", "Expected ORGANISATION/NAME"),
        ("org/what a name", "is no name of a repository"),
        ("org/x..y", "is no name of a repository"),
    ],
)
def test_wrong_places_are_refused(name: str, words: str, push: Callable, hub: Any, counting_folder: str, capsys):
    assert push(counting_folder, name) == 2
    assert words in capsys.readouterr().err
    assert hub.repositories == {}


def test_missing_permissions_are_reported_with_a_remedy(
    push: Callable, hub: Any, counting_folder: str, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired123")
    assert push(counting_folder) == 2
    printed = capsys.readouterr().err
    assert "does not accept the token" in printed
    assert "hf auth login" in printed
    assert "hf_expired123" not in printed
    hub.tokens["hf_reader"] = "read"
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert push(counting_folder) == 2
    assert "may not write to org/model" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    assert push(counting_folder) == 2
    assert "Not logged in" in capsys.readouterr().err
    assert hub.repositories == {}


def test_no_network(push: Callable, hub: Any, counting_folder: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert push(counting_folder) == 2
    assert "The Hub cannot be reached at http://127.0.0.1:9" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert push(counting_folder) == 2
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err


def test_private_does_not_hide_a_public_one(push: Callable, hub: Any, counting_folder: str, capsys) -> None:
    assert push(counting_folder) == 0
    capsys.readouterr()
    assert push(counting_folder, "org/model", "--private") == 2
    assert "exists and is public" in capsys.readouterr().err


def test_dry_run_sends_no_request(push: Callable, hub: Any, counting_folder: str, capsys, monkeypatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", counting_folder, "org/model", "--dry-run", "--dtype", "float16", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["model_type"], about["repository"], about["commit"]) == ("count_clip", "org/model", None)
    assert about["files"]["model.safetensors"] < os.path.getsize(Path(counting_folder, "model.safetensors")) * 0.7
    assert main(["push", counting_folder, "org/model", "--dry-run"]) == 0
    assert re.search(r"modeling_count_clip.py +[\d,]{5,}\n", capsys.readouterr().out)
    assert hub.requests == []


def test_push_asks_for_consent(hub_here: Any, counting_folder: str, capsys, monkeypatch) -> None:
    assert main(["push", counting_folder, "org/model"]) == 2
    assert "Add --yes" in capsys.readouterr().err

    class Terminal:
        def __init__(self, answer: str) -> None:
            self.answer = answer

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.answer

    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    assert main(["push", counting_folder, "org/model"]) == 2
    printed = capsys.readouterr().err
    assert "to org/model (public unless it is private already)? [y/N]" in printed
    assert "Nothing was pushed." in printed
    assert hub_here.repositories == {}
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert main(["push", counting_folder, "org/model"]) == 0


def test_stdout_holds_json_only(push: Callable, hub: Any, counting_folder: str, capsys) -> None:
    assert push(counting_folder, "org/model", "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert about["commit"] == hub.repositories["model", "org/model"].commits[-1][0]
    assert about["changed"] is True
    assert set(about["files"]) == set(hub.files("model", "org/model")) - {".gitattributes"}


def test_processor_is_pushed_alone(push: Callable, hub: Any, density_processor, tmp_path: Path) -> None:
    density_processor.save_pretrained(tmp_path / "processor")
    assert push(tmp_path / "processor", "org/processor") == 0
    files = hub.files("model", "org/processor")
    assert "processing_clip_count_density.py" in files
    assert "modeling_clip_count_density.py" not in files
    loaded = AutoProcessor.from_pretrained(pulled(hub, tmp_path / "pulled", "org/processor"), trust_remote_code=True)
    assert loaded.image_processor.window_size == density_processor.image_processor.window_size
    assert "There are no weights here" in files["README.md"].decode()


@pytest.fixture
def adapters(counting_folder: str, tmp_path: Path) -> dict[str, Path]:
    """One adapter and a stack of two, on a base in a folder."""
    folders = {"one": tmp_path / "one", "stack": tmp_path / "stack"}
    base = CLIPForCounting.from_pretrained(counting_folder)
    get_peft_model(base, VisualPromptConfig(num_virtual_tokens=4, depth=2)).save_pretrained(folders["one"])
    base = CLIPForCounting.from_pretrained(counting_folder)
    configs = {"context": ContextPromptConfig(), "low_rank": LoraConfig(target_modules=["q_proj"])}
    AdapterStack(base, configs).save_pretrained(folders["stack"])
    return folders


@pytest.mark.parametrize("name", ["one", "stack"])
def test_adapters_name_a_base_that_others_have(
    name: str, push: Callable, hub: Any, adapters: dict, counting_folder: str, capsys, make_image, tmp_path: Path
) -> None:
    from count_clip import load_adapted_model

    assert push(adapters[name], f"org/{name}") == 2
    printed = capsys.readouterr().err
    assert "which is not on the Hub" in printed
    assert "--base-model" in printed
    assert hub.repositories == {}
    assert push(counting_folder, f"org/{name}-base") == 0
    assert push(adapters[name], f"org/{name}", "--base-model", f"org/{name}-base", "--dtype", "bfloat16") == 0
    files = hub.files("model", f"org/{name}")
    assert not any(str(tmp_path).encode() in content for content in files.values())
    assert not any(counting_folder.encode() in content for content in files.values())
    card = ModelCard(files["README.md"].decode())
    assert card.data.base_model == f"org/{name}-base"
    assert card.data.library_name == "peft"
    assert f'load_adapted_model("org/{name}")' in card.text
    weights = [content for path, content in files.items() if path.endswith(".safetensors")]
    assert all({tensor.dtype for tensor in load(one).values()} == {torch.bfloat16} for one in weights)
    processor = AutoProcessor.from_pretrained(counting_folder)
    inputs = processor(images=[make_image(40, 40)], text=["two dogs"])
    pushed, local = load_adapted_model(f"org/{name}").eval(), load_adapted_model(adapters[name]).eval()
    torch.testing.assert_close(
        pushed(**inputs).logits_per_image, local(**inputs).logits_per_image, rtol=0.02, atol=0.02
    )


def test_data_set_is_pushed_by_what_data_build_uses(push: Callable, hub: Any, tmp_path: Path, capsys):
    built = tmp_path / "scenes"
    command = ["data", "build", "countscenes", "--config", "density", "--output", str(built)]
    assert main([*command, "--option", "num_scenes={train: 3, test: 2}", "--option", "image_size=32"]) == 0
    assert push(built, "org/scenes", "--tag", "v1", "--revision", "small") == 0
    repository = hub.repositories["dataset", "org/scenes"]
    assert repository.tags == {"v1": repository.branches["small"][-1][0]}
    inside = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert set(repository.branches["small"][-1][1]) == inside | {".gitattributes"}
    assert set(hub.files("dataset", "org/scenes")) == {".gitattributes"}
    capsys.readouterr()
    assert push(built, "org/scenes", "--dtype", "float16") == 2
    assert "has no --dtype" in capsys.readouterr().err
    hub.failures = [("POST .*/commit/", 403)]
    assert push(built, "org/scenes") == 2
    assert "may not write to org/scenes" in capsys.readouterr().err
    (built / "README.md").write_text("# Mine\n")
    assert push(built, "org/scenes") == 2
    assert "no finished build" in capsys.readouterr().err


def test_figures_and_hand_written_text_are_in_the_card(
    push: Callable, hub: Any, copied: Callable, tmp_path: Path, capsys
) -> None:
    folder = copied("counting")
    results = {
        "benchmark": "countbench",
        "partial": False,
        "metrics": {"accuracy": 0.625, "mean_deviation": 0.5, "off_by_one": None},
        "intervals": {"accuracy": [0.55, 0.7]},
        "run": {
            "command": "count-clip evaluate countbench --model runs/x",
            "data": {"name": "countscenes", "config": "benchmark", "split": "test", "revision": None},
        },
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n\n# Mine\n\nIt likes dogs.\n")
    assert push(folder, "org/figures", "--results", str(tmp_path / "results.json")) == 0
    card = ModelCard(hub.files("model", "org/figures")["README.md"].decode())
    assert (card.data.license, card.data.language) == ("mit", "en")
    assert "# Mine\n\nIt likes dogs." in card.text
    assert "count-clip evaluate countbench --model runs/x" in card.text
    assert "| countscenes benchmark test | accuracy | 0.625 | 0.55 to 0.7 |" in card.text
    found = [(one.metric_type, one.metric_value, one.dataset_config) for one in card.data.eval_results]
    assert found == [("accuracy", 0.625, "benchmark"), ("mean_deviation", 0.5, "benchmark")]
    assert main(["info", "org/figures"]) == 0
    assert "accuracy 0.625 on countscenes benchmark test" in capsys.readouterr().out
    (tmp_path / "results.json").write_text('{"metrics": {}}')
    assert push(folder, "org/figures", "--results", str(tmp_path / "results.json")) == 2
    assert "results.json to be what `count-clip evaluate ... --json FILE` writes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "There is no folder"),
        (lambda folder: (folder / "model.safetensors").unlink(), "Expected weights in"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 20), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "config.json is 'bert'"),
        (lambda folder: [path.unlink() for path in folder.glob("*.json")], "neither a config.json"),
        (lambda folder: (folder / "README.md").write_text("---\nlicense: [\n---\n# x\n"), "metadata at the top of"),
        (
            lambda folder: save_file({"logit_scale": torch.ones(())}, folder / "model.safetensors", {"format": "pt"}),
            "tensors that the model needs",
        ),
    ],
)
def test_invalid_folders_are_rejected_before_any_request(
    spoil: Callable, words: str, push: Callable, hub: Any, copied: Callable, capsys
) -> None:
    folder = copied("counting")
    spoil(folder)
    assert push(folder) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert "Traceback" not in printed
    assert hub.requests == []


@pytest.mark.parametrize("name", ["-x", "a..b", "a b", "", "a/"])
def test_wrong_tags_are_refused(name: str, push: Callable, hub: Any, counting_folder: str, capsys) -> None:
    assert push(counting_folder, "org/model", f"--tag={name}") == 2
    assert "is no name of a tag" in capsys.readouterr().err
    assert hub.repositories == {}


def test_exported_clip_is_pushed_without_code(push: Callable, hub: Any, counting_folder: str, tmp_path: Path) -> None:
    assert main(["export", "clip", counting_folder, "--output", str(tmp_path / "clip")]) == 0
    assert push(tmp_path / "clip", "org/plain") == 0
    files = hub.files("model", "org/plain")
    assert not [path for path in files if path.endswith(".py")]
    assert json.loads(files["config.json"])["model_type"] == "clip"
    text = files["README.md"].decode()
    assert 'CLIPModel.from_pretrained("org/plain")' in text
    assert "import count_clip" not in text
