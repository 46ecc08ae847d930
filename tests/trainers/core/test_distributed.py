import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


SCRIPT = Path(__file__).with_name("distributed_run.py")
GLOBAL_BATCH = 8


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> dict:
    spec = importlib.util.spec_from_file_location("distributed_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    output = tmp_path_factory.mktemp("one")
    module.run(output, GLOBAL_BATCH, 1)
    return torch.load(output / "result_0.pt", weights_only=False)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> list[dict]:
    output = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*torchrun, str(SCRIPT), str(output), str(GLOBAL_BATCH)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = [torch.load(output / f"result_{rank}.pt", weights_only=False) for rank in range(2)]
    assert [result["world_size"] for result in results] == [2, 2]
    return results


def _assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) >= set(expected)
    # Data parallelism gives a gradient of zero to what one process gives none.
    assert all(found[name].count_nonzero() == 0 for name in set(found) - set(expected))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


NUM_STEPS = {"counting": 4, "cached": 2, "cached_accumulated": 2, "adapters": 2, "density": 9}


# The first test of this file pays for the processes.
@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", NUM_STEPS)
def test_gradients_of_two_processes_are_those_of_one(one_process, two_processes, part):
    expected = one_process[part]["grads"]
    assert len(expected) == NUM_STEPS[part]
    for result in two_processes:
        for found, wanted in zip(result[part]["grads"], expected, strict=True):
            _assert_close(found, wanted)


@pytest.mark.parametrize("part", NUM_STEPS)
def test_losses_of_two_processes_are_those_of_the_whole_batch(one_process, two_processes, part):
    names = ("loss", "contrastive_loss", "density_loss" if part == "density" else "counting_loss")
    expected = [[entry[name] for name in names] for entry in one_process[part]["logs"] if "loss" in entry]
    found = [[entry[name] for name in names] for entry in two_processes[0][part]["logs"] if "loss" in entry]
    assert len(found) == NUM_STEPS[part]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("part", NUM_STEPS)
def test_weights_of_both_processes_end_alike(one_process, two_processes, part):
    for result in two_processes:
        _assert_close(result[part]["weights"], one_process[part]["weights"])


@pytest.mark.parametrize("part", NUM_STEPS)
def test_evaluation_of_two_processes_equals_that_of_one(one_process, two_processes, part):
    expected = torch.tensor(one_process[part]["predicted"])
    assert len(expected) == 5
    for result in two_processes:
        torch.testing.assert_close(torch.tensor(result[part]["predicted"]), expected, atol=1e-3, rtol=1e-3)


def test_cached_gradients_of_two_processes_are_those_of_a_plain_step(one_process, two_processes):
    for result in two_processes:
        for found, wanted in zip(result["cached"]["grads"], one_process["counting"]["grads"][:2], strict=True):
            _assert_close(found, wanted)


def test_nothing_but_adapters_trains_in_two_processes(two_processes):
    for result in two_processes:
        names = set(result["adapters"]["grads"][0])
        assert {prefix for name in names for prefix in ("clip_vpt_", "clip_coop_", "lora_") if prefix in name} == {
            "clip_vpt_",
            "clip_coop_",
            "lora_",
        }
        assert all("clip_vpt_" in name or "clip_coop_" in name or "lora_" in name for name in names)


def test_two_processes_resumed_in_the_middle_of_an_epoch_end_with_the_same_weights(two_processes):
    for result in two_processes:
        whole, resumed = result["density"], result["resumed"]
        assert len(resumed["grads"]) == 4
        assert all(torch.equal(resumed["weights"][name], whole["weights"][name]) for name in whole["weights"])
