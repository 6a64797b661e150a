"""The released KernelWarehouse networks: ResNet-18, ResNet-50, MobileNetV2 and ConvNeXt-T on shared cells.

Source: Li et al., "KernelWarehouse: Rethinking the Design of Dynamic Convolution", ICML 2024: the configurations and
state-dict keys of its official code. "1d4x" is a warehouse of a quarter of a cell per mixture, "4x" one of four.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dyx.errors import UnknownName
from dyx.nn.kernelwarehouse import WarehouseManager
from dyx.zoo.convnext import ConvNeXt
from dyx.zoo.mobilenetv2 import MobileNetV2
from dyx.zoo.resnet import resnet18, resnet50
from dyx.zoo.spot import Spot, plain_conv, plain_linear

Naming = Callable[[Spot], str | None]
"""The name under which the layer of a spot is reserved; None where it is a plain one."""


@dataclass(frozen=True)
class Makers:
    """Makes the layers of a backbone: reserved with a manager where they have a name, else plain.

    Attributes:
        manager: Of the network's warehouses.
        name: Which spots are dynamic, and which of them share a warehouse.
    """

    manager: WarehouseManager
    name: Naming

    def conv(  # noqa: PLR0913 - ConvMaker's signature
        self,
        spot: Spot,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = False,
    ) -> Any:
        """A ConvMaker."""
        name = self.name(spot)
        walk: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups, "bias": bias}
        if name is None:
            return plain_conv(spot, channels_in, channels_out, kernel, **walk)
        return self.manager.reserve(channels_in, channels_out, kernel, warehouse_name=name, **walk)

    def linear(self, spot: Spot, channels_in: int, channels_out: int) -> Any:
        """A LinearMaker."""
        name = self.name(spot)
        if name is None:
            return plain_linear(spot, channels_in, channels_out)
        return self.manager.reserve(channels_in, channels_out, warehouse_name=name, layer_type="linear")


@dataclass(frozen=True)
class Release:
    """A released configuration.

    Attributes:
        backbone: Builds the network from its makers and the number of classes.
        name: Names its layers.
        options: Of its WarehouseManager.
    """

    backbone: Callable[[Makers, int], Any]
    name: Naming
    options: Mapping[str, Any]

    def build(self, classes: int = 1000) -> Any:
        """The network, its cells handed out."""
        manager = WarehouseManager(**self.options)
        network = self.backbone(Makers(manager, self.name), classes)
        network.warehouse_manager = manager
        manager.allocate(network)
        return network


def resnet18_name(spot: Spot) -> str | None:
    """One warehouse per stage; a stage's first convolution and its downsample go to the stage before."""
    if spot.role == "stem":
        return None
    handed_over = spot.stage > 0 and spot.block == 0 and spot.role in ("conv1", "downsample")
    return f"stage{spot.stage - handed_over}_layer{spot.block}_conv"


def resnet50_name(spot: Spot) -> str | None:
    """As in ResNet-18, but the first 1×1 convolutions that see the stem stay plain."""
    first = spot.stage == 0 and spot.block == 0 and spot.role in ("conv1", "downsample")
    return None if first else resnet18_name(spot)


_MOBILENETV2_STAGES = (1, 2, 3, 4, 5, 6, 6)
"""Of each setting: the last two share stage 6."""

_POINTWISE = {"expand": "pwconv0", "project": "pwconv1", "last": "pwconv1"}


def mobilenetv2_name(spot: Spot) -> str | None:
    """Point-wise and depthwise convolutions apart; the first block of a stage goes to the stage before."""
    if spot.role in ("stem", "classifier"):
        return "stage0_conv0" if spot.role == "stem" else None
    stage, before = (_MOBILENETV2_STAGES[max(setting, 0)] for setting in (spot.stage, spot.stage - 1))
    handed_over = spot.block == 0 and stage != before
    return f"stage{stage - handed_over}_layer{spot.block}_{_POINTWISE.get(spot.role, 'dwconv0')}"


def mobilenetv2_half_name(spot: Spot) -> str | None:
    """As before, but point-wise convolutions are dynamic in stage 6 only, and the classifier is dynamic as well."""
    if spot.role == "classifier":
        return "classifier"
    name = mobilenetv2_name(spot)
    plain = spot.role in _POINTWISE and name is not None and not name.startswith("stage6")
    return None if plain else name


def convnext_name(spot: Spot) -> str:
    """Stem and downsamples each alone; per stage a depthwise and a point-wise warehouse."""
    if spot.role == "stem":
        return "stagestem_conv0"
    if spot.role == "downsample":
        return f"stage{spot.stage - 1}_layer0_conv0"
    part = {"depthwise": "dwconv0", "expand": "pwconv0", "project": "pwconv1"}[spot.role]
    return f"stage{spot.stage}_layer{spot.block}_{part}"


def _resnet18(makers: Makers, classes: int) -> Any:
    return resnet18(makers.conv, classes)


def _resnet50(makers: Makers, classes: int) -> Any:
    return resnet50(makers.conv, classes)


def _mobilenetv2(width: float, dropout: float | None) -> Callable[[Makers, int], Any]:
    return lambda makers, classes: MobileNetV2(width, makers.conv, classes, makers.linear, dropout)


def _convnext(depths: tuple[int, ...] = (3, 3, 9, 3), widths: tuple[int, ...] = (96, 192, 384, 768)) -> Release:
    options = {"sharing_range": ("layer", "pwconv"), "norm": "layer"}
    return Release(lambda makers, classes: ConvNeXt(depths, widths, makers.conv, classes), convnext_name, options)


def _by_stage(cell_num_ratio: float, cell_side: float = 1, **options: Any) -> dict[str, Any]:
    """Options of a ResNet: b, sides of a cell per greatest common divisor, and others."""
    sides = {"cell_inplane_ratio": cell_side, "cell_outplane_ratio": cell_side}
    return {"cell_num_ratio": cell_num_ratio, **sides, "sharing_range": ("layer", "conv"), **options}


_HALF_RATIOS = (1, 1, 1, 1, 1, 1, 1 / 2, 1, 1 / 2, 1 / 2)
"""Of the warehouses of a 1/2× MobileNetV2: stem, depthwise of stages 1 … 5, then stage 6 and the classifier."""

_MOBILENETV2_1X = {"cell_num_ratio": 1, "sharing_range": ("layer", "pwconv")}
_MOBILENETV2_4X = {"cell_num_ratio": 4, "sharing_range": ("layer",)}
_MOBILENETV2_HALF = {
    "reduction": 1 / 32,
    "cell_num_ratio": _HALF_RATIOS,
    "cell_inplane_ratio": (*_HALF_RATIOS[:-1], 1 / 40),
    "cell_outplane_ratio": (*_HALF_RATIOS[:-1], 1),
    "sharing_range": ("layer",),
}

RELEASES: Mapping[tuple[str, str], Release] = {
    ("resnet18", "1d4x"): Release(_resnet18, resnet18_name, _by_stage(1 / 4, 1 / 2)),
    ("resnet18", "1d2x"): Release(_resnet18, resnet18_name, _by_stage(1 / 2, 1 / 2)),
    ("resnet18", "1x"): Release(_resnet18, resnet18_name, _by_stage(1)),
    ("resnet18", "2x"): Release(_resnet18, resnet18_name, _by_stage(2)),
    ("resnet18", "4x"): Release(_resnet18, resnet18_name, _by_stage(4)),
    ("resnet50", "1d2x"): Release(_resnet50, resnet50_name, _by_stage(1 / 2, 1 / 2, nonlocal_basis_ratio=1 / 16)),
    ("resnet50", "1x"): Release(_resnet50, resnet50_name, _by_stage(1)),
    ("resnet50", "4x"): Release(_resnet50, resnet50_name, _by_stage(4)),
    ("mobilenetv2-100", "1d2x"): Release(_mobilenetv2(1.0, 0.2), mobilenetv2_half_name, _MOBILENETV2_HALF),
    ("mobilenetv2-100", "1x"): Release(_mobilenetv2(1.0, None), mobilenetv2_name, _MOBILENETV2_1X),
    ("mobilenetv2-100", "4x"): Release(_mobilenetv2(1.0, None), mobilenetv2_name, _MOBILENETV2_4X),
    ("mobilenetv2-050", "1d2x"): Release(_mobilenetv2(0.5, 0.2), mobilenetv2_half_name, _MOBILENETV2_HALF),
    ("mobilenetv2-050", "1x"): Release(_mobilenetv2(0.5, None), mobilenetv2_name, _MOBILENETV2_1X),
    ("mobilenetv2-050", "4x"): Release(_mobilenetv2(0.5, None), mobilenetv2_name, _MOBILENETV2_4X),
    ("convnext-tiny", "1x"): _convnext(),
}
"""Backbone and ratio → configuration."""


def kernelwarehouse(backbone: str, ratio: str, classes: int = 1000) -> Any:
    """A released network, its weights yet to be set.

    Args:
        backbone: "resnet18", "resnet50", "mobilenetv2-100", "mobilenetv2-050" or "convnext-tiny".
        ratio: "1d4x", "1d2x", "1x", "2x" or "4x"; not every backbone has each.
        classes: How many logits.

    Raises:
        UnknownName: No such network was released.
    """
    release = RELEASES.get((backbone, ratio))
    if release is None:
        known = [f"kw{ratio}-{backbone}" for backbone, ratio in RELEASES]
        raise UnknownName("KernelWarehouse network", f"kw{ratio}-{backbone}", known)
    return release.build(classes)


def kernelwarehouse_convnext(depths: tuple[int, ...], widths: tuple[int, ...], classes: int = 1000) -> Any:
    """A ConvNeXt of any size, configured as the released ConvNeXt-T.

    Args:
        depths: Blocks in each stage.
        widths: Channels of each stage.
        classes: How many logits.
    """
    return _convnext(depths, widths).build(classes)
