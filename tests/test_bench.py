"""What `make bench` makes of times: ratios within rounds, losses beyond the spread, a page; who cannot run is named."""

import json
import sys

import numpy as np
import pytest
from benchmarks import growth, run
from benchmarks.contenders import Contender, groups

CONTENDERS = {
    "slow floor": Contender(dict, "floor"),
    "floor": Contender(dict, "floor"),
    "ours": Contender(dict, "ours"),
    "theirs": Contender(dict, "peer", "ours"),
}
VALUES = {  # the third round was disturbed, for all alike
    "slow floor": {"case": [3.0, 3.0, 9.0]},
    "floor": {"case": [2.0, 2.0, 6.0]},
    "ours": {"case": [4.0, 5.0, 12.0]},
    "theirs": {"case": [8.0, 4.0, 24.0]},
}


def rows(values=VALUES):
    return {row["what"]: row for row in run.summary(CONTENDERS, values)}


def test_ratios_are_of_one_round_and_to_the_fastest_floor():
    found = rows()
    np.testing.assert_equal([row["floor"] for row in found.values()], ["floor"] * 4)
    np.testing.assert_allclose(found["ours"]["ratio"], [2.0, 2.0, 2.25])
    np.testing.assert_allclose(found["theirs"]["ours"], [0.5, 0.5, 0.875])
    np.testing.assert_allclose(found["slow floor"]["ratio"], [1.5, 1.5, 1.5])


def test_a_round_that_was_broken_off_counts_for_those_who_finished_it():
    cut = {**VALUES, "theirs": {"case": [8.0]}}
    np.testing.assert_allclose(rows(cut)["theirs"]["ours"], [0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("times", "is_lost"),
    [([4.0, 5.0, 12.0], False), ([4.6, 4.4, 14.0], False), ([5.0, 5.2, 15.0], True), ([2.0, 2.0, 6.0], False)],
)
def test_a_loss_lies_beyond_the_spread(times, is_lost):
    kept = {"rows": [*run.summary(CONTENDERS, VALUES)], "missing": {}}
    now = {"rows": [*run.summary(CONTENDERS, {**VALUES, "ours": {"case": times}})], "missing": {}}
    found = run.losses(now, kept)
    np.testing.assert_equal([*found], [("ours", "case")] if is_lost else [])
    if is_lost:
        np.testing.assert_equal(found["ours", "case"], "ours, case: 2.50 of the floor, 2.00 before")


def test_what_is_not_measured_any_more_is_lost():
    kept = {"rows": [*run.summary(CONTENDERS, VALUES)], "missing": {}}
    found = run.losses({"rows": [], "missing": {"ours": "ImportError: no"}}, kept)
    np.testing.assert_equal([*found.values()], ["ours, case: not measured; ImportError: no"])


def test_every_contender_has_a_floor_and_every_peer_a_rival():
    for group in groups().values():
        roles = {what: contender.role for what, contender in group.contenders.items()}
        assert {"floor", "ours"} <= {*roles.values()}
        for contender in group.contenders.values():
            wanted = {"peer": "ours", "ours": "floor"}.get(contender.role)
            assert roles.get(contender.of) == wanted or (contender.role != "peer" and not contender.of)


def test_pictures_are_measured_and_the_page_written(tmp_path, capfd):
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(f"before\n{run.START}\nold\n{run.END}\nafter\n")
    wrong = ["--peer", f"hf5={sys.executable}"]
    common = ["--groups", "preprocessing", "--rounds", "1", "--tiny"]
    assert run.main([*common, *wrong, "--json", str(results), "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{run.START}\n") and text.endswith(f"{run.END}\nafter\n") and "old" not in text
    assert "| ViTImageProcessor, 1 thread | 32 images of 640 x 480 | " in text
    assert "- transformers 4.57.6: not measured; make bench-peers has it." in text
    assert "- transformers 5.24.0: not measured; expected transformers 5.24.0 in that environment, found none." in text
    kept = json.loads(results.read_text())
    np.testing.assert_equal([row["rounds"] for row in kept["groups"]["preprocessing"]["rows"]], [1] * 6)
    assert "preprocessing: round 1 of 1" in capfd.readouterr().err


def test_ctrl_c_keeps_what_is_measured(tmp_path, monkeypatch, capsys):
    def take(self, rounds, until):
        if self.name == "tf":
            raise KeyboardInterrupt
        self.values = {"matrix products, torch": {"batch 1": [1.0]}, "vit_torch": {"batch 1": [1.5]}}

    monkeypatch.setattr(run.Measurement, "take", take)
    results = tmp_path / "results.json"
    assert run.main(["--groups", "torch", "tf", "flax", "--json", str(results)]) == 0
    kept = json.loads(results.read_text())["groups"]
    np.testing.assert_equal([len(result["rows"]) for result in kept.values()], [2])
    assert "| vit_torch | batch 1 | 1.50 s | 1.50 (1.50 to 1.50) |" in capsys.readouterr().out


def test_groups_of_the_same_machine_stay_and_of_another_go(tmp_path, monkeypatch):
    monkeypatch.setattr(run.Measurement, "take", lambda *_: None)
    results = tmp_path / "results.json"
    for group in ("tf", "torch"):
        run.main(["--groups", group, "--json", str(results)])
    np.testing.assert_equal([*json.loads(results.read_text())["groups"]], ["torch", "tf"])
    elsewhere = {**run.machine(), "cpu": "an abacus"}
    monkeypatch.setattr(run, "machine", lambda: elsewhere)
    run.main(["--groups", "flax", "--json", str(results)])
    np.testing.assert_equal([*json.loads(results.read_text())["groups"]], ["flax"])


def test_a_baseline_of_another_machine_is_refused(tmp_path, capsys):
    other = {"machine": {"cpu": "an abacus", "cores": 1, "threads": "1"}, "groups": {}}
    (tmp_path / "results.json").write_text(json.dumps(other))
    assert run.main(["--check", str(tmp_path / "results.json")]) == 2
    assert "an abacus, 1 cores, threads 1: measure one on this machine by --json" in capsys.readouterr().err


# --- growth ----------------------------------------------------------------------------------------------------------


def grown(unit, power, role="ours", what="vit_x"):
    sizes = (1, 10, 1000)
    return [
        {
            "what": what,
            "case": f"{size:,} {unit}",
            "role": role,
            "value": 2.0 * size**power,
            "ratio": [0, size ** (power - 1), 9],
        }
        for size in sizes
    ]


def test_growth_is_fitted_to_the_ratios():
    floor = grown("tokens", 1, "floor", "products")
    assert growth.exponent(floor, grown("tokens", 1)) == pytest.approx(1)
    assert growth.exponent(floor, grown("tokens", 2)) == pytest.approx(2)
    (line,) = growth.fitted({"title": "T", "rows": [*grown("tokens", 2), *floor]})
    assert line == "| T | vit_x | 1 to 1,000 | 2.00 | 1.00, 10.00, 1000.00 |"


def test_tensors_take_a_time_each():
    rows = [
        {"what": "ours", "case": f"{n:,} tensors", "role": "ours", "value": 0.01 + 5e-6 * n, "ratio": [1, 1, 1]}
        for n in (100, 1000, 10_000)
    ]
    (line,) = growth.fitted({"title": "T", "rows": [*rows, {**rows[0], "what": "reading", "role": "floor"}]})
    assert "| 10 ms and 5.0 microseconds a tensor |" in line


def test_the_page_has_what_was_measured():
    """The section is that of the file, and the picture too, which tests/test_book_pictures.py looks at."""
    report = json.loads(growth.MEASURED.read_text())
    assert "\n".join([growth.START, *growth.section(report), growth.END]) in growth.PAGE.read_text()
