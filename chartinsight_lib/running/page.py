"""An executed copy as a page of HTML, in which nothing is executed: what a source sent may stand in it."""

from pathlib import Path

from chartinsight_lib.db.embedded import write_private
from chartinsight_lib.errors import NotFound


def write_page(copy: str | None, page: Path) -> Path:
    """Write the page of an executed copy, for its owner's eyes alone; return where. Raises NotFound when there is no copy."""
    if copy is None or not Path(copy).is_file():
        raise NotFound(f"executed copy: {copy or 'the run left none'}: there is nothing to open.")
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter(sanitize_html=True, require_js_url="", mathjax_url="").from_filename(copy)  # type: ignore[no-untyped-call]
    page.parent.mkdir(parents=True, exist_ok=True)
    write_private(page, html)
    return page
