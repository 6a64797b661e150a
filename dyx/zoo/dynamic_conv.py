"""ResNets and MobileNets with dynamic convolutions (DY-Conv).

Source: Chen et al., "Dynamic Convolution: Attention over Convolution Kernels", CVPR 2020, which has no official code.
The ResNets are those of kaijieshi7's Dynamic-convolution-Pytorch, keys included: stem and classifier are plain.
The MobileNets are read from the paper, by its parameter counts; `dynamic_conv` tells how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from dyx.errors import UnknownName
from dyx.nn.dyconv import DYConv2D
from dyx.nn.dynamic_conv import DynamicConv2D
from dyx.zoo.mobilenetv2 import MobileNetV2
from dyx.zoo.mobilenetv3 import MobileNetV3Small
from dyx.zoo.resnet import resnet18, resnet50
from dyx.zoo.spot import Spot, plain_conv


@dataclass(frozen=True)
class Conversion:
    """How a backbone becomes dynamic.

    Attributes:
        backbone: Builds it, given `conv`.
        layer: Makes a dynamic convolution without bias from (experts, channels in, channels out, kernel, geometry).
        plain: The roles that stay plain.
    """

    backbone: Callable[..., Any]
    layer: Callable[..., Any]
    plain: frozenset[str]

    def build(self, experts: int, classes: int = 1000) -> Any:
        """The network."""

        def make(spot: Spot, channels_in: int, channels_out: int, kernel: int, /, **geometry: Any) -> Any:
            if spot.role in self.plain:
                return plain_conv(spot, channels_in, channels_out, kernel, **geometry)
            return self.layer(experts, channels_in, channels_out, kernel, **geometry)

        return self.backbone(conv=make, classes=classes)


def _reference_layer(experts: int, channels_in: int, channels_out: int, kernel: int, **geometry: Any) -> DynamicConv2D:
    # The layer's own default is the temperature that training starts with; a network is used at the one it ends with.
    return DynamicConv2D(channels_in, channels_out, kernel, bias=False, K=experts, temperature=1.0, **geometry)


def _paper_layer(experts: int, channels_in: int, channels_out: int, kernel: int, **geometry: Any) -> DYConv2D:
    return DYConv2D(channels_in, channels_out, kernel, bias_attr=False, num_experts=experts, **geometry)


_FIRST_HIDDEN = 1280
"""Hidden channels of MobileNetV3-Small's classifier in the first version of its paper."""

CONVERSIONS: Mapping[str, Conversion] = {
    "resnet18": Conversion(resnet18, _reference_layer, frozenset({"stem"})),
    "resnet50": Conversion(resnet50, _reference_layer, frozenset({"stem"})),
    "mobilenetv2-100": Conversion(MobileNetV2, _paper_layer, frozenset({"stem", "last"})),
    "mobilenetv3-small": Conversion(partial(MobileNetV3Small, hidden=_FIRST_HIDDEN), _paper_layer, frozenset({"stem"})),
}


def dynamic_conv(backbone: str, experts: int = 4, classes: int = 1000) -> Any:
    """A backbone with dynamic convolutions, at their final temperature, 1.

    | K=4 | trainable parameters | published |
    |---|---:|---:|
    | resnet18 | 45,475,008 | 45.47M |
    | resnet50 | 100,895,176 | 100.9M |
    | mobilenetv2-100 | 11,149,736 | 11.1M |
    | mobilenetv3-small | 4,781,254 | 4.8M |

    The paper makes every convolution but the first one dynamic and says no more. Attention with C // 4 hidden channels
    and biases, convolutions without biases and plain classifiers come nearest to its counts. Its MobileNetV2 comes out
    where the last 1×1 convolution stays plain too (12.4M where it does not): 7.01M, 3.95M and 2.69M at widths 0.75, 0.5
    and 0.35, published as 7M, 4.0M and 2.8M. Its MobileNetV3-Small comes out with 1280 hidden channels in the
    classifier, not 1024: the plain network then has the 2.9M (2,946,568) that its own paper published first.

    Args:
        backbone: A name of CONVERSIONS.
        experts: Kernels K of each layer.
        classes: How many logits.

    Raises:
        UnknownName.
    """
    if backbone not in CONVERSIONS:
        raise UnknownName("backbone", backbone, tuple(CONVERSIONS))
    return CONVERSIONS[backbone].build(experts, classes)
