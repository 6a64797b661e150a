"""Static convolutions: zeros put beside an image, so that the convolution that reads it pads none."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import paddle
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from paddle import nn

import dyx
from dyx.bundle import ONNX_MODEL, Bundle
from dyx.exporter.algebra import Affine
from dyx.exporter.apply import default_dtype
from dyx.exporter.folded.constants import SharedConstants
from dyx.exporter.plan import make_plan
from dyx.exporter.rule import MACHINES, Neighbour, Offer, Refusal, Site, Target
from dyx.exporter.rules.conv import RULES
from dyx.exporter.trace import trace_sites
from dyx.nn.eca import ECA
from dyx.nn.experts import Experts
from dyx.nn.geometry import Geometry
from dyx.runtime.openvino import shared_core

PADDED = "conv/padded-map"
CASES: dict[str, dict[str, Any]] = {
    "11, stride 4": {"kernel": (11, 11), "stride": (4, 4), "padding": (5, 5), "size": (21, 33)},
    "11, stride 4, padding 2": {"kernel": (11, 11), "stride": (4, 4), "padding": (2, 2), "size": (28, 19)},
    "7, stride 2": {"kernel": (7, 7), "stride": (2, 2), "padding": (3, 3), "size": (12, 16)},
    "7, stride 1": {"kernel": (7, 7), "stride": (1, 1), "padding": (3, 3), "size": (8, 9)},
    "lines unpadded": {"kernel": (3, 9), "stride": (1, 2), "padding": (0, 4), "size": (7, 12)},
    "as wide as the map": {"kernel": (7, 7), "stride": (2, 3), "padding": (1, 6), "size": (9, 6)},
}


def rule_of(name: str) -> Any:
    return next(rule for rule in RULES if rule.id == name)


def site_of(
    kernel: tuple[int, int] = (11, 11),
    stride: tuple[int, int] = (4, 4),
    padding: tuple[int, int] = (5, 5),
    size: tuple[int, int] = (128, 128),
    channels: int = 3,
    outputs: int = 8,
    *,
    bias: bool = False,
    norm: bool = False,
) -> Site:
    random = np.random.default_rng(3)
    weight = random.standard_normal((1, outputs, channels, *kernel))
    biases = random.standard_normal((1, outputs)) if bias else None
    walk = Geometry(kernel, stride, padding, (1, 1), 1)
    lines, columns = (
        (length + 2 * pad - taps) // step + 1
        for length, pad, taps, step in zip(size, padding, kernel, stride, strict=True)
    )
    affine = Affine(random.standard_normal(outputs), random.standard_normal(outputs))
    after = (Neighbour("norm", "batch-norm", affine=affine),) if norm else ()
    layer = Experts(weight, biases, walk)
    return Site("stem", "conv", "Conv2D", layer, (channels, *size), (outputs, lines, columns), after=after)


def defined(site: Site, x: np.ndarray) -> np.ndarray:
    """The convolution and the batch norm after it, by their definitions."""
    walk, layer = site.layer.geometry, site.layer
    (lines, columns), (down, across) = walk.padding, walk.stride
    map_ = np.pad(x, ((0, 0), (0, 0), (lines, lines), (columns, columns)))
    windows = sliding_window_view(map_, walk.kernel, axis=(2, 3))[:, :, ::down, ::across]
    y = np.einsum("bcijhw,ochw->boij", windows, layer.weight[0])
    if layer.bias is not None:
        y += layer.bias[0][:, None, None]
    if site.affine is not None:
        y = y * site.affine.scale[:, None, None] + site.affine.shift[:, None, None]
    return y


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("extras", [{}, {"bias": True}, {"bias": True, "norm": True}], ids=["alone", "bias", "norm"])
@pytest.mark.parametrize("case", CASES)
def test_padded_map_is_the_convolution(case: str, extras: dict[str, bool], dtype: str) -> None:
    for channels in (1, 3):
        site = site_of(**CASES[case], channels=channels, **extras)
        offer = rule_of(PADDED).offer(site, Target())
        assert isinstance(offer, Offer)
        assert offer.takes == (("norm",) if "norm" in extras else ())
        with default_dtype(dtype):
            folded = offer.build(SharedConstants())
        for batch in (1, 3):
            x = np.random.default_rng(batch).standard_normal((batch, channels, *CASES[case]["size"]))
            wanted = defined(site, x)
            assert wanted.shape[1:] == site.output_shape
            got = folded(paddle.to_tensor(x.astype(dtype))).numpy()
            assert got.dtype == dtype
            np.testing.assert_allclose(got, wanted, rtol=0, atol=np.abs(wanted).max() * tolerance(dtype))


def tolerance(dtype: str) -> float:
    return 1e-9 if dtype == "float64" else 1e-5


@pytest.mark.parametrize(
    ("wanted", "site"),
    [
        ("it reads 4 channels, no image", site_of(channels=4)),
        ("its kernel has 5 columns, less than 7", site_of(kernel=(11, 5))),
        ("it pads 0 columns beside 128", site_of(padding=(5, 0))),
        ("it pads 5 columns beside 4", site_of(size=(128, 4))),
    ],
)
def test_where_padding_costs_nothing_no_zeros_are_put(wanted: str, site: Site) -> None:
    assert rule_of(PADDED).offer(site, Target(backend="openvino")) == Refusal(wanted)
    assert make_plan([site], Target(backend="openvino")).decisions == ()


def test_zeros_are_put_where_that_costs_less_than_padding() -> None:
    """On OpenVINO arithmetic takes longer where columns are padded; elsewhere the copy of the map is for nothing."""
    for backend, machines in MACHINES.items():
        for cpu, machine in machines.items():
            target = Target(backend=backend, cpu=cpu)
            decisions = make_plan([site_of(outputs=64)], target).decisions
            assert [found.rule for found in decisions] == ([PADDED] if machine.padding_slows > 1 else []), backend
    assert make_plan([site_of(outputs=1)], Target(backend="openvino")).decisions == (), "too little arithmetic"


def test_the_copy_of_the_map_is_counted() -> None:
    as_it_stands, padded = (rule_of(name).offer(site_of(), Target()).cost for name in ("conv/direct", PADDED))
    assert as_it_stands.padded_macs == as_it_stands.macs == padded.macs
    assert padded.padded_macs == 0
    assert padded.bytes - as_it_stands.bytes == 4 * 3 * 128 * (128 + 138)


class Stem(nn.Layer):
    """Reads an image with a wide kernel; what follows has a gate."""

    def __init__(self) -> None:
        super().__init__()
        paddle.seed(0)
        self.first, self.norm = nn.Conv2D(3, 32, 11, 4, 5), nn.BatchNorm2D(32)
        self.pool, self.gate = nn.MaxPool2D(3, 2), ECA(32)
        self.second, self.head = nn.Conv2D(32, 8, 3, stride=2), nn.Linear(8, 10)

    def forward(self, image: Any) -> Any:
        relu = nn.functional.relu
        x = self.gate(self.pool(relu(self.norm(self.first(image)))))
        return self.head(relu(self.second(x)).mean([2, 3]))


def test_a_strided_convolution_is_a_site_where_it_reads_an_image_with_a_wide_kernel() -> None:
    net = Stem().to(dtype="float64")
    net.eval()
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 64))
    sites = trace_sites(net, image, "net").sites
    assert [(site.path, site.kind) for site in sites] == [("first", "conv"), ("gate", "gate")]
    assert sites[0].layer.geometry == Geometry((11, 11), (4, 4), (5, 5), (1, 1), 1)
    for narrow in (nn.Conv2D(3, 32, 5, 2, 2), nn.Conv2D(3, 32, (11, 5), 4, 2), nn.Conv2D(3, 32, 11, 4, 5, 2)):
        net.first = narrow.to(dtype="float64")
        net.eval()
        assert "first" not in [site.path for site in trace_sites(net, image, "net").sites]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("stem") / "bundle"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Tensor do not have")  # nothing that a user could do anything about
        return dyx.export(f"{__file__}:Stem", shape=(3, 64, 64), out=out, tune_backend="openvino", tune_batch=8)


def test_every_backend_gives_the_answers_of_float64(bundle: Bundle) -> None:
    rules = {site["path"]: site["rule"] for site in bundle.manifest["plan"]["sites"]}
    assert rules["first"] == PADDED, "a gate nearby forbids what rounds otherwise alone"
    report = dyx.check(bundle, batches=(1, 3, 8))
    assert not report.faults
    assert [verdict.sentence() for verdict in report.parity.verdicts if not verdict.passed] == []


def test_runtimes_leave_the_zeros_in_the_map(bundle: Bundle, tmp_path: Path) -> None:
    """Both take a padding operator back into the convolution, and are as slow as before."""
    path = str(bundle.file(ONNX_MODEL))
    executed = shared_core().compile_model(path, "CPU").get_runtime_model().get_ordered_ops()
    assert "Concatenation" in {node.get_rt_info()["layerType"].astype(str) for node in executed}
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    attributes = [{one.name: list(one.ints) for one in node.attribute} for node in nodes]
    (pads,) = (found["pads"] for found in attributes if found.get("kernel_shape") == [11, 11])
    assert pads == [5, 0, 5, 0] and "Concat" in {node.op_type for node in nodes}
