"""The pages that explain: the code that they quote is the code, and the notebook runs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "how-it-works.md").read_text()
PAGES = [page for folder in ("docs", "paper", ".") for page in (PROJECT / folder).glob("*.md")]
QUOTED = re.findall(r"```python\n(.*?)\n```|\[`[\w/]+\.py`\]\(\.\./([\w/]+\.py)\)", PAGE, re.DOTALL)


def test_the_code_that_how_it_works_quotes_stands_in_the_file_that_it_names():
    waiting, found = [], 0
    for code, path in QUOTED:
        if code:
            waiting += code.splitlines()
            continue
        lines = [line.strip() for line in (PROJECT / path).read_text().splitlines()]
        assert [line for line in waiting if line.strip() not in lines] == []
        found += len(waiting)
        waiting = []
    assert found >= 8
    assert waiting == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def text_of(cell):
    """What a cell printed."""
    return "".join(output["text"] for output in cell.get("outputs", []) if output.output_type == "stream")


@pytest.mark.slow
@pytest.mark.enable_socket  # the kernel is another process
def test_the_notebook_runs_and_says_what_it_said():
    notebook = nbformat.read(PROJECT / "docs" / "introduction.ipynb", as_version=4)
    kept = [text_of(cell) for cell in notebook.cells]
    folder = {"metadata": {"path": PROJECT / "docs"}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=folder).execute()
    for before, after in zip(kept, map(text_of, notebook.cells), strict=True):
        numbers = [[float(number) for number in re.findall(r"-\d+\.\d+", text)] for text in (before, after)]
        assert numbers[1] == pytest.approx(numbers[0], abs=1.0)  # nats: threads and versions change the rounding
