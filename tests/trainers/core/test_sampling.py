import numpy as np
import pytest
from transformers import TrainerState

from count_clip.trainers.core.sampling import EpochCallback, EpochSampler, sample_generator


def test_every_epoch_is_another_order_of_all_rows_that_the_seed_decides():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(20, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert sorted(order(0, 0)) == list(range(20))
    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.3, 0.5, 0.9, 1.0])
def test_consecutive_rows_hold_the_share_of_counting_rows(fraction):
    flags = np.arange(200) % 10 == 0
    sampler = EpochSampler(200, seed=3, is_counting=flags, counting_fraction=fraction)
    drawn = np.array(list(sampler))
    assert len(drawn) == len(sampler) == 200
    for start in range(0, 200, 8):
        assert abs(flags[drawn[start : start + 8]].sum() - 8 * fraction) <= 1


def test_rare_rows_are_repeated_evenly_and_others_are_not():
    flags = np.arange(100) < 10
    drawn = list(EpochSampler(100, is_counting=flags, counting_fraction=0.5))
    times = np.bincount(drawn, minlength=100)
    assert (times[:10] == 5).all()
    assert sorted(set(times[10:])) == [0, 1]


@pytest.mark.parametrize(("fraction", "name"), [(0.5, "counting"), (1.0, "counting")])
def test_fraction_needs_counting_rows(fraction, name):
    with pytest.raises(ValueError, match=f"needs {name} rows, but none of the 4 rows"):
        EpochSampler(4, is_counting=[False] * 4, counting_fraction=fraction)


def test_fraction_needs_general_rows():
    with pytest.raises(ValueError, match="needs general rows"):
        EpochSampler(4, is_counting=[True] * 4, counting_fraction=0.5)


def test_sample_generator_depends_on_all_its_parts():
    draws = {
        tuple(sample_generator(*key).integers(1000, size=4))
        for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, "a"), (0, 0, "b"))
    }
    assert len(draws) == 6
    assert sample_generator(1, 2, "a").random() == sample_generator(1, 2, "a").random()


@pytest.mark.parametrize(("fractional", "whole"), [(0, 0), (2.0, 2), (1.75, 1), (2.9999999999, 3)])
def test_callback_passes_the_epoch_on_also_in_its_middle(fractional, whole):
    sampler = EpochSampler(3)
    state = TrainerState()
    state.epoch = fractional
    EpochCallback(sampler).on_epoch_begin(None, state, None)
    assert sampler.epoch == whole
