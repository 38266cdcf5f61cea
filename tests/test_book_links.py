"""What `make docs` looks for in the built book is found where it is planted."""

import importlib.util
from pathlib import Path

CHECK = Path(__file__).parent.parent / "docs" / "building" / "check.py"
SPEC = importlib.util.spec_from_file_location("check", CHECK)
check = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check)


def a_book(folder: Path, first_page: str) -> Path:
    for part in check.PARTS:
        (folder / part).mkdir(parents=True)
        (folder / part / "index.html").write_text("<h1>Part</h1>")
    (folder / "index.html").write_text(first_page)
    (folder / "guides" / "one.html").write_text('<h2 id="here">One</h2><a href="../index.html">up</a>')
    (folder / "llms.txt").write_text("- [One](guides/one.html): about one")
    (folder / "llms-full.txt").write_text("\n# Tutorials\n\n# Guides\n\n# Reference\n\n# Explanation\n")
    return folder


def test_a_whole_book_passes(tmp_path):
    text = '<a href="guides/one.html#here">1</a> <a href="#top" id="top">2</a> <a href="https://x.org/y#z">3</a>'
    assert check.main(a_book(tmp_path, text)) == 0


def test_pages_anchors_and_pictures_that_are_not_there_are_found(tmp_path):
    bad = ["guides/two.html", "guides/one.html#there", "#nowhere"]
    text = " ".join(f'<a href="{link}">x</a>' for link in bad) + '<img src="pictures/gone.png">'
    found = check.broken(a_book(tmp_path, text))
    assert found == [f"index.html: {link}" for link in [*bad, "pictures/gone.png"]]
    assert check.main(tmp_path) == 1


def test_a_page_that_llms_txt_does_not_know_is_found(tmp_path):
    folder = a_book(tmp_path, "")
    (folder / "reference" / "new.html").write_text("")
    (folder / "llms-full.txt").write_text("\n# Guides\n\n# Reference\n\n# Explanation\n")
    assert check.unlisted(folder) == ["reference/new.html", "tutorials"]
