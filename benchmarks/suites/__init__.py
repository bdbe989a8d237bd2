"""Test data that other projects publish, each suite a module.

A suite module has `SOURCE`, an object of `fetch.Source`, and a generator of verdicts. It is

    def run(data: Path) -> Iterator[Verdict]

or, where `SOURCE.of_backends` says that what is tested is a backend and every backend is a row of its own,

    def run_on(ops: TensorOps, data: Path) -> Iterator[Verdict]

`data` is the folder of unpacked packages, and `SOURCE.within(data)` the contents of the suite's own. What is not equal
has its reason in `differences/MODULE.toml`: see `explained`.
"""

SUITES: tuple[str, ...] = (
    "onnx_nodes",
    "array_api",
    "pytorch",
    "vocabularies",
    "templates",
    "jinja",
    "replies",
    "grammars",
    "json_schemas",
    "samplers",
)
"""The modules, in the order of the table."""
