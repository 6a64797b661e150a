"""The operator census, of real bundles and of graphs that break a promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from dyx.bundle import Bundle, read_bundle
from dyx.census import broken_promises, onnx_census, paddle_census, take_census
from dyx.errors import BundleAltered


def test_census_of_alexnet(bundles: Path) -> None:
    plain, dynamic = (onnx_census(read_bundle(bundles / name)) for name in ("alexnet-bn", "alexnet-dy"))
    assert plain.operators["Conv"] == 5
    assert plain.operators["MaxPool"] == 3
    # 97 million multiply-accumulates per image, by hand from the layer table.
    convolutions = 48 * 363 * 32**2 + 128 * 1200 * 15**2 + (192 * 1152 + 192 * 1728 + 128 * 1728) * 49
    linears = 1152 * 2048 + 2048 * 2048 + 2048 * 10
    assert plain.macs == convolutions + linears
    assert dynamic.macs is not None
    assert 1.35 < dynamic.macs / plain.macs < 1.45
    assert dynamic.free_batch
    assert dynamic.opset == 17
    assert dynamic.foreign_domains == ()


def test_every_bundle_keeps_its_promises(dy_bundle: Path) -> None:
    for census in take_census(read_bundle(dy_bundle)):
        assert broken_promises(census, "dynamic", computed_kernels=False) == ()
        assert census.parameters is not None
        assert census.parameters > 8_000_000


def test_broken_promises_are_named(dy_bundle: Path) -> None:
    census = replace(
        onnx_census(read_bundle(dy_bundle)), foreign_domains=("com.microsoft",), computed_kernels=2, free_batch=False
    )
    assert broken_promises(census, "dynamic", computed_kernels=False) == (
        "model.onnx: operators of other domains: com.microsoft",
        "model.onnx: 2 convolutions with a computed kernel that the plan did not choose",
        "model.onnx: the batch is frozen, where the plan says dynamic",
    )
    assert len(broken_promises(census, 1, computed_kernels=True)) == 1


def test_computed_kernels_and_frozen_batch_are_seen(tmp_path: Path) -> None:
    import dyx

    rule = ("dyconv/aggregate-kernel",)
    bundle = dyx.export("alexnet-dy", out=tmp_path / "one", batch=1, formats=("onnx",), fold=rule)
    (census,) = take_census(bundle)
    assert census.computed_kernels == 3
    assert not census.free_batch


def test_arithmetic_is_counted_per_image_of_a_frozen_batch_too(two_graphs_class: str, tmp_path: Path) -> None:
    import dyx

    options = {"shape": (3, 7, 7), "formats": ("onnx",), "fold": ("dyconv/mix-inputs", "conv/direct")}
    free = dyx.export(two_graphs_class, out=tmp_path / "free", one_graph=True, **options)
    frozen = dyx.export(two_graphs_class, out=tmp_path / "frozen", batch=4, **options)
    assert onnx_census(frozen).macs == onnx_census(free).macs


@pytest.mark.parametrize(("of_image", "computed"), [(True, 1), (False, 0)])
def test_kernel_that_depends_on_the_input_is_seen_in_a_paddle_program(
    tmp_path: Path, of_image: bool, computed: int
) -> None:
    """A standardised weight is computed too, but it is always the same."""
    import paddle

    class Computed(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.weight = self.create_parameter([1, 3, 1, 1])

        def forward(self, image):
            kernel = image[:, :, :1, :1] if of_image else self.weight - self.weight.mean()
            return paddle.nn.functional.conv2d(image, kernel)

    spec = paddle.static.InputSpec([1, 3, 8, 8], "float32", "image")
    paddle.jit.save(Computed(), str(tmp_path / "model"), input_spec=[spec])
    census = paddle_census(Bundle(tmp_path, {}))
    assert census.computed_kernels == computed
    assert not census.free_batch


def test_foreign_domain_is_seen(altered: Path) -> None:
    model = onnx.load(altered / "model.onnx")
    model.graph.node[0].domain = "com.example"
    onnx.save(model, altered / "model.onnx")
    assert onnx_census(read_bundle(altered, verify=False)).foreign_domains == ("com.example",)


def test_program_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(BundleAltered, match="is no Paddle program"):
        paddle_census(Bundle(tmp_path, {}))
