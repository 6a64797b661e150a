"""ResNets and MobileNetV2 with omni-dimensional dynamic convolutions.

Source: Li et al., "Omni-Dimensional Dynamic Convolution", ICLR 2022, and its official code, whose keys are kept: the
stem, the shortcuts' convolutions and the classifier stay plain, every other convolution is dynamic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dyx.errors import UnknownName
from dyx.nn.odconv import ODConv2D
from dyx.zoo.mobilenetv2 import MobileNetV2
from dyx.zoo.resnet import resnet18, resnet50
from dyx.zoo.spot import ConvMaker, Spot, plain_conv

BACKBONES: Mapping[str, Callable[..., Any]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenetv2-100": partial(MobileNetV2, 1.0),
    "mobilenetv2-050": partial(MobileNetV2, 0.5),
}
PLAIN_ROLES = frozenset({"stem", "downsample"})


def odconv(backbone: str, experts: int, classes: int = 1000) -> Any:
    """A backbone with ODConv layers.

    | trainable parameters | K=1 | K=2 | K=4 |
    |---|---:|---:|---:|
    | resnet18 | 11,943,944 | 22,930,056 | 44,901,640 |
    | resnet50 | 28,635,112 | 49,314,696 | 90,670,888 |
    | mobilenetv2-100 | 4,940,185 | 7,131,719 | 11,512,149 |
    | mobilenetv2-050 | 2,425,537 | 3,096,167 | 4,435,501 |

    Args:
        backbone: A name of BACKBONES.
        experts: Kernels K of each layer.
        classes: How many logits.

    Raises:
        UnknownName.
    """
    if backbone not in BACKBONES:
        raise UnknownName("backbone", backbone, tuple(BACKBONES))
    return BACKBONES[backbone](conv=_maker(experts), classes=classes)


def _maker(experts: int) -> ConvMaker:
    def make(spot: Spot, channels_in: int, channels_out: int, kernel: int, /, **geometry: Any) -> Any:
        if spot.role in PLAIN_ROLES:
            return plain_conv(spot, channels_in, channels_out, kernel, **geometry)
        return ODConv2D(channels_in, channels_out, kernel, kernel_num=experts, **geometry)

    return make
