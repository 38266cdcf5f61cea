"""The measurements for a GPU, tried with small models on a CPU: a machine with a GPU is rare, and its time short."""

import gpu
import pytest


def test_every_class_is_held_to_the_reference(capsys):
    report = gpu.Report(seconds=600, tiny=True)
    gpu.correctness(report, "torch", "the CPU")
    rows = [line.strip("| ").split(" | ") for line in report.lines if line.startswith("| ViT")]
    assert len(rows) == 5
    errors = [[float(cell) for cell in row[1:]] for row in rows]
    assert all(0 < wide < 1e-5 and 0 < half < 0.1 for wide, _, half, _ in errors)
    assert capsys.readouterr().out == "".join(f"{line}\n" for line in report.lines)


def test_speed_is_measured_of_every_rival(capsys):
    report = gpu.Report(seconds=600, tiny=True)
    speed = gpu.TorchSpeed(report)
    speed.rounds = 1
    for part in (lambda: speed.forward("float32"), speed.training, speed.attention):
        part()
    for name in ("vit_torch, sdpa", "vit_torch, eager", "vit_torch", "float16"):
        assert any(line.startswith(f"| {name} | ") for line in report.lines), name


def test_what_fails_or_comes_too_late_is_a_line(capsys):
    report = gpu.Report(seconds=600, tiny=True)
    report.part("first", lambda: 1 / 0)
    report.end = 0
    report.part("second", lambda: pytest.fail("begun after the time was up"))
    assert report.lines == [
        "\nfirst failed: ZeroDivisionError: division by zero",
        "\nNot measured, the time was up: second.",
    ]


def test_without_a_gpu_the_page_stays_as_it_is(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("as it was")
    monkeypatch.setattr(gpu, "devices", lambda tiny: {})
    monkeypatch.setattr("sys.argv", ["gpu.py", "--out", str(page)])
    assert gpu.main() == 0
    assert "skipped: no installed framework sees a GPU" in capsys.readouterr().out
    assert page.read_text() == "as it was"


def test_the_section_is_replaced_and_the_rest_stays(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{gpu.START}\nold\n{gpu.END}\n\nafter\n")
    monkeypatch.setattr(gpu, "devices", lambda tiny: {"torch": "a card"})
    monkeypatch.setattr(gpu, "measure", lambda report, found: report.say("new"))
    monkeypatch.setattr("sys.argv", ["gpu.py", "--out", str(page)])
    gpu.main()
    assert page.read_text() == f"before\n\n{gpu.START}\nnew\n{gpu.END}\n\nafter\n"
