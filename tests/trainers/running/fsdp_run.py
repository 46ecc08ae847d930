"""
What `test_launch.py` starts in two CPU processes with FSDP2: `fsdp_run.py CONFIG.yaml OUTPUT.pt [--key value ...]`.

accelerate divides models among accelerators only. To try the sharding here, it is made to believe that these
processes have one; their tensors stay on the CPU.
"""

import sys
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from transformers import Trainer

from count_clip.trainers.counting.trainer import CountingTrainer
from count_clip.trainers.run import finish_processes, train
from count_clip.trainers.running.arguments import parse_run


class _Watched(CountingTrainer):
    """Remembers how the parameters lay, and the gradients of the first step."""

    seen: dict[str, Any] = {}

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        parameters = dict(self.model.named_parameters())
        self.seen["divided"] = sorted(name for name, p in parameters.items() if isinstance(p.data, DTensor))
        self.seen["whole"] = sorted(name for name, p in parameters.items() if not isinstance(p.data, DTensor))
        return prepared


def main() -> None:
    """Do the run, and write what was seen."""
    config, output, *overrides = sys.argv[1:]
    run, args = parse_run(config, overrides)
    assert isinstance(args.device, torch.device)  # asking for it starts the processes' group
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    import count_clip.trainers.run as module

    module.CountingTrainer = _Watched  # type: ignore[misc]  # the run makes its trainer by this name
    assert issubclass(_Watched, Trainer)
    results = train(run, args)
    if dist.get_rank() == 0:
        torch.save({"results": results, "world_size": dist.get_world_size(), **_Watched.seen}, output)
    finish_processes()


if __name__ == "__main__":
    main()
