from pathlib import Path

import pytest

from count_clip.trainers.counting.config import CountingConfig
from count_clip.trainers.density.config import DensityConfig
from count_clip.trainers.running.arguments import find_config, load_config, parse_overrides, parse_run


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "some_run.yaml"
        path.write_text(f"output_dir: {tmp_path / 'out'}\n{text}")
        return str(path)

    return write


def test_file_and_command_line_set_run_and_training_arguments(write):
    path = write(
        "task: density\nlearning_rate: 1e-3\nmax_steps: 1e3\nsave_strategy: no\nscale_jitter: [1, 1.5]\n"
        "dataset: {name: countscenes, seed: 3}\nscratch: {projection_dim: 32}\nwarmup_steps: 5\n"
    )
    overrides = (
        "--dataset.num_scenes 1000 --weight-decay=2e-2 --bf16 --contrastive_epochs 1 --scratch.vision.hidden_size 8"
    )
    run, args = parse_run(path, overrides.split())
    assert isinstance(args, DensityConfig)
    assert (args.learning_rate, args.max_steps, args.weight_decay, args.bf16) == (1e-3, 1000, 0.02, True)
    assert isinstance(args.max_steps, int)
    assert (args.save_strategy, args.scale_jitter, args.contrastive_epochs) == ("no", [1.0, 1.5], 1.0)
    assert run.dataset == {"name": "countscenes", "seed": 3, "num_scenes": 1000}
    assert run.scratch == {"projection_dim": 32, "vision": {"hidden_size": 8}}


def test_data_may_be_just_a_name(write):
    run, args = parse_run(write("task: counting\ndataset: a\n"), ["--dataset", "countscenes", "--dataset.seed", "1"])
    assert isinstance(args, CountingConfig)
    assert run.dataset == {"name": "countscenes", "seed": 1}
    run, _ = parse_run(write("task: counting\n"), ["--dataset", "org/captions"])
    assert run.dataset == {"name": "org/captions"}


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("task: density\nlerning_rate: 1\n", [], r"Unknown key `lerning_rate` in .*some_run\.yaml.*`learning_rate`"),
        ("task: density\n", ["--trainble", "all"], "`trainble` on the command line. Did you mean `trainable`"),
        ("task: counting\ntrainable: all\n", [], r"Unknown key `trainable` in .*some_run\.yaml"),
        ("task: classify\n", [], r"`task` to be one of counting, density, but got 'classify' in .*some_run\.yaml"),
        ("seed: 3\n", [], r"`task` to be one of counting, density, but got None in .*some_run\.yaml"),
        (
            "task: density\nlearning_rate: fast\n",
            [],
            r"`learning_rate` in .*\.yaml, line 3: invalid float value: 'fast'",
        ),
        ("task: density\n", ["--seed", "1.5"], "`seed` on the command line: invalid int value: '1.5'"),
        ("task: density\nbf16: 3\n", [], "`bf16` in .*: Truthy value expected: got 3"),
        ("task: density\nscale_jitter: wide\n", [], "`scale_jitter` in .*: invalid float value: 'wide'"),
        ("task: density\nseed: [1, 2]\n", [], r"`seed` in .*: expected one value, but got \[1, 2\]"),
        ("task: density\nscratch: tiny\n", [], "`scratch` in .*: invalid dict value: 'tiny'"),
        ("task: density\nseed: true\n", [], "`seed` in .*: invalid int value: 'true'"),
        ("task: [density\n", [], r"some_run\.yaml is not valid YAML"),
        ("task: density\n", ["train"], "Expected `--key value` on the command line, but got 'train'"),
        ("task: density\n", ["--seed.x", "1", "--seed.x.y", "2"], "Cannot set `seed.x.y`: `x` is 1"),
    ],
)
def test_mistakes_are_named(write, text, overrides, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        parse_run(write(text), overrides)


VARIANTS = """
task: counting
output_dir: runs/x
max_steps: 100
dataset: {name: countscenes, image_size: 96}
variants:
  gpu:
    max_steps: 9000
    dataset: {num_scenes: 5}
    bf16: true
"""


def test_variant_changes_what_it_names_and_the_command_line_changes_that(write):
    run, args = parse_run(write(VARIANTS), [])
    assert (args.max_steps, run.dataset) == (100, {"name": "countscenes", "image_size": 96})
    run, args = parse_run(write(VARIANTS), ["--dataset.image_size", "32", "--config", "gpu"])
    assert (args.max_steps, run.dataset) == (9000, {"name": "countscenes", "image_size": 32, "num_scenes": 5})
    _, args = parse_run(write(VARIANTS), ["--config", "gpu", "--max_steps", "7"])
    assert args.max_steps == 7


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (VARIANTS, "tpu", "`--config` must be one of the `variants` of .*gpu.*'tpu'"),
        ("task: counting", "gpu", "variants.*none.*'gpu'"),
        ("task: counting\nvariants: {gpu: 3}", "gpu", "Expected `variants`"),
        (VARIANTS.replace("max_steps: 9000", "max_step: 9000"), "gpu", "max_step"),
    ],
)
def test_variants_that_are_wrong_are_named(write, text, name, message):
    with pytest.raises(ValueError, match=message):
        parse_run(write(text), ["--config", name])


def test_file_without_keys_is_refused(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- task\n")
    with pytest.raises(ValueError, match=r"list\.yaml to hold keys and values"):
        parse_run(str(path), [])


def test_missing_file_is_reported_with_the_existing_ones():
    with pytest.raises(FileNotFoundError, match=r"'nothing\.yaml'.*countscenes_counting"):
        parse_run("nothing.yaml", [])


@pytest.mark.parametrize(
    ("tokens", "pairs"),
    [
        (["--a", "1"], [(["a"], 1)]),
        (["--a=b=c"], [(["a"], "b=c")]),
        (["--flag", "--x", "-1e-3"], [(["flag"], True), (["x"], -1e-3)]),
        (["--a-b.c-d", "[1, two]"], [(["a_b", "c-d"], [1, "two"])]),
        (["--x", "{unclosed"], [(["x"], "{unclosed")]),
        (["--x", "null"], [(["x"], None)]),
        (["--x", "no"], [(["x"], "no")]),
    ],
)
def test_overrides_are_read_as_yaml(tokens, pairs):
    assert parse_overrides(tokens) == pairs


SHIPPED = sorted(path.stem for path in (Path(__file__).parents[3] / "trainers" / "configs").glob("*.yaml"))


# Each of a file's variants is a run of its own.
RUNS = [
    (name, variant) for name in SHIPPED for variant in ["", *(load_config(find_config(name)).get("variants") or {})]
]
# Checkpoints of the web that recipes start from.
WEB = "openai/clip-vit-"


def test_all_configs_are_shipped():
    examples = {"blood_cells", "countscenes_base", "countscenes_counting", "countscenes_counting_prompts"}
    examples |= {"countscenes_density", "countscenes_density_prompts", "nuclei", "pears"}
    assert {*examples, "count_aware_clip", "fsc147_density"} <= set(SHIPPED)


@pytest.mark.parametrize(("name", "variant"), RUNS)
def test_shipped_configs_are_right(name, variant):
    run, args = parse_run(name, ["--config", variant] if variant else [])
    assert find_config(name).is_file()
    assert run.task in ("counting", "density")
    # New weights, a checkpoint of the web or a released one, or what another of these configurations leaves.
    sources = (run.scratch, run.model_name_or_path, run.density_name_or_path, run.clip_name_or_path)
    (source,) = [source for source in sources if source is not None]
    if isinstance(source, str) and source.startswith("model_cards/"):
        assert (Path(__file__).parents[3] / source / "config.json").is_file()
    elif isinstance(source, str) and not source.startswith(WEB):
        assert source in {
            parse_run(other, ["--config", one] if one else [])[1].output_dir
            for other, one in RUNS
            if (other, one) != (name, variant)
        }
    assert run.dataset
    assert run.test_dataset
    assert args.seed >= 0


def test_no_two_recipes_write_into_one_folder():
    recipes = [(name, variant) for name, variant in RUNS if name in ("count_aware_clip", "fsc147_density")]
    folders = [parse_run(name, ["--config", variant] if variant else [])[1].output_dir for name, variant in recipes]
    assert len(set(folders)) == len(folders) == 9
