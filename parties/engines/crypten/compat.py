"""Makes CrypTen 0.4.1 (2022) importable with torch 2.11 to 2.13. Import this module before `crypten`.

CrypTen imports `torch.onnx._internal.registration`, which torch has since moved; we use nothing that needs it. Its
docstrings contain escapes that Python 3.12 warns about when it compiles them.
"""

import importlib
import importlib.util
import sys
import warnings

_OLD, _NEW = "torch.onnx._internal.registration", "torch.onnx._internal.torchscript_exporter.registration"

if importlib.util.find_spec(_OLD) is None:
    sys.modules[_OLD] = importlib.import_module(_NEW)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", SyntaxWarning)
    importlib.import_module("crypten")
