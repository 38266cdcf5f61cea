"""Every snippet of the book runs as written, page by page, in an empty folder; and what sets a machine up exists."""

import re
import tomllib

import pytest
from backends import INSTALLED
from page_runner import Server, alike, differences, program
from pages import PAGES, ROOT, blocks, commands, names

from vitriad.backends import BACKENDS
from vitriad.options import JOBS

HERE = {BACKENDS[name].package for name in INSTALLED}
TARGETS = {*re.findall(r"^([\w-]+)[:%]", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BOOK = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES if page.parent != ROOT}
# The longest ones: other tests call every day what they call. `make test-long` runs them.
LONG = {f"docs/guides/{name}.md" for name in ("deploying", "export", "keras", "migration", "parity")}
assert BOOK.keys() >= LONG


def has_snippets(text: str) -> bool:
    return any(block.kind in ("python", "bash") for block in blocks(text))


def can_run(text: str) -> bool:
    """Whether the backends that a page imports, or says that it needs, are here."""
    imported = re.findall(r"^(?:from|import) (vit_torch|vit_tf|vit_flax)\b", text, flags=re.MULTILINE)
    needed = [BACKENDS[name].package for block in blocks(text) if block.kind == "needs" for name in names(block)]
    return {*imported, *needed} <= HERE


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long] * (page in LONG))
        for page, text in BOOK.items()
        if has_snippets(text) and can_run(text)
    ],
)
def test_a_page_runs_as_written(server, tmp_path, page):
    code, printed = server.run(ROOT / page, tmp_path)
    assert code == 0, printed


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("python\nx = 1\nassert x == 2\n", '"wrong.md", line 5, in <module>'),
        ("python\nimport os; os._exit(3)\n", ""),
        ("bash\nvitriad classify nothing.jpg\n", "vitriad classify nothing.jpg: exit code"),
        ("bash\ncat\nfalse\n", "false: exit code 1"),
        ("python\nprint(8)\n```\n\n```text\n9\n", "the page says it prints\n9"),
    ],
)
def test_a_page_that_fails_is_told(server, tmp_path, block, said):
    page = tmp_path / "wrong.md"
    page.write_text(f"# Wrong\n\n```{block}```\n", encoding="utf-8")
    code, printed = server.run(page, tmp_path)
    assert code != 0 and said in printed, printed


def test_what_pages_say_to_type_on_a_bare_machine_exists():
    """Targets of the Makefile, extras, and files of a checkout; these are not run, since they fetch and install."""
    lines = [line for text in BOOK.values() for b in blocks(text) if b.kind == "console" for _, line in commands(b)]
    assert len(lines) > 10
    for line in lines:
        said = line.partition("#")[0]
        assert {*re.findall(r"\bmake ([\w-]+)", said)} <= TARGETS, line
        for extras in re.findall(r"\[([\w,]+)\]", said):
            assert {*extras.split(",")} <= {*PROJECT["optional-dependencies"]}, line
        assert [f for f in re.findall(r"-[cr] (\S+)", said) if not (ROOT / f).exists()] == [], line


@pytest.mark.parametrize("page", sorted(BOOK))
def test_no_block_is_of_a_kind_that_nothing_looks_at(page):
    kinds = {"python", "bash", "text", "console", "given", "files", "needs", "yaml", "powershell", ""}
    found = blocks(BOOK[page])
    assert {block.kind for block in found if not block.kind.startswith("{")} <= kinds
    assert [
        block.text for block in found if not block.kind and re.search(r"^(vitriad|make|pip) ", block.text, re.MULTILINE)
    ] == []


def test_the_page_of_the_command_line_has_every_command():
    page = BOOK["docs/reference/command-line.md"]
    listed = re.findall(r"^\| `(\w+)` \| .* \| `vitriad (\w+)", page, flags=re.MULTILINE)
    commands = [name for names in JOBS.values() for name in names]
    assert commands == [name for name, _ in listed] == [shown for _, shown in listed]


def test_a_program_stands_line_for_line_where_its_page_has_it():
    page = "# P\n\n<!-- given: x -->\n```python\nprint(x)\n```\n\n```text\n8\n```\n"
    page += "```bash\nvitriad a \\\n  b  # c\nd\n```\n"
    assert program(page).splitlines()[2:] == [
        *("x, = given(['x'])", "", "print(x)", "", "", "", "printed('8\\n')", "", ""),
        *("bash('vitriad a   b  # c')", "", "bash('d')", ""),
    ]


def test_what_is_printed_is_compared():
    assert differences("loss 0.05\n…\nThe end", "x\nloss 0.052\nThe end\n") == ""
    assert "loss 0.05\nbut the program printed\nloss 0.5" in differences("loss 0.05", "loss 0.5\n")
    for expected, got in (("a 8", "a 9"), ("a", "b"), ("98%", "60%"), ("a b", "a"), ("1e-06", "1e-03"), ("8.0", "8")):
        assert not alike(expected.split(), got.split())
    for expected, got in (("98%", "97.5%"), ("0.50", "0.51"), ("a …", "a b c"), ("9e-07", "1e-06")):
        assert alike(expected.split(), got.split()), (expected, got)
