"""The reference models: a model is a row in a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dyx.preprocess import Preprocess
from dyx.registry import Registry
from dyx.zoo.data import CIFAR10, CIFAR10_GATES, CIFAR100, IMAGENET, DataSet


@dataclass(frozen=True)
class Model:
    """One reference model.

    Attributes:
        name: As the command line takes it.
        builder: `"module:function"` that builds it.
        arguments: What that function is called with.
        parameters: Numbers in its state dict, running statistics included, as `paddle.summary` counts.
        layers: Its layers, in words.
        baseline: The plain network that it is measured against, or None.
        data: The data set that it is made for.
        fixed_size: Whether its linear layers know the input's size, so that it takes no other.
    """

    name: str
    builder: str
    arguments: tuple[Any, ...]
    parameters: int
    layers: str
    baseline: str | None = None
    data: DataSet = IMAGENET
    fixed_size: bool = False

    @property
    def paper(self) -> str:
        """Where it comes from."""
        return PAPERS[self.builder]

    def to_json(self) -> dict[str, Any]:
        """What `dyx models --json` prints of it."""
        top1, source = PUBLISHED.get(self.name, (None, None))
        return {
            "name": self.name,
            "layers": self.layers,
            "parameters": self.parameters,
            "data": self.data.name,
            "shape": list(self.shape),
            "classes": len(self.labels),
            "baseline": self.baseline,
            "paper": self.paper,
            "top1": top1,
            "top1_source": source,
        }

    @property
    def shape(self) -> tuple[int, int, int]:
        """Input `(channels, height, width)`."""
        return self.data.shape

    @property
    def labels(self) -> tuple[str, ...]:
        """One per class."""
        return self.data.labels

    @property
    def preprocess(self) -> Preprocess:
        """From a picture to its input."""
        return self.data.preprocess


_ALEX = "dyx.zoo.alexnet:"
_CC = "dyx.zoo.condconv:condconv_mobilenetv2"
_KW = "dyx.zoo.kernelwarehouse:kernelwarehouse"
_OD = "dyx.zoo.odconv:odconv"
_DY = "dyx.zoo.dynamic_conv:dynamic_conv"

# fmt: off
MODELS: tuple[Model, ...] = (
    Model("alexnet", _ALEX + "alexnet", (), 7_524_042, "5 conv", None, CIFAR10_GATES, True),
    Model("alexnet-bn", _ALEX + "alexnet_bn", (), 7_526_794, "5 conv + BN", None, CIFAR10, True),
    Model("alexnet-dy", _ALEX + "alexnet_dy", (), 8_324_368, "3 dynamic (K=2)", "alexnet-bn", CIFAR10, True),
    Model("alexnet-eca", _ALEX + "alexnet_eca", (), 7_524_061, "5 conv + ECA", "alexnet", CIFAR10_GATES, True),
    Model("alexnet-na", _ALEX + "alexnet_na", (), 7_524_052, "5 conv + NA", "alexnet", CIFAR10_GATES, True),
    Model("alexnet-nanet", _ALEX + "alexnet_nanet", (), 7_524_052, "5 conv + NANet", "alexnet", CIFAR10_GATES, True),
    Model("resnet18-cifar", "dyx.zoo.resnet:resnet18_cifar", (), 11_237_412, "20 conv + BN", None, CIFAR100),
    Model("resnet18-na", "dyx.zoo.resnet:resnet18_na", (), 11_237_428, "conv + BN, 8 NA", "resnet18-cifar", CIFAR100),
    Model("resnet18", "dyx.zoo.resnet:resnet18", (), 11_699_112, "20 conv + BN"),
    Model("resnet50", "dyx.zoo.resnet:resnet50", (), 25_610_152, "53 conv + BN"),
    Model("mobilenetv2-100", "dyx.zoo.mobilenetv2:mobilenetv2", (1.0,), 3_538_984, "52 conv + BN"),
    Model("mobilenetv2-050", "dyx.zoo.mobilenetv2:mobilenetv2", (0.5,), 1_987_224, "52 conv + BN"),
    Model("mobilenetv3-small", "dyx.zoo.mobilenetv3:mobilenetv3_small", (), 2_554_968, "conv + BN, 9 SE"),
    Model("convnext-tiny", "dyx.zoo.convnext:convnext_tiny", (), 28_589_128, "58 conv + LN"),
    Model("kw1d4x-resnet18", _KW, ("resnet18", "1d4x"), 4_042_072, "19 KW conv", "resnet18"),
    Model("kw1d2x-resnet18", _KW, ("resnet18", "1d2x"), 7_441_348, "19 KW conv", "resnet18"),
    Model("kw1x-resnet18", _KW, ("resnet18", "1x"), 11_942_452, "19 KW conv", "resnet18"),
    Model("kw2x-resnet18", _KW, ("resnet18", "2x"), 23_252_431, "19 KW conv", "resnet18"),
    Model("kw4x-resnet18", _KW, ("resnet18", "4x"), 45_872_389, "19 KW conv", "resnet18"),
    Model("kw1d2x-resnet50", _KW, ("resnet50", "1d2x"), 17_694_456, "50 KW conv", "resnet50"),
    Model("kw1x-resnet50", _KW, ("resnet50", "1x"), 28_108_502, "50 KW conv", "resnet50"),
    Model("kw4x-resnet50", _KW, ("resnet50", "4x"), 102_071_336, "50 KW conv", "resnet50"),
    Model("kw1d2x-mobilenetv2-100", _KW, ("mobilenetv2-100", "1d2x"), 2_689_568, "26 KW layers", "mobilenetv2-100"),
    Model("kw1x-mobilenetv2-100", _KW, ("mobilenetv2-100", "1x"), 5_204_826, "52 KW conv", "mobilenetv2-100"),
    Model("kw4x-mobilenetv2-100", _KW, ("mobilenetv2-100", "4x"), 11_416_062, "52 KW conv", "mobilenetv2-100"),
    Model("kw1d2x-mobilenetv2-050", _KW, ("mobilenetv2-050", "1d2x"), 1_486_312, "26 KW layers", "mobilenetv2-050"),
    Model("kw1x-mobilenetv2-050", _KW, ("mobilenetv2-050", "1x"), 2_874_922, "52 KW conv", "mobilenetv2-050"),
    Model("kw4x-mobilenetv2-050", _KW, ("mobilenetv2-050", "4x"), 4_668_987, "52 KW conv", "mobilenetv2-050"),
    Model("kw1x-convnext-tiny", _KW, ("convnext-tiny", "1x"), 39_370_674, "58 KW conv", "convnext-tiny"),
    Model("odconv1x-resnet18", _OD, ("resnet18", 1), 11_954_152, "16 ODConv (K=1)", "resnet18"),
    Model("odconv2x-resnet18", _OD, ("resnet18", 2), 22_940_264, "16 ODConv (K=2)", "resnet18"),
    Model("odconv4x-resnet18", _OD, ("resnet18", 4), 44_911_848, "16 ODConv (K=4)", "resnet18"),
    Model("odconv1x-resnet50", _OD, ("resnet50", 1), 28_691_112, "48 ODConv (K=1)", "resnet50"),
    Model("odconv2x-resnet50", _OD, ("resnet50", 2), 49_370_696, "48 ODConv (K=2)", "resnet50"),
    Model("odconv4x-resnet50", _OD, ("resnet50", 4), 90_726_888, "48 ODConv (K=4)", "resnet50"),
    Model("odconv1x-mobilenetv2-100", _OD, ("mobilenetv2-100", 1), 4_976_833, "51 ODConv (K=1)", "mobilenetv2-100"),
    Model("odconv2x-mobilenetv2-100", _OD, ("mobilenetv2-100", 2), 7_168_367, "51 ODConv (K=2)", "mobilenetv2-100"),
    Model("odconv4x-mobilenetv2-100", _OD, ("mobilenetv2-100", 4), 11_548_797, "51 ODConv (K=4)", "mobilenetv2-100"),
    Model("odconv1x-mobilenetv2-050", _OD, ("mobilenetv2-050", 1), 2_445_905, "51 ODConv (K=1)", "mobilenetv2-050"),
    Model("odconv2x-mobilenetv2-050", _OD, ("mobilenetv2-050", 2), 3_116_535, "51 ODConv (K=2)", "mobilenetv2-050"),
    Model("odconv4x-mobilenetv2-050", _OD, ("mobilenetv2-050", 4), 4_455_869, "51 ODConv (K=4)", "mobilenetv2-050"),
    Model("condconv8x-mobilenetv2-100", _CC, (), 22_911_608, "CondConv (K=8)", "mobilenetv2-100"),
    Model("dy4x-resnet18", _DY, ("resnet18",), 45_484_608, "19 dynamic (K=4)", "resnet18"),
    Model("dy4x-resnet50", _DY, ("resnet50",), 100_948_296, "52 dynamic (K=4)", "resnet50"),
    Model("dy4x-mobilenetv2-100", _DY, ("mobilenetv2-100",), 11_183_848, "50 dynamic (K=4)", "mobilenetv2-100"),
    Model("dy4x-mobilenetv3-small", _DY, ("mobilenetv3-small",), 4_793_366, "33 dynamic (K=4)", "mobilenetv3-small"),
)

_ARTICLES = "validation accuracy of the articles"
_KW_README = "KernelWarehouse's README, 300 epochs"
_KW_README_150 = "KernelWarehouse's README, 150 epochs"
_OD_README = "ODConv's README"
_DY_PAPER = "the paper's first version"
_REPRINT = "a reprint of KernelWarehouse's table 1, 100 epochs"
_DERIVED = "derived from KernelWarehouse's gains, 300 epochs"

PUBLISHED: Mapping[str, tuple[float, str]] = {
    "alexnet": (79.67, _ARTICLES),
    "alexnet-bn": (78.72, _ARTICLES),
    "alexnet-dy": (82.09, _ARTICLES),
    "alexnet-eca": (84.34, _ARTICLES),
    "alexnet-na": (84.58, _ARTICLES),
    "resnet18-cifar": (67.35, _ARTICLES),
    "resnet18-na": (68.43, _ARTICLES),
    "resnet18": (70.44, _KW_README),
    "resnet50": (78.44, _KW_README),
    "mobilenetv2-100": (72.04, _KW_README_150),
    "mobilenetv2-050": (64.32, _KW_README_150),
    "mobilenetv3-small": (67.4, "its paper"),
    "convnext-tiny": (82.07, _KW_README),
    "kw1d4x-resnet18": (72.73, _KW_README),
    "kw1d2x-resnet18": (73.33, _KW_README),
    "kw1x-resnet18": (74.77, _KW_README),
    "kw2x-resnet18": (75.19, _KW_README),
    "kw4x-resnet18": (76.05, _KW_README),
    "kw1d2x-resnet50": (79.3, _KW_README),
    "kw1x-resnet50": (80.38, _KW_README),
    "kw4x-resnet50": (81.05, _KW_README),
    "kw1d2x-mobilenetv2-100": (72.59, _KW_README_150),
    "kw1x-mobilenetv2-100": (74.68, _KW_README_150),
    "kw4x-mobilenetv2-100": (75.92, _KW_README_150),
    "kw1d2x-mobilenetv2-050": (65.2, _KW_README_150),
    "kw1x-mobilenetv2-050": (68.29, _KW_README_150),
    "kw4x-mobilenetv2-050": (70.26, _KW_README_150),
    "kw1x-convnext-tiny": (82.51, _KW_README),
    "odconv1x-resnet18": (73.05, _OD_README),
    "odconv4x-resnet18": (74.19, _OD_README),
    "odconv1x-resnet50": (77.87, _OD_README),
    "odconv4x-resnet50": (78.5, _OD_README),
    "odconv1x-mobilenetv2-100": (74.74, _OD_README),
    "odconv4x-mobilenetv2-100": (75.29, _OD_README),
    "odconv1x-mobilenetv2-050": (68.06, _OD_README),
    "odconv4x-mobilenetv2-050": (70.23, _OD_README),
    "dy4x-resnet18": (72.76, _REPRINT),
    "dy4x-resnet50": (79.0, _DERIVED),
    "dy4x-mobilenetv2-100": (74.4, _DY_PAPER),
    "dy4x-mobilenetv3-small": (69.7, _DY_PAPER),
}
"""Model → top-1 accuracy in percent on its data set as published, and where."""
# fmt: on

PAPERS: Mapping[str, str] = {
    _ALEX + "alexnet": "Krizhevsky et al., NIPS 2012",
    _ALEX + "alexnet_bn": "Krizhevsky et al., NIPS 2012",
    _ALEX + "alexnet_dy": "Chen et al., CVPR 2020",
    _ALEX + "alexnet_eca": "Wang et al., CVPR 2020",
    _ALEX + "alexnet_na": "an article's form of NANet",
    _ALEX + "alexnet_nanet": "NANet",
    "dyx.zoo.resnet:resnet18_cifar": "He et al., CVPR 2016",
    "dyx.zoo.resnet:resnet18_na": "an article's form of NANet",
    "dyx.zoo.resnet:resnet18": "He et al., CVPR 2016",
    "dyx.zoo.resnet:resnet50": "He et al., CVPR 2016",
    "dyx.zoo.mobilenetv2:mobilenetv2": "Sandler et al., CVPR 2018",
    "dyx.zoo.mobilenetv3:mobilenetv3_small": "Howard et al., ICCV 2019",
    "dyx.zoo.convnext:convnext_tiny": "Liu et al., CVPR 2022",
    _CC: "Yang et al., NeurIPS 2019",
    _DY: "Chen et al., CVPR 2020",
    _KW: "Li and Yao, ICML 2024",
    _OD: "Li et al., ICLR 2022",
}
"""Builder → the paper that its networks come from."""

BUILDERS = Registry("model", {model.name: model.builder for model in MODELS})
_BY_NAME: Mapping[str, Model] = {model.name: model for model in MODELS}


def find_model(name: str) -> Model:
    """The row of a name. Raises UnknownName, with the nearest known one."""
    return _BY_NAME[BUILDERS.check(name)]


def build(name: str, classes: int | None = None) -> Any:
    """A model by name, a Paddle Layer in eval mode with weights yet to be set.

    Args:
        name: Of MODELS.
        classes: How many logits; by default one per class of the data set that it is made for.

    Raises:
        UnknownName, PackageMissing.
    """
    model = find_model(name)
    network = BUILDERS.get(name)(*model.arguments, classes=classes or len(model.labels))
    network.eval()
    return network
