"""DOCS-04 to DOCS-07: the site is built without a warning, its links lead somewhere, and it needs no network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from docs.site import navigation, plots
from docs.site.benchmarks import COMMENT, PICTURES
from docs.site.clauses import clauses, line_of, with_proofs
from docs.site.sources import address, find, with_links
from tests.docs.blocks import pages
from tests.house.index import proofs
from tests.house.source import ROOT

ADDRESS = re.compile(r"""\s(?:href|src)=["']([^"']*)["']""")
ANCHOR = re.compile(r"""\s(?:id|name)=["']([^"']*)["']""")
FETCHED = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\ssrc="(?:https?:)?//|<link\b[^>]*href="(?:https?:)?//""")
IN_STYLE = re.compile(r"""(?:@import\s|url\()\s*["']?(?:https?:)?//""")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-d", f"{folder}/read"]
    done = subprocess.run([*build, ".", f"{folder}/site"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "site"


@pytest.mark.clause("DOCS-04")
def test_every_link_of_the_site_leads_to_a_page_and_a_place_in_it(site: Path) -> None:
    anchors: dict[Path, set[str]] = {}
    broken = []
    texts = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    for path, text in texts.items():
        anchors[path] = set(ANCHOR.findall(text))
    for path, text in texts.items():
        for target in set(ADDRESS.findall(text)):
            file, fragment = urldefrag(unquote(target))
            file = file.partition("?")[0]
            if re.match(r"\w+:", file):
                continue
            there = (path.parent / file).resolve() if file else path
            if not there.exists() or (fragment and there.suffix == ".html" and fragment not in anchors[there]):
                broken.append(f"{path.relative_to(site)}: {target}")
    assert broken == []


@pytest.mark.clause("DOCS-04")
@pytest.mark.parametrize("page", pages())
def test_files_and_modules_that_a_page_names_exist(page: str) -> None:
    names = set(re.findall(r"`([\w./-]+)`", (ROOT / page).read_text(encoding="utf-8")))
    files = {name for name in names if re.match(r"(?:ferrum|tests|docs|specs|benchmarks|meta_tests|examples)/", name)}
    lacking = {name for name in files if "DEVICE" not in name and not (ROOT / name).exists()}
    modules = {name for name in names if re.fullmatch(r"ferrum(?:\.[a-z_0-9]+){2,}", name)}
    holders = {name: (name, name.rpartition(".")[0]) for name in modules}  # a module, or something in one
    assert lacking | {name for name, places in holders.items() if not any(map(find, places))} == set()


@pytest.mark.clause("DOCS-05")
def test_the_site_needs_no_network(site: Path) -> None:
    pages_and_scripts = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    fetching = [path.name for path in pages_and_scripts if (FETCHED if path.suffix == ".html" else IN_STYLE).search(
        path.read_text(encoding="utf-8"))]  # fmt: skip
    assert fetching == []


@pytest.mark.clause("DOCS-05")
def test_every_page_is_on_the_site(site: Path) -> None:
    on_site = {f"{page}.md" for page in navigation.pages()}
    assert set(pages()) - on_site - {"tests/server/suites/README.md"} == set()
    assert [page for page in navigation.pages() if not (site / f"{page}.html").is_file()] == []
    named = [page for under in navigation.SECTIONS.values() for page in under]
    assert [page for page in named if not navigation.path_of(page).is_file()] == []


@pytest.mark.clause("DOCS-06")
def test_a_clause_leads_to_the_lines_of_its_code_and_tests(site: Path) -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (site / "specs").glob("*.html")}
    links = {name: set(ADDRESS.findall(text)) for name, text in texts.items()}
    places = {name: set(re.findall(r'<span id="([^"]+)"></span>', text)) for name, text in texts.items()}
    for clause in clauses().values():
        subject = clause.id.rpartition("-")[0]
        assert clause.id in places[subject]
        kept = [(place.path, name) for place in clause.places for name in place.names]
        proved = [(file, name) for file, names in proofs()[clause.id].items() for name in names]
        for file, name in kept + proved:
            path = ROOT / file
            assert line_of(path, name) is not None
            assert address("specs/x", path, line_of(path, name)) in links[subject], f"{clause.id}: {name}"


@pytest.mark.clause("DOCS-06")
def test_names_of_files_and_modules_become_links() -> None:
    text = "`ferrum/kv/pool.py` `ferrum.kv.pool` `no/file.py` `x` [words](../setup.cfg)\n```\n`ferrum.kv.pool`\n```\n"
    pool, setup = (f"../source/{name}.html" for name in ("ferrum/kv/pool.py", "setup.cfg"))
    assert with_links("docs/page", text) == (
        f'<a href="{pool}"><code>ferrum/kv/pool.py</code></a> <a href="{pool}"><code>ferrum.kv.pool</code></a> '
        f'`no/file.py` `x` <a href="{setup}">words</a>\n```\n`ferrum.kv.pool`\n```\n'
    )
    assert find("ferrum.kv") == ROOT / "ferrum" / "kv" / "__init__.py"


@pytest.mark.clause("DOCS-06")
def test_ids_of_clauses_become_links_outside_of_code() -> None:
    text = "KV-23, `KV-23`, SHA-256\n```sh\nferrum-ref spec KV-23\n```\n"
    linked = '<a href="../specs/KV.html#KV-23">KV-23</a>'
    assert with_proofs("docs/page", text) == text.replace("KV-23", linked, 1)


@pytest.mark.clause("DOCS-07")
def test_pictures_are_drawn_from_results(site: Path) -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    named = COMMENT.findall(text)
    assert sorted(named) == sorted(PICTURES)
    page = (site / "docs" / "benchmarks.html").read_text(encoding="utf-8")
    assert [name for name in named if PICTURES[name]() not in page] == []


@pytest.mark.clause("DOCS-07")
def test_a_bar_is_as_long_as_its_number() -> None:
    drawn = plots.bars("Speed", "tokens", [plots.Bar("a<b", 50, 40, 100), plots.Bar("other", 25, 25, 25, ours=False)])
    room = plots.WIDTH - plots.LABELS - plots.FIGURES
    assert [float(width) for width in re.findall(r'width="([\d.]+)"', drawn)] == [room / 2, room / 4]
    assert re.findall(r'class="(ours|others)"', drawn) == ["ours", "others"]
    assert "a&lt;b" in drawn


@pytest.mark.clause("DOCS-07")
def test_a_line_goes_through_its_points() -> None:
    drawn = plots.lines("Speed", "tokens", "context", [plots.Series("exact", [(1, 100), (2, 50), (4, 0)])])
    (points,) = re.findall(r'points="([^"]*)"', drawn)
    xs, ys = zip(*(map(float, point.split(",")) for point in points.split()), strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1]) and ys[0] < ys[2]
