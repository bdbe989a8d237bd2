"""Backends of ferrum on any array library that follows the Python array API standard, https://data-apis.org/array-api.

Read `ferrum_array_api.tensor`, then `ferrum_array_api.ops`, then `ferrum_array_api.torch_ops`.
"""

from ferrum_array_api.ops import ArrayApiOps
from ferrum_array_api.torch_ops import TorchOps

__all__ = ["ArrayApiOps", "TorchOps"]
