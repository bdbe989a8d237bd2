"""Launches of elementwise operations on arrays with any strides, with broadcasting.

Owns: reducing shapes and strides to the at most four axes that the kernels take, and which operands they take.
Refuses to know: operations on whole rows (`ferrum.backends.cuda.rows`).
Specs: CUDA-40, CUDA-41, CUDA-42. Next: `ferrum.backends.cuda.rows`.
"""

from __future__ import annotations

from itertools import zip_longest

from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.cuda.launch import Size
from ferrum.tensor.ops import Shape

UNARY = {
    "exp": "exp_of", "log": "log_of", "rsqrt": "rsqrt_of", "tanh": "tanh_of", "erf": "erf_of", "cos": "cos_of",
    "sin": "sin_of",
}  # fmt: skip
BINARY = {"add": "plus", "sub": "minus", "mul": "times", "div": "divided", "maximum": "larger"}
"""Functions of elementwise.cu by the names of the primitives."""
FLOATS = {"float32": "float", "float64": "double", "float16": "half_t", "bfloat16": "bfloat_t"}
"""The names that kernels have for the types between which `cast` converts."""

_ELEMENTS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long long"}
_MOST_AXES = 4
THREADS, EACH = 256, 4
"""Threads of a block, and elements of a thread (ELEMENTS in the kernels)."""
_FEW = 1 << 31  # elements up to which an index has 32 bits, also for threads beyond the end

_INDICES = ("unsigned", "unsigned long long")
_REALS = [*((each, "float") for each in UNARY.values()), (UNARY["erf"], "double")]
VARIANTS: tuple[tuple[str, dict[str, str]], ...] = (
    *(("elementwise", {"element_t": each, "index_t": index}) for each in _ELEMENTS.values() for index in _INDICES),
    *(("elementwise", {"FUNCTION": f, "real": real, "index_t": index}) for f, real in _REALS for index in _INDICES),
    *(("elementwise", {"OPERATION": each, "index_t": index}) for each in BINARY.values() for index in _INDICES),
    *(("cast", {"from_t": one, "to_t": to}) for one in FLOATS.values() for to in FLOATS.values() if one != to),
)
"""Every combination of definitions with which the kernels are compiled."""

Axis = tuple[int, ...]
"""The length of an axis, and the stride of each operand along it, in elements."""


def contiguous(device: Device, x: Array) -> Array:
    """x itself where it has no gaps, else a copy that has none."""
    if x.flags.c_contiguous:
        return x
    out = device.empty(x.shape, str(x.dtype))
    _copy(device, x, out)
    return out


def lined_up(device: Device, x: Array) -> Array:
    """x itself where it has no gaps and begins at a multiple of 16 bytes, so that kernels can read four float32 at
    once, else a copy that does."""
    if x.flags.c_contiguous and not device.address(x) % 16:
        return x
    out = device.empty(x.shape, str(x.dtype))
    _copy(device, x, out)
    return out


def unary(device: Device, name: str, x: Array) -> Array | None:
    """exp, log, rsqrt, tanh, erf, cos or sin of every element; None if the kernel cannot take x."""
    dtype, axes = str(x.dtype), _axes(x.shape, x)
    dtypes = ("float32", "float64") if name == "erf" else ("float32",)
    if name not in UNARY or dtype not in dtypes or len(axes) > _MOST_AXES:
        return None
    out = device.empty(x.shape, dtype)
    defines = {"FUNCTION": UNARY[name], "real": FLOATS[dtype], "index_t": _index_type(out.size)}
    kernel = device.kernels.get("elementwise", "unary", **defines)
    kernel(flat_grid(out.size), (THREADS,), start(x), out, out.size, *_facts(axes, 1))
    return out


def binary(device: Device, name: str, x: Array, y: Array) -> Array | None:
    """add, sub, mul, div or maximum, with broadcasting as in NumPy; None if the kernel cannot take x and y."""
    shape = _together(x.shape, y.shape)
    if name not in BINARY or shape is None or {str(x.dtype), str(y.dtype)} != {"float32"}:
        return None
    axes = _axes(shape, x, y)
    if len(axes) > _MOST_AXES:
        return None
    out = device.empty(shape, "float32")
    kernel = device.kernels.get("elementwise", "binary", OPERATION=BINARY[name], index_t=_index_type(out.size))
    kernel(flat_grid(out.size), (THREADS,), start(x), start(y), out, out.size, *_facts(axes, 2))
    return out


def cast(device: Device, x: Array, dtype: str) -> Array | None:
    """x in another float type, rounded to nearest even; None if one of the types is not a float type."""
    if str(x.dtype) not in FLOATS or dtype not in FLOATS:
        return None
    if str(x.dtype) == dtype:
        return x
    x = contiguous(device, x)
    out = device.empty(x.shape, dtype)
    kernel = device.kernels.get("cast", "cast", from_t=FLOATS[str(x.dtype)], to_t=FLOATS[dtype])
    kernel(flat_grid(x.size), (THREADS,), x, out, x.size)
    return out


def start(x: Array) -> Array:
    """A contiguous view that begins at the first element of x, from which a launch takes the address of any array."""
    return x if x.flags.c_contiguous else x[(slice(0, 1),) * x.ndim]


def _copy(device: Device, x: Array, out: Array) -> None:
    axes = _axes(x.shape, x)
    if len(axes) > _MOST_AXES:
        for part, place in zip(x, out, strict=True):
            _copy(device, part, place)
        return
    element_t, index_t = _ELEMENTS[x.dtype.itemsize], _index_type(x.size)
    kernel = device.kernels.get("elementwise", "copy", element_t=element_t, index_t=index_t)
    kernel(flat_grid(x.size), (THREADS,), start(x), out, x.size, *_facts(axes, 1))


def _together(first: Shape, second: Shape) -> Shape | None:
    """The shape to which both broadcast; None if they do not."""
    pairs = list(zip_longest(reversed(first), reversed(second), fillvalue=1))
    if any(m != n and 1 not in (m, n) for m, n in pairs):
        return None
    return tuple(n if m == 1 else m for m, n in reversed(pairs))


def _axes(shape: Shape, *operands: Array) -> list[Axis]:
    """The axes of a shape to which all operands broadcast, the outermost first. Axes of length 1 are left out, and two
    neighbouring axes become one if every operand has strides like those of one axis."""
    columns = [shape, *(_strides(each, len(shape)) for each in operands)]
    axes: list[Axis] = []
    for axis in reversed(list(zip(*columns, strict=True))):
        size, *strides = axis
        if axes and all(one == axes[-1][0] * inner for one, inner in zip(strides, axes[-1][1:], strict=True)):
            axes[-1] = (size * axes[-1][0], *axes[-1][1:])
        elif size != 1:
            axes.append(axis)
    return axes[::-1]


def _strides(x: Array, axes: int) -> Shape:
    """The strides of x in elements, for this number of axes; 0 along an axis that is broadcast."""
    strides = (0 if size == 1 else stride // x.dtype.itemsize for size, stride in zip(x.shape, x.strides, strict=True))
    return (*(0,) * (axes - x.ndim), *strides)


def _facts(axes: list[Axis], operands: int) -> tuple[int, ...]:
    """The arguments of a kernel for its axes: the lengths of the inner three of four axes, then four strides of each
    operand."""
    whole = [(1, *(0,) * operands)] * (_MOST_AXES - len(axes)) + axes
    sizes, *strides = zip(*whole, strict=True)
    return (*sizes[1:], *(each for one in strides for each in one))


def _index_type(count: int) -> str:
    return _INDICES[count >= _FEW]


def flat_grid(count: int) -> Size:
    """The grid for this number of elements."""
    return (-(-count // (THREADS * EACH)),)
