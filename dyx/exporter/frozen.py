"""What one gets without dyx: the dynamic network exported as it stands, for one batch size, nothing folded.

`paddle.jit.save` of a network that moves the batch into the channels needs a fixed batch: each dynamic layer becomes
one convolution with groups · batch groups and a kernel that is computed. It is here to be compared with. On Paddle
Inference it must do without oneDNN, which keeps the kernels of the first call; dyx's runner sees to that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dyx.bundle import Bundle, read_bundle, write_manifest
from dyx.exporter.converter import Converter
from dyx.exporter.planned import Planned, plan
from dyx.exporter.to_onnx import to_onnx
from dyx.exporter.to_paddle import to_paddle
from dyx.folder import written_whole
from dyx.progress import Progress, silent
from dyx.tensors import TensorSpec


def export_frozen(model: str, batch: int, out: Path, *, progress: Progress = silent, **settings: Any) -> Bundle:
    """The batch-frozen export of a network, as a bundle that proves nothing; one that is there already is opened.

    Args:
        model: As for `dyx.export`.
        batch: The only batch size that it will take.
        out: Its folder.
        progress: Called with each step's name.
        settings: What of ExportSettings says which network: weights, temperature, shape, seed.

    Raises:
        What `dyx.plan` raises, ConversionFailed, OutputUnwritable.
    """
    if out.is_dir():
        return read_bundle(out)
    planned = plan(model, progress=progress, **settings)
    network, shape = planned.source.network, planned.source.shape
    network.eval()
    image = TensorSpec("image", "float32", (batch, *shape))
    logits = TensorSpec("logits", "float32", (batch, *planned.trace.output_shape))
    with written_whole(out, replace=False) as staging, Converter() as converter:
        converter.start()
        progress(f"exporting {model} frozen to batch {batch}, without folds")
        to_paddle(network, image, staging)
        to_onnx(converter, staging, image, logits)
        write_manifest(staging, _manifest(planned, image, logits))
    return read_bundle(out)


def _manifest(planned: Planned, image: TensorSpec, logits: TensorSpec) -> dict[str, Any]:
    """What a runner needs to know of it."""
    source = planned.source
    return {
        "model": f"{source.name} frozen to batch {image.shape[0]}",
        "inputs": [image.to_json()],
        "outputs": [logits.to_json()],
        "preprocess": source.preprocess.to_json(),
        "labels": list(source.labels),
        "temperature": dict(planned.temperatures),
        "weights": "untrained" if planned.checkpoint is None else {"file": planned.checkpoint.path.name},
        "plan": {"sites": []},
        "parity": {},
        "versions": {},
    }
