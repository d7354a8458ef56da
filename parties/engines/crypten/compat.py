"""Makes CrypTen 0.4.1 (2022) import on torch 2.11 to 2.13. Import this module before `crypten`.

CrypTen imports `torch.onnx._internal.registration`, which torch has since moved; nothing that we use needs it.
"""

import importlib
import importlib.util
import sys

_OLD, _NEW = "torch.onnx._internal.registration", "torch.onnx._internal.torchscript_exporter.registration"

if importlib.util.find_spec(_OLD) is None:
    sys.modules[_OLD] = importlib.import_module(_NEW)
