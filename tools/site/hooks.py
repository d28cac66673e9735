"""Hooks of MkDocs: which files the site has.

The pages are the Markdown files of the repository, at their own paths, so that one relative link holds in a checkout,
on a forge and on the site. In addresses of the site, the folder docs is left out. Beside them are the help of the
commands, and the files that pages link to, such as a proto file, as plain text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from site_commands import command_pages

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
PAGES = (
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "client/*/README.md",
    "deploy/**/*.md",
    "docs/**/*.md",
    "samples/README.md",
    "tests/conformance/README.md",
)
OF_THE_BROWSER = {".jpg", ".png", ".svg", ".webp", ".css", ".js", ".html"}  # shown as they are
OURS = (  # mkdocs.yml names them
    "script.js",
    "style.css",
    "node_modules/@mermaid-js/tiny/dist/mermaid.tiny.js",  # draws diagrams
    "node_modules/iframe-worker/shim/index.js",  # lets the search work in a site that was opened from a folder
)
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
TEXT = re.compile(r">[^<]+<")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
LINK_TEXT = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)\)")


def on_config(config: MkDocsConfig) -> None:
    """Puts the pages that fit in the place of a pattern of the navigation."""
    config.nav = _expanded(config.nav)


def _expanded(nav: Any) -> Any:  # noqa: ANN401 - lists and mappings of titles, as YAML has them
    if isinstance(nav, dict):
        return {title: _expanded(below) for title, below in nav.items()}
    if not isinstance(nav, list):
        return nav
    return [page for entry in nav for page in (_fitting(entry) if isinstance(entry, str) else [_expanded(entry)])]


def _fitting(name: str) -> list[str]:
    return [path.relative_to(REPO).as_posix() for path in sorted(REPO.glob(name))] if "*" in name else [name]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replaces the files of the folder docs by those of the repository; files of the theme stay."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    pages = [path for pattern in PAGES for path in sorted(REPO.glob(pattern))]
    linked = {target for page in pages for target in _targets(page) if target.is_file()} - set(pages)
    for path in (*pages, *sorted(linked), *(HERE / name for name in OURS)):
        files.append(_file(path, config))
    for name, text in command_pages().items():
        files.append(File.generated(config, f"docs/reference/{name}.md", content=text))
    for file in files:
        file.dest_uri = file.dest_uri.removeprefix("docs/")
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Leaves the text of links to folders, which a forge lists and a site cannot."""
    folder = (REPO / page.file.src_uri).parent
    return LINK_TEXT.sub(lambda link: link[1] if (folder / link[2]).is_dir() else link[0], markdown)


def on_post_page(output: str, **_: object) -> str:
    """Gives the search box of the theme a name, for those who hear the page; in tables, lines end after a `_`."""
    output = TABLE.sub(lambda table: TEXT.sub(lambda text: text[0].replace("_", "_<wbr>"), table[0]), output)
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )


def _targets(page: Path) -> list[Path]:
    """The files that a page links to."""
    names = [name for name in LINK.findall(page.read_text()) if "://" not in name]
    return [(page.parent / name).resolve() for name in names]


def _file(path: Path, config: MkDocsConfig) -> File:
    name = path.relative_to(REPO).as_posix()
    included = InclusionLevel.INCLUDED  # hidden files too, if a page links to them
    file = File(name, str(REPO), config.site_dir, config.use_directory_urls, inclusion=included)
    if path.suffix not in {".md", *OF_THE_BROWSER}:
        file.dest_uri = f"{name}.txt"  # every browser shows it, from every web server
    return file
