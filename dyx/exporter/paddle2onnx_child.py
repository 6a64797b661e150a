"""The process that runs paddle2onnx: `python -m dyx.exporter.paddle2onnx_child DESCRIPTOR`.

The converter can abort the whole interpreter, so it gets one of its own. That takes one program after another over the
descriptor, and ends when the other end closes.
"""

from __future__ import annotations

import json
import sys
from multiprocessing.connection import Connection


def main() -> None:
    """Convert what is asked for, one after another."""
    from dyx.paddle_package import paddle_package

    paddle_package()
    import paddle2onnx

    with Connection(int(sys.argv[1])) as connection:
        while True:
            try:
                program, parameters, out, opset = json.loads(connection.recv_bytes())
            except EOFError:
                return
            # Its default, "polygraphy", installs packages from the network while it runs.
            paddle2onnx.export(
                program, parameters, out, opset_version=opset, auto_upgrade_opset=False, optimize_tool=None
            )
            connection.send_bytes(b"null")


if __name__ == "__main__":
    main()
