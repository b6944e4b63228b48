"""Checks of a page's HTML: what a screen reader and a strict content security policy need."""

from __future__ import annotations

from html.parser import HTMLParser

__all__ = ["problems_of"]

_VOID = {"meta", "link", "input", "br", "path", "rect", "line"}
_NAMED = {"a", "button", "summary", "h1", "h2", "h3", "title", "option", "label"}


class _Page(HTMLParser):
    def __init__(self, *, relative: bool) -> None:
        super().__init__()
        self.relative = relative
        self.problems: list[str] = []
        self.ids: list[str] = []
        self.labels: set[str] = set()
        self.fields: list[str] = []
        self.count: dict[str, int] = {}
        self._open: list[tuple[str, dict[str, str | None], list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if not any(opened == "svg" for opened, _, _ in self._open):
            self.count[tag] = self.count.get(tag, 0) + 1
        for name in given:
            if name == "style" or name.startswith("on"):
                self.problems.append(f"<{tag}> has {name}=, which the policy forbids")
        for name in ("src", "href", "action"):
            value = given.get(name) or ""
            if value and not self._is_own(value, given):
                self.problems.append(f"<{tag}> refers to {value}")
        if "id" in given:
            self.ids.append(str(given["id"]))
        match tag:
            case "label":
                self.labels.add(str(given.get("for")))
            case "input" | "select":
                self.fields.append(str(given.get("id")))
            case "iframe":
                if not given.get("title") or given.get("sandbox") != "allow-same-origin":
                    self.problems.append("an iframe without title, or whose sandbox allows more")
            case "th":
                if given.get("scope") not in {"col", "row"}:
                    self.problems.append("a <th> without scope")
            case "html":
                if not given.get("lang"):
                    self.problems.append("no language")
            case "pre" | "div":
                if given.get("tabindex") == "0" and not (
                    given.get("aria-label") or given.get("aria-labelledby")
                ):
                    self.problems.append(f"<{tag}> takes the focus without a name")
        if tag not in _VOID:
            self._open.append((tag, given, []))

    def _is_own(self, address: str, given: dict[str, str | None]) -> bool:
        """Return whether an address is on this server, or a link to a page elsewhere."""
        if not self.relative:
            return address.startswith(("/", "#"))
        if given.get("rel") == "noopener noreferrer":
            return address.startswith(("http://", "https://"))
        return ":" not in address and not address.startswith("/")

    def handle_data(self, data: str) -> None:
        for _, _, texts in self._open:
            texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        opened, given, texts = self._open.pop()
        if opened != tag:
            self.problems.append(f"</{tag}> closes <{opened}>")
        if tag in _NAMED and not ("".join(texts).strip() or given.get("aria-label")):
            self.problems.append(f"<{tag}> without a name: {given}")
        if tag == "script" and ("src" not in given or texts):
            self.problems.append("an inline script")
        if tag == "style":
            self.problems.append("an inline style sheet")


def problems_of(html: str, *, relative: bool = False) -> list[str]:
    """Return what is wrong with a page.

    :param html: the page.
    :param relative: whether its addresses are relative, and it may link to pages elsewhere; default
        False.
    """
    page = _Page(relative=relative)
    page.feed(html)
    page.close()
    problems = page.problems
    for landmark in ("main", "header", "h1", "title"):
        if page.count.get(landmark) != 1:
            problems.append(f"{page.count.get(landmark, 0)} <{landmark}>")
    problems += [f"id {one} twice" for one in set(page.ids) if page.ids.count(one) > 1]
    problems += [f"field {one} without a label" for one in page.fields if one not in page.labels]
    return problems
