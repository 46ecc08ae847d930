"""`import count_clip` registers the models, and changes nothing else."""

import ast
import importlib.metadata
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import count_clip


REPOSITORY = Path(__file__).resolve().parents[2]


def _in_a_fresh_process(program: str, cwd: Path) -> dict:
    """Run a program that prints one line of JSON, away from the repository, so that the installed package is found."""
    command = [sys.executable, "-c", program]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def test_registers_the_model_types(tmp_path: Path) -> None:
    found = _in_a_fresh_process(
        """
import json
from transformers import AutoConfig, AutoModel, AutoModelForZeroShotImageClassification
import count_clip
from transformers.pipelines import PIPELINE_REGISTRY

counting, density = AutoConfig.for_model("count_clip"), AutoConfig.for_model("clip_count_density")
print(json.dumps({
    "configs": [type(counting).__name__, type(density).__name__],
    "models": [AutoModel._model_mapping[type(config)].__name__ for config in (counting, density)],
    "zero_shot": AutoModelForZeroShotImageClassification._model_mapping[type(counting)].__name__,
    "pipelines": [PIPELINE_REGISTRY.check_task(task)[1]["impl"].__name__
                  for task in ("object-counting", "caption-counting")],
}))
""",
        tmp_path,
    )
    assert found == {
        "configs": ["CountCLIPConfig", "CLIPCountDensityConfig"],
        "models": ["CLIPForCounting", "CLIPCountDensityModel"],
        "zero_shot": "CLIPForCounting",
        "pipelines": ["ObjectCountingPipeline", "CaptionCountingPipeline"],
    }


@pytest.mark.parametrize(
    "first",
    [
        "import transformers",
        "import datasets",
        "from count_clip.modeling.modeling_count_clip import CLIPForCounting",
        "from count_clip.trainers.counting import trainer",
    ],
)
def test_registers_before_first_use(first: str, tmp_path: Path) -> None:
    """Importing the package imports no library, and later imports find all models registered."""
    found = _in_a_fresh_process(
        f"""
import json, sys
import count_clip
heavy = sorted({{"torch", "transformers", "datasets", "numpy", "PIL"}} & set(sys.modules))
{first}
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY
from count_clip.modeling.modeling_count_clip import CLIPForCounting as imported
config = AutoConfig.for_model("count_clip")
print(json.dumps({{
    "heavy": heavy,
    "same": AutoModel._model_mapping[type(config)] is imported is count_clip.CLIPForCounting,
    "processor": PROCESSOR_MAPPING[type(config)].__name__,
    "tasks": sorted(task for task in PIPELINE_REGISTRY.supported_tasks if task.endswith("-counting")),
    "waiting": sorted(name for finder in sys.meta_path if type(finder).__name__ == "_AfterImport"
                      for name in finder.modules),
    "imported": sorted({{"datasets", "peft"}} & set(sys.modules)),
}}))
""",
        tmp_path,
    )
    assert found["heavy"] == []
    assert found["same"]
    assert found["processor"] == "CountCLIPProcessor"
    assert found["tasks"] == ["caption-counting", "object-counting"]
    assert set(found["waiting"]) == {"datasets", "peft"} - set(found["imported"])


def test_packages_are_found_below_count_clip(tmp_path: Path) -> None:
    found = _in_a_fresh_process(
        """
import json
from count_clip.modeling.modeling_count_clip import CLIPForCounting
import count_clip.datasets_scripts, count_clip.evaluation, count_clip.trainers
from importlib.util import find_spec
print(json.dumps({"module": CLIPForCounting.__module__,
                  "stray": [name for name in ("modeling", "evaluation", "trainers", "datasets_scripts")
                            if find_spec(name) is not None]}))
""",
        tmp_path,
    )
    assert found == {"module": "count_clip.modeling.modeling_count_clip", "stray": []}


def test_import_changes_the_registries_only(tmp_path: Path) -> None:
    """All the state that an import is tempted to touch, compared before and after."""
    found = _in_a_fresh_process(
        """
import hashlib, json, logging, os, pickle, random, signal, sys, threading, warnings
import numpy, torch, transformers, datasets.load, peft
from PIL import Image, ImageFile
from transformers import AutoModel, AutoProcessor, AutoImageProcessor, CLIPModel
from transformers.pipelines import PIPELINE_REGISTRY

def digest(value):
    return hashlib.sha256(pickle.dumps(value)).hexdigest()

def state():
    return {
        "random": digest(random.getstate()),
        "numpy": digest(numpy.random.get_state()),
        "torch": digest(torch.get_rng_state().tolist()),
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads(), threading.active_count()],
        "print": str(torch._tensor_str.PRINT_OPTS),
        "numpy print": str(numpy.get_printoptions()),
        "numpy errors": str(numpy.geterr()),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "files": sorted(os.listdir()),
        "path": list(sys.path),
        "finders": [str(finder) for finder in sys.meta_path],
        "hooks": [str(hook) for hook in (sys.excepthook, sys.displayhook, *sys.path_hooks)],
        "warnings": [str(entry) for entry in warnings.filters],
        "logging": [transformers.logging.get_verbosity(), datasets.logging.get_verbosity(), logging.root.level,
                    [str(handler) for handler in logging.root.handlers]],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "pillow": [Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES],
        "clip": sorted(vars(CLIPModel)),
        "recursion": sys.getrecursionlimit(),
    }

before, tasks = state(), set(PIPELINE_REGISTRY.supported_tasks)
import count_clip
after = state()
print(json.dumps({"changed": [name for name in before if before[name] != after[name]],
                  "tasks": sorted(set(PIPELINE_REGISTRY.supported_tasks) - tasks)}))
""",
        tmp_path,
    )
    assert found == {"changed": [], "tasks": ["caption-counting", "object-counting"]}


def test_registering_twice_is_silent(tmp_path: Path) -> None:
    found = _in_a_fresh_process(
        """
import contextlib, io, json, sys, warnings
import datasets.load, peft
import count_clip
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

def state():
    mappings = (CONFIG_MAPPING, AutoModel._model_mapping, PROCESSOR_MAPPING, IMAGE_PROCESSOR_MAPPING)
    return [*(str(mapping._extra_content) for mapping in mappings), str(PIPELINE_REGISTRY.supported_tasks),
            str(_PACKAGED_DATASETS_MODULES), str(sys.meta_path),
            str(datasets.load.PackagedDatasetModuleFactory.__mro__)]

before, heard = state(), io.StringIO()
with warnings.catch_warnings(), contextlib.redirect_stderr(heard), contextlib.redirect_stdout(heard):
    warnings.simplefilter("error")
    count_clip.register()
    count_clip.register()
print(json.dumps({"same": before == state(), "heard": heard.getvalue(), "countscenes": "countscenes" in str(before)}))
""",
        tmp_path,
    )
    assert found == {"same": True, "heard": "", "countscenes": True}


def test_import_brings_no_library_beyond_those_of_clip(tmp_path: Path) -> None:
    """Importing all that the models need of transformers first leaves nothing but our own files to import."""
    found = _in_a_fresh_process(
        """
import json, sys
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, CLIPModel, Pipeline, PreTrainedModel
from transformers.models.clip import CLIPImageProcessorPil
before = set(sys.modules)
import count_clip
names = set(sys.modules) - before
libraries = {name.split(".")[0] for name in names} - {"count_clip", "transformers"}
rooms = {".".join(name.split(".")[:2]) for name in names if name.startswith("count_clip.")}
print(json.dumps({"libraries": sorted(libraries), "rooms": sorted(rooms)}))
""",
        tmp_path,
    )
    assert set(found["libraries"]) <= set(sys.stdlib_module_names)
    assert not {"count_clip.trainers", "count_clip.evaluation"} & set(found["rooms"])
    assert "count_clip.modeling" in found["rooms"]


@pytest.mark.parametrize("name", count_clip.__all__)
def test_public_names_are_importable(name: str) -> None:
    value = getattr(count_clip, name)
    assert name in dir(count_clip)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__module__.startswith("count_clip.")
        assert inspect.getdoc(value), f"{name} is public and has no documentation"


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match=r"count_clip.*has no attribute 'CLIPForCountin'"):
        count_clip.CLIPForCountin  # noqa: B018


def test_type_checkers_see_the_names_that_python_sees() -> None:
    tree = ast.parse((REPOSITORY / "count_clip" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    checked = {alias.asname: node.module.removeprefix("count_clip.") for node in imports for alias in node.names}
    assert checked == count_clip._MODULES


def test_version_is_the_installed_one() -> None:
    assert count_clip.__version__ == importlib.metadata.version("count-clip")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_import_costs_little_more_than_that_of_clip() -> None:
    benchmark = REPOSITORY / "benchmarks" / "import_time.py"
    finished = subprocess.run([sys.executable, benchmark, "--runs", "3"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert 0 < float(finished.stdout.split("ratio: ")[1].split()[0]) <= 1.5
