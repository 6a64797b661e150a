"""The process that runs paddle2onnx: `python -m dyx.exporter.paddle2onnx_child PROGRAM PARAMETERS OUT OPSET`.

The converter can abort the whole interpreter, so it gets one of its own.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Convert, as the arguments say."""
    from dyx.paddle_package import paddle_package

    paddle_package()
    import paddle2onnx

    program, parameters, out, opset = sys.argv[1:]
    # Its default, "polygraphy", installs packages from the network while it runs.
    paddle2onnx.export(program, parameters, out, opset_version=int(opset), auto_upgrade_opset=False, optimize_tool=None)


if __name__ == "__main__":
    main()
