"""Every backend opens the same bundle, answers any batch, and says what is missing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dyx
from dyx.errors import BundleAltered, DeviceMissing, InvalidOption, InvalidTensor, UnknownName
from dyx.runtime import BACKENDS

INSTALLED = [pytest.param(name, id=name) for name in BACKENDS.names]


def needs_gpu() -> None:
    from dyx.runtime.cuda import CudaStream

    if CudaStream.devices() == 0:
        pytest.skip("no CUDA device, or cuda-bindings is not installed")


@pytest.mark.parametrize("backend", INSTALLED)
def test_backend_answers_any_batch_as_the_references_say(dy_bundle: Path, backend: str) -> None:
    from dyx.bundle import read_bundle

    samples = read_bundle(dy_bundle).samples()
    with dyx.open(dy_bundle, backend=backend, device="cpu") as runner:
        assert (runner.backend, runner.device) == (backend, "cpu")
        strided = runner.run(np.repeat(samples.image[:4], 2, axis=0)[::2])
        assert np.abs(strided - samples.logits[:4]).max() < 2e-5 * np.abs(samples.logits).max()
        for batch in (1, 8, 3, 8):
            got = runner.run(samples.image[:batch])
            assert got.dtype == np.float32
            assert got.shape == (batch, 10)
            assert np.abs(got - samples.logits[:batch]).max() < 2e-5 * np.abs(samples.logits).max()


@pytest.mark.parametrize(
    ("tuned", "made_for"), [(True, {8, 3, None}), (False, {None})], ids=["options of dyx", "defaults"]
)
def test_openvino_makes_a_model_for_the_first_batch_sizes(dy_bundle: Path, tuned: bool, made_for: set[Any]) -> None:
    """And one for all others; a size that comes again is answered by the model that it has."""
    from dyx.bundle import read_bundle

    samples = read_bundle(dy_bundle).samples()
    with dyx.open(dy_bundle, backend="openvino", tuned=tuned) as runner:
        for batch in (8, 3, 5, 8, 1, 3):
            got = runner.run(samples.image[:batch])
            assert np.abs(got - samples.logits[:batch]).max() < 2e-5 * np.abs(samples.logits).max()
        assert runner._requests.keys() == made_for
        shapes = {size: request.model_inputs[0].partial_shape for size, request in runner._requests.items()}
    assert {size: shape[0].is_static for size, shape in shapes.items()} == {size: size is not None for size in made_for}


def test_openvino_leaves_a_frozen_batch_as_it_is(tmp_path: Path) -> None:
    bundle = dyx.export("alexnet-bn", out=tmp_path / "frozen", formats=("onnx",), batch=2)
    with dyx.open(bundle, backend="openvino") as runner:
        assert runner.options["fixed_sizes"] == 0
        assert runner.run(bundle.samples().image[:2]).shape == (2, 10)


SIGNALLED_AFTER = """
import gc, os, signal, sys, threading
import dyx

def opened():
    runners.append(dyx.open(sys.argv[1], backend=sys.argv[2]))

runners, heard = [], []
opened()
other = threading.Thread(target=opened)
other.start(), other.join()
opened()
while runners:
    runners.pop(0).close()
    gc.collect()
signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
os.kill(os.getpid(), signal.SIGINT)
print("heard", len(heard))
"""


@pytest.mark.parametrize("backend", INSTALLED)
def test_a_signal_after_overlapping_runners_is_heard(dy_bundle: Path, backend: str) -> None:
    """Ctrl-C, or the end of a child: OpenVINO left the thread's signals on a stack that it had given back."""
    command = [sys.executable, "-c", SIGNALLED_AFTER, str(dy_bundle), backend]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "heard 1\n"), ran.stderr


@pytest.mark.parametrize("backend", INSTALLED)
def test_answers_are_the_callers_own(dy_bundle: Path, backend: str) -> None:
    """A later call must not write into an earlier answer."""
    images = np.random.default_rng(0).standard_normal((2, 2, 3, 128, 128)).astype(np.float32)
    with dyx.open(dy_bundle, backend=backend) as runner:
        first = runner.run(images[0])
        kept = first.copy()
        runner.run(images[1])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 3, 128, 128), np.float64),
        np.zeros((1, 3, 64, 128), np.float32),
        np.zeros((3, 128, 128), np.float32),
        np.zeros((0, 3, 128, 128), np.float32),
    ],
    ids=["dtype", "shape", "rank", "empty"],
)
def test_tensors_that_do_not_fit(dy_bundle: Path, image: np.ndarray) -> None:
    with dyx.open(dy_bundle) as runner, pytest.raises(InvalidTensor, match=r"wanted float32 \[batch, 3, 128, 128\]"):
        runner.run(image)


def test_auto_takes_the_first_installed_backend(dy_bundle: Path) -> None:
    with dyx.open(dy_bundle) as runner:
        assert runner.backend == "onnxruntime"


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (UnknownName, "there is no backend named 'onnxruntim'", {"backend": "onnxruntim"}),
        (InvalidOption, "--device is 'tpu'", {"device": "tpu"}),
        (InvalidOption, "--threads is 0", {"threads": 0}),
    ],
)
def test_options_that_cannot_be_used(dy_bundle: Path, error: Any, words: str, options: dict[str, Any]) -> None:
    with pytest.raises(error, match=words):
        dyx.open(dy_bundle, **options)


def test_altered_bundle_is_not_opened(altered: Path) -> None:
    (altered / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleAltered, match=r"model\.onnx has another sha256"):
        dyx.open(altered)


def test_format_that_the_bundle_lacks(tmp_path: Path) -> None:
    dyx.export("alexnet-bn", out=tmp_path / "onnx-only", formats=("onnx",), tune_batch=2)
    with pytest.raises(InvalidOption, match=r"a backend that reads what .* holds, onnx"):
        dyx.open(tmp_path / "onnx-only", backend="paddle")


@pytest.mark.parametrize("backend", INSTALLED)
def test_gpu_that_is_not_there_is_named(dy_bundle: Path, backend: str) -> None:
    """Nothing falls back to the CPU in silence."""
    if backend != "openvino" and importlib.util.find_spec("cuda"):
        pytest.skip("this machine may have a GPU")
    with pytest.raises(DeviceMissing, match=f"backend {backend} cannot use device 'gpu' here") as caught:
        dyx.open(dy_bundle, backend=backend, device="gpu")
    assert "--device cpu" in caught.value.hint


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["onnxruntime", "paddle"])
def test_gpu_agrees_with_the_references(dy_bundle: Path, backend: str) -> None:
    needs_gpu()
    from dyx.bundle import read_bundle

    samples = read_bundle(dy_bundle).samples()
    with dyx.open(dy_bundle, backend=backend, device="gpu") as runner:
        assert runner.device == "gpu"
        got = runner.run(samples.image)
        assert np.abs(got - samples.logits).max() < 2e-5 * np.abs(samples.logits).max()
        timed = runner.on_device(samples.image)
        assert timed is not None
        assert timed() > 0


def test_cpu_has_no_device_time_of_its_own(dy_bundle: Path) -> None:
    with dyx.open(dy_bundle, device="cpu") as runner:
        assert runner.on_device(np.zeros((1, 3, 128, 128), np.float32)) is None


@pytest.mark.parametrize("backend", INSTALLED)
def test_runner_leaves_nothing_behind(dy_bundle: Path, backend: str) -> None:
    """Opening and closing many times keeps no memory: a network is 33 MB, its runtime more."""
    script = f"""
import gc, sys
import numpy as np, dyx
image = np.zeros((1, 3, 128, 128), np.float32)
def use():
    with dyx.open({str(dy_bundle)!r}, backend={backend!r}) as runner:
        runner.run(image)
    gc.collect()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
for _ in range(3): use()
before = resident()
for _ in range(8): use()
grown = resident() - before
assert grown < 150, grown
"""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("resident memory is read from /proc")
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("kind", ["path", "pillow", "array", "grey array"])
def test_predict_takes_pictures_of_every_kind(dy_bundle: Path, tmp_path: Path, kind: str) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    if kind == "grey array":
        pixels = np.repeat(pixels[:, :, :1], 3, axis=2)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    picture = {
        "path": tmp_path / "x.png",
        "pillow": Image.fromarray(pixels),
        "array": pixels,
        "grey array": pixels[:, :, 0],
    }[kind]
    with dyx.open(dy_bundle) as runner:
        (scores,) = runner.predict([picture], top=3)
        logits = runner.run(runner.contract.preprocess(pixels)[None])[0]
    order = logits.argsort()[::-1][:3]
    assert [score.index for score in scores] == order.tolist()
    assert [score.label for score in scores] == [runner.contract.labels[i] for i in order]
    expected = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
    np.testing.assert_allclose([score.score for score in scores], expected[order], rtol=1e-6)


@pytest.mark.parametrize("backend", INSTALLED)
def test_network_that_takes_pixels_answers_pictures_as_its_twin_does(
    pixel_bundle: Path, dy_bundle: Path, backend: str
) -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8))
    with dyx.open(pixel_bundle, backend=backend) as ours, dyx.open(dy_bundle, backend=backend) as twin:
        images = ours.prepare(pictures)
        assert (images.dtype, images.shape) == (np.uint8, (5, 3, 128, 128))
        wanted = twin.run(twin.prepare(pictures))
        for batch in (5, 1, 3):
            got = ours.run(images[:batch])
            assert got.dtype == np.float32
            assert np.abs(got - wanted[:batch]).max() < 2e-5 * np.abs(wanted).max()
        strided = ours.run(np.repeat(images, 2, axis=0)[::2])
        assert np.abs(strided - wanted).max() < 2e-5 * np.abs(wanted).max()
        for found, known in zip(ours.predict(pictures, top=2), twin.predict(pictures, top=2), strict=True):
            assert [score.index for score in found] == [score.index for score in known]
        with pytest.raises(InvalidTensor, match=r"is float32 .*wanted uint8 \[batch, 3, 128, 128\]"):
            ours.run(twin.prepare(pictures))


def test_predict_of_nothing_and_of_no_classes(dy_bundle: Path) -> None:
    with dyx.open(dy_bundle) as runner:
        assert runner.predict([]) == []
        with pytest.raises(InvalidOption, match="--top is 0"):
            runner.predict([np.zeros((4, 4, 3), np.uint8)], top=0)


@pytest.mark.parametrize("backend", INSTALLED)
def test_backends_own_defaults_are_left_alone_and_told(dy_bundle: Path, backend: str) -> None:
    from dyx.bundle import read_bundle
    from dyx.runtime import open_bundle

    samples = read_bundle(dy_bundle).samples()
    with open_bundle(dy_bundle, backend, "cpu", tuned=False) as runner:
        assert runner.options == {"defaults": True}
        got = runner.run(samples.image[:2])
    # OpenVINO's own default is bfloat16 on a CPU that has it.
    assert np.abs(got - samples.logits[:2]).max() < 3e-2 * np.abs(samples.logits).max()
