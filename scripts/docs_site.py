"""The parts of the documentation site that MkDocs does not have: its hooks, see ``mkdocs.yml``.

* The version of the package is in the site's title.
* The changelog, the security policy, the page for contributors and the example DAGs are pages of
  the site, too. Links from docs/ to these files become links to the pages.
* The build fails where a page is not what a forge shows of the same Markdown, and where a page
  loads something from another host.
"""

from __future__ import annotations

import ast
import json
import logging
import posixpath
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

from markdown_it import MarkdownIt
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# Warnings of a logger below this one fail the strict build.
log = logging.getLogger("mkdocs.docs_site")

ROOT = Path(__file__).parents[1]
EXAMPLES = "example_dags"
# Files beside docs/ by the names of their pages.
PAGES = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "examples.md": EXAMPLES,
}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
# What a Markdown parser may take for something else than a forge does.
_COMPARED = ("h1", "h2", "h3", "h4", "ul", "ol", "li", "table", "tr", "pre", "img", "blockquote")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the version into the title."""
    text = (ROOT / "airflow_jobs_provider" / "_version.py").read_text(encoding="utf-8")
    version = re.search(r'__version__ = "(.*)"', text)
    assert version is not None
    config.site_name += f" {version[1]}"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose files are outside docs/."""
    for name, source in PAGES.items():
        path = ROOT / source
        text = _examples() if path.is_dir() else path.read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files outside docs/ to their pages."""
    uri = page.file.src_uri
    if page.is_homepage:
        # It is alone in its section of the navigation.
        page.meta["hide"] = ["navigation"]
    here = posixpath.dirname(PAGES.get(uri, f"docs/{uri}"))
    return _outside_fences(
        markdown, lambda text: _LINK.sub(lambda link: _page_link(link, here, uri), text)
    )


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Compare the page with what a forge shows."""
    source = page.markdown or ""
    forge = _elements(MarkdownIt("gfm-like", {"linkify": False}).render(source))
    site = _elements(html)
    if forge != site:
        names = {name: (forge[name], site[name]) for name in _COMPARED if forge[name] != site[name]}
        log.warning("%s: (elements on a forge, on the site): %s", page.file.src_uri, names)
    return html


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warn of what a page would load from another host."""
    tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", output)
    for tag in tags:
        if re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag) and "canonical" not in tag:
            log.warning("%s loads from another host: %s", page.file.src_uri, tag)
    return output


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def _page_link(link: re.Match[str], here: str, uri: str) -> str:
    target = posixpath.normpath(posixpath.join(here, link[1]))
    anchor = link[2] or ""
    for name, source in PAGES.items():
        if target == source:
            page = name
            break
    else:
        if target.startswith(f"{EXAMPLES}/"):
            page, anchor = "examples.md", f"#{_slug(target)}"
        elif target.startswith("docs/"):
            page = target.removeprefix("docs/")
        else:
            return link[0]
    return posixpath.relpath(page, posixpath.dirname(uri)) + anchor


def _slug(path: str) -> str:
    """Return the anchor of an example on its page: that of the nearest heading."""
    name = posixpath.basename(path)
    return re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-")


def _examples() -> str:
    """Return a page of the example DAGs, their tests, notebooks and data."""
    folder = ROOT / EXAMPLES
    parts = [
        "# Example DAGs",
        f"These files are in the folder `{EXAMPLES}` of the repository. `make airflow` runs them.",
        "## DAGs",
    ]
    parts += [_source(path) for path in sorted(folder.glob("*.py"))]
    parts += ["## Tests", *(_source(path) for path in sorted((folder / "tests").glob("*.py")))]
    parts += ["## Workspace"]
    for path in sorted((folder / "workspace" / "Shared").rglob("*")):
        if path.name == "README.md":
            # Its headings come below the one of this section.
            parts.append(re.sub(r"^#", "###", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
        elif path.suffix in (".py", ".ipynb"):
            parts.append(_source(path))
    return "\n\n".join(parts) + "\n"


def _source(path: Path) -> str:
    """Return a file's code under its name; a module's docstring is the text above."""
    code = path.read_text(encoding="utf-8")
    docstring = ""
    if path.suffix == ".ipynb":
        cells = json.loads(code)["cells"]
        code = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    elif docstring := ast.get_docstring(ast.parse(code)) or "":
        code = code.split('"""', 2)[2]
        docstring = docstring.replace("``", "`") + "\n\n"
    return f"### {path.name}\n\n{docstring}```python\n{code.strip()}\n```"


class _Counter(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] += tag in _COMPARED


def _elements(html: str) -> Counter[str]:
    parser = _Counter()
    parser.feed(html)
    return parser.found
