"""Draws docs/pictures/architecture-*.svg from the imports of the source, and lists its files in CONTRIBUTING.md.

A room is a folder with an `__init__.py`, whose first sentence says what the room is for. The modules beside inner rooms
stand in two places where they have to: those that use an inner room above it, those that it uses below. An arrow is an
import; one that others imply (a to c, beside a to b and b to c) is not drawn. Dashed: imported by name, once asked for.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import NamedTuple

from vitriad.backends import BACKENDS

ROOT = Path(__file__).parent.parent
PACKAGES = ("vitriad", "vit_torch", "vit_tf", "vit_flax", "conversion", "vit_core")
FRAMEWORKS = {"torch": "PyTorch", "tensorflow": "TensorFlow", "keras": "Keras", "jax": "JAX", "flax": "Flax"}
BELOW = " (below)"  # marks the second place of a package
ABOUT = {  # the two places of a package that stands in two
    "vitriad": "The command line, and the commands that have rooms of their own.",
    "vitriad" + BELOW: "Models from any backend or program, and the commands that need little more.",
    "conversion": "Checkpoints of all programs: recognised, loaded, converted, written.",
    "conversion" + BELOW: "What dialects are made of: names, layouts, exact rewritings.",
    "vit_core": "What all models share: parameters, inputs, the float64 reference.",
    "vit_core" + BELOW: "What everything stands on: errors, limits, tensors, outputs, positions, masks.",
}

WIDTH, MARGIN = 1000, 24  # pixels: the page, and the border around all
BESIDE, GAP = 10, 30  # pixels: between the rooms of a floor, between floors
INSIDE = 12  # pixels: between a room's side and its words
LINE, LETTER = 16, 5.8  # pixels: height of a line of small text, mean width of a letter in it
BOLD = 8.4  # pixels: width of a letter in the name of a room
THEMES = {  # GitHub's own colours
    "light": {"paper": "#ffffff", "ink": "#1f2328", "quiet": "#59636e", "line": "#d1d9e0", "fill": "#f6f8fa"},
    "dark": {"paper": "#0d1117", "ink": "#f0f6fc", "quiet": "#9198a1", "line": "#3d444d", "fill": "#151b23"},
}
Edges = dict[str, set[str]]


START, END = "<!-- map: written by `make pictures` -->", "<!-- end of map -->"


def main() -> None:
    """One picture for light pages and one for dark ones, and the map."""
    for name, theme in THEMES.items():
        (ROOT / "docs" / "pictures" / f"architecture-{name}.svg").write_text(picture(theme), encoding="utf-8")
    page = ROOT / "CONTRIBUTING.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    page.write_text(f"{before}{START}\n{house_map()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def house_map() -> str:
    """Every source file with the first sentence of its docstring, room by room from the front door down."""
    folders = {file.parent: None for file in modules().values()}
    lines = []
    for folder in folders:
        name = folder.relative_to(ROOT).as_posix()
        files = [file for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
        lines += ["", f"**[{name}/]({name})** {first_sentence(folder / '__init__.py')}", *[""] * bool(files)]
        lines += [f"- [{file.name}]({name}/{file.name}): {first_sentence(file)}" for file in files]
    return "\n".join(lines[1:])


def first_sentence(file: Path) -> str:
    """Of its docstring, as one line."""
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(said.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."


# what imports what


def modules() -> dict[str, Path]:
    """Every module of the six packages by its dotted name."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imported(file: Path) -> set[str]:
    """The dotted names that a file imports when it runs; not those that only its types need."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    passed_over = {id(inner) for node in types for inner in ast.walk(node)}
    names = set()
    for node in ast.walk(tree):
        if id(node) in passed_over:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def nearest(name: str, known: Iterable[str]) -> str:
    """The module that a dotted name is, or is found in; "" for other people's."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def rooms() -> tuple[Edges, dict[str, set[str]]]:
    """What each room imports, and which frameworks."""
    files = modules()
    names = {module: imported(file) for module, file in files.items()}
    uses = {module: {nearest(name, files) for name in names[module]} - {module, ""} for module in files}
    place = {m: m if file.name == "__init__.py" else m.rpartition(".")[0] for m, file in files.items()}
    edges = between(uses, place)
    between_halves = {
        room: {each for each in targets if each.startswith(room + ".") and room in edges[each]}
        for room, targets in edges.items()
    }
    place = {
        m: room + BELOW if between_halves[room] and not reaches(m, between_halves[room], uses, place) else room
        for m, room in place.items()
    }
    edges = between(uses, place)
    for backend in BACKENDS.values():
        edges[place["vitriad.backends"]].add(backend.package)
    frameworks = {room: {n.partition(".")[0] for m in files if place[m] == room for n in names[m]} for room in edges}
    return edges, {room: found & {*FRAMEWORKS} for room, found in frameworks.items()}


def between(uses: Edges, place: dict[str, str]) -> Edges:
    """The imports of modules as imports of rooms."""
    edges: Edges = {room: set() for room in place.values()}
    for module, targets in uses.items():
        edges[place[module]] |= {place[target] for target in targets} - {place[module]}
    return edges


def reaches(module: str, inner: set[str], uses: Edges, place: dict[str, str]) -> bool:
    """Whether a module uses one of the rooms inside its own, itself or through modules beside it."""
    room, seen, waiting = place[module], set(), [module]
    while waiting:
        each = waiting.pop()
        if place[each] in inner:
            return True
        if each not in seen and place[each] == room:
            seen.add(each)
            waiting += uses[each]
    return False


def reached(room: str, edges: Edges) -> set[str]:
    """All rooms that one uses, directly or not."""
    found: set[str] = set()
    waiting = [*edges[room]]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += edges[each]
    if room in found:
        raise SystemExit(f"imports run in a circle through {room}")
    return found


def needed(edges: Edges) -> Edges:
    """The arrows that no others imply."""
    return {
        room: {t for t in targets if not any(t in reached(other, edges) for other in targets)}
        for room, targets in edges.items()
    }


# what is drawn


def floors(edges: Edges) -> list[list[str]]:
    """The rooms by their distance from the front door: every arrow goes down."""
    users = {room: [other for other, targets in edges.items() if room in targets] for room in edges}

    def depth(room: str) -> int:
        return max((depth(user) + 1 for user in users[room]), default=0)

    depths = {room: depth(room) for room in edges}
    return [[room for room in edges if depths[room] == floor] for floor in range(max(depths.values()) + 1)]


def about(room: str, rooms: Iterable[str]) -> str:
    """What a room is for, in one sentence: the first of its own docstring, unless it stands in two places."""
    if room.endswith(BELOW) or (room in ABOUT and room + BELOW in rooms):
        return ABOUT.get(room, "What its inner rooms stand on.")
    said = first_sentence(Path(ROOT, *room.split("."), "__init__.py"))
    return said.partition("; ")[0].rstrip(".").replace("`", "") + "."


class Box(NamedTuple):
    """A room on the page."""

    room: str
    lines: list[str]
    x: float
    y: float
    width: float
    height: float

    def over(self, x: float) -> float:
        """The place within it that is nearest to one on the page."""
        return min(max(x, self.x + INSIDE), self.x + self.width - INSIDE)


def placed(rows: list[list[str]], frameworks: dict[str, str]) -> dict[str, Box]:
    """Every room's place: the rooms of a floor share its width. Frameworks stand below where they do not fit beside."""
    boxes, y = {}, float(MARGIN)
    for row in rows:
        width = (WIDTH - 2 * MARGIN - (len(row) - 1) * BESIDE) / len(row)
        said = [about(room, [each for floor in rows for each in floor]) for room in row]
        lines = [textwrap.wrap(words, int((width - 2 * INSIDE) / LETTER), break_on_hyphens=False) for words in said]
        lines = [
            [*each, frameworks[room]] if frameworks[room] and not fits(room, frameworks[room], width) else each
            for room, each in zip(row, lines, strict=True)
        ]
        height = 38 + LINE * max(map(len, lines))
        for i, room in enumerate(row):
            boxes[room] = Box(room, lines[i], MARGIN + i * (width + BESIDE), y, width, height)
        y += height + GAP
    return boxes


def folder_of(room: str) -> str:
    """Its name in the picture."""
    return room.removesuffix(BELOW).replace(".", "/") + "/"


def fits(room: str, frameworks: str, width: float) -> bool:
    """Whether frameworks stand beside the name of a room."""
    return BOLD * len(folder_of(room)) + LETTER * len(frameworks) + 3 * INSIDE < width


def picture(theme: dict[str, str]) -> str:
    """The SVG: a floor per row, arrows behind the rooms."""
    edges, imports = rooms()
    frameworks = {room: " + ".join(FRAMEWORKS[name] for name in sorted(imports[room])) for room in edges}
    boxes = placed(floors(edges), frameworks)
    by_name = {backend.package for backend in BACKENDS.values()}
    arrows = [
        arrow(boxes[room], boxes[target], theme, target in by_name)
        for room, targets in sorted(needed(edges).items())
        for target in sorted(targets)
    ]
    height = max(each.y + each.height for each in boxes.values()) + MARGIN
    border = max(boxes[room].y + boxes[room].height for room in boxes if frameworks[room]) + GAP / 2 + 4
    described = "The packages as rooms on floors; every import goes down."
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f'role="img" aria-label="{described}" font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="8" '
        f'fill="{theme["paper"]}" stroke="{theme["line"]}"/>',
        text(MARGIN + INSIDE, border, "from here down, no framework is imported", theme["quiet"]),
    ]
    drawn = [box(each, frameworks[each.room], theme) for each in boxes.values()]
    return "\n".join([*head, *arrows, *drawn, "</svg>", ""])


def text(x: float, y: float, words: str, colour: str, more: str = 'font-size="12"') -> str:
    """One line of text."""
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" {more}>{escape(words)}</text>'


def arrow(start: Box, end: Box, theme: dict[str, str], is_dashed: bool) -> str:
    """From the bottom of one room to the top of another: straight down where they overlap."""
    narrow = min(start, end, key=lambda each: each.width)
    middle = narrow.x + narrow.width / 2
    x, y, to_x, to_y = start.over(middle), start.y + start.height, end.over(middle), end.y - 7
    half = (y + to_y) / 2
    dashes = ' stroke-dasharray="5 4"' if is_dashed else ""
    return (
        f'<path d="M{x:g} {y:g} C{x:g} {half:g} {to_x:g} {half:g} {to_x:g} {to_y:g}" fill="none" '
        f'stroke="{theme["quiet"]}" stroke-width="1.5"{dashes}/>'
        f'<path d="M{to_x - 5:g} {to_y:g} h10 l-5 7 z" fill="{theme["quiet"]}"/>'
    )


def box(at: Box, frameworks: str, theme: dict[str, str]) -> str:
    """A room: its folder, the frameworks that it imports, and what it is for."""
    folder = folder_of(at.room)
    named = frameworks if fits(at.room, frameworks, at.width) else ""
    left, top = at.x + INSIDE, at.y + 22
    return "".join(
        [
            f'<rect x="{at.x:g}" y="{at.y:g}" width="{at.width:g}" height="{at.height:g}" rx="6" '
            f'fill="{theme["fill"]}" stroke="{theme["line"]}"/>',
            text(left, top, folder, theme["ink"], 'font-size="15" font-weight="600"'),
            text(at.x + at.width - INSIDE, top, named, theme["quiet"], 'font-size="12" text-anchor="end"'),
            *(text(left, top + 2 + LINE * (i + 1), line, theme["quiet"]) for i, line in enumerate(at.lines)),
        ]
    )


if __name__ == "__main__":
    main()
