"""Makes `tests/data/torch/*.pth` with the real torch (2.13.0, CPU), which the tests themselves do without.

Every tensor counts upwards in steps of an eighth, so that the tests know what must come out.
"""

from __future__ import annotations

import argparse
import pathlib
import random

import numpy as np
import torch

FOLDER = pathlib.Path(__file__).parent / "torch"


def network() -> torch.nn.Module:
    layers = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 2))
    for tensor in layers.state_dict().values():
        tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape) / 8)
    return layers


def training_run(layers: torch.nn.Module) -> dict:
    optimizer = torch.optim.AdamW(layers.parameters(), fused=False)
    layers[2](torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "model": {f"module.{key}": tensor for key, tensor in network().state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3).state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(output=pathlib.PurePosixPath("runs"), classes={1, 2}, lr=0.1, shape=torch.Size([3])),
        "best": np.float64(0.5),
        "history": np.zeros(3),
        "random": random.Random(0).getstate()[0],
    }


def odd_tensors() -> dict:
    shared = torch.arange(12) / 8
    return {
        "first": shared[:6].view(2, 3),
        "rest": shared[6:],
        "transposed": shared.view(3, 4).t(),
        "columns": shared.view(3, 4)[:, 1:3],
        "expanded": shared[3:4].expand(2, 2),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "half": shared.half(),
        "bfloat16": shared.bfloat16(),
        "double": shared.double(),
        "parameter": torch.nn.Parameter(shared.clone()),
        "buffer": torch.nn.Buffer(shared.clone()),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    torch.save(network().state_dict(), FOLDER / "zip.pth")
    torch.save(network().state_dict(), FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(training_run(network()), FOLDER / "run.pth")
    torch.save(training_run(network()), FOLDER / "run_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(odd_tensors(), FOLDER / "odd.pth")
    torch.save(odd_tensors(), FOLDER / "odd_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(network(), FOLDER / "module.pth")


if __name__ == "__main__":
    main()
