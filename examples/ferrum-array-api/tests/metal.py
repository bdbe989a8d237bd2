"""PyTorch as it is on Metal: without float64."""

from ferrum_array_api import TorchOps


class MetalImitation(TorchOps):
    name = "metal-imitation"

    def __init__(self) -> None:
        super().__init__()
        self.patterns["float64"] = "int64"
