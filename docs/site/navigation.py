"""The pages of the site and their order in its margin."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = "README"
SECTIONS = {
    "Learn": (
        "docs/one-life", "docs/reading-path", "docs/glossary", "docs/glass-box", "docs/kernels", "docs/decisions",
    ),
    "Use": (
        "docs/serving", "docs/batch", "docs/load-testing", "docs/gpu", "docs/int8", "docs/trace-format", "SECURITY",
    ),
    "Add": (
        "CONTRIBUTING", "docs/adding-a-policy", "docs/adding-a-sampler", "docs/adding-a-model",
        "docs/adding-a-weight-type", "docs/adding-an-op", "docs/writing-a-backend", "examples/ferrum-array-api/README",
    ),
    "Promises": ("specs/README",),
    "Measurements": ("docs/benchmarks", "CHANGELOG"),
}  # fmt: skip
"""Headings of the margin, and the pages under each. Those of `specs/` follow the page that explains them."""
NOT_PAGES = {"specs/README", "specs/INDEX"}


def sections() -> dict[str, list[str]]:
    """The headings and all pages that there are."""
    clauses = sorted(f"specs/{path.stem}" for path in (ROOT / "specs").glob("*.md"))
    found = {heading: [page for page in pages if path_of(page).is_file()] for heading, pages in SECTIONS.items()}
    found["Promises"] += [page for page in clauses if page not in NOT_PAGES]
    return found


def path_of(page: str) -> Path:
    return ROOT / f"{page}.md"


def pages() -> list[str]:
    """Every page of the site by its path without `.md`, the first one first."""
    return [HOME, *(page for under in sections().values() for page in under)]


def with_contents(page: str, text: str) -> str:
    """The text, with the margin's table of contents where it is the first page."""
    if page != HOME:
        return text
    for heading, under in sections().items():
        text += "\n\n```{toctree}\n:hidden:\n:caption: " + heading + "\n\n" + "\n".join(under) + "\n```\n"
    return text


def write_start(site: Path) -> None:
    """Makes `index.html`, which leads to the first page."""
    (site / "index.html").write_text(f'<meta http-equiv="refresh" content="0; url={HOME}.html">\n', encoding="utf-8")
