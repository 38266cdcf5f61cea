"""Bad inputs, each in a watched child process: refused by name, at once, in little memory, with nothing executed."""

import re

import pytest
from backends import INSTALLED
from reliability import bad_inputs
from reliability.bad_inputs import CASES, META
from reliability.watched import Server, most_seconds

MEGABYTES = 100  # what a refusal may take
QUICK = 0.3  # of CPU time, which are never too many; beyond, `most_seconds` tells


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


def names(*groups: str) -> list[str]:
    return [name for name, case in CASES.items() if case.group in groups]


def problems(case, found: dict) -> list[str]:
    """What is wrong with how a bad input was met."""
    text, wrong = found["text"], [*found["noted"]]
    if found["ended"] != "raised":
        return [*wrong, f"{found['ended']} {found.get('value', '')}"]
    if case.error not in found["classes"] or "VitError" not in found["classes"]:
        wrong.append(f"expected {case.error}, got {found['classes'][0]}: {text}")
    wrong += [f"{part!r} is not in: {text}" for part in (case.what, case.why) if not re.search(part, text)]
    if len(text.splitlines()) > 3:
        wrong.append(f"more than 3 lines: {text}")
    if found["bytes"] > MEGABYTES * 10**6:
        wrong.append(f"{found['bytes']} bytes")
    if found["seconds"] > QUICK and found["seconds"] > most_seconds():
        wrong.append(f"{found['seconds']} seconds")
    return wrong


def record(figure, group: str, found: list[dict]) -> None:
    """Puts the figures of a group into the table of `make reliability`."""
    seconds = sorted(each["seconds"] for each in found)
    worst = max(each["bytes"] for each in found) / 1e6
    middle, last = (f"{1e3 * each:.1f} ms" for each in (seconds[len(seconds) // 2], seconds[-1]))
    figure(f"bad input: {group}", f"{len(found)} cases, median {middle}, at most {last} and {worst:.0f} MB")


@pytest.fixture(scope="module", params=INSTALLED)
def backend_server(request):
    server = Server(request.param)
    server.backend = request.param
    yield server
    server.close()


SHARES = {"all": 1, "a third": 3}  # every so many cases


@pytest.mark.every_day("a third")
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("group", ["config", "weights", "shards", "images"])
def test_refused(group, share, server, figure):
    found = {name: server.run(name) for name in names(group)[:: SHARES[share]]}
    wrong = {name: problems(CASES[name], each) for name, each in found.items()}
    assert {name: each for name, each in wrong.items() if each} == {}
    if share == "all":
        record(figure, group, [*found.values()])


@pytest.mark.every_day("torch")
def test_refused_by_a_backend(backend_server, figure):
    """Calls of its models; through its own from_pretrained a few bad checkpoints, and those whose digests tell."""
    bad = [name for name in names("weights", "shards") if CASES[name].act is bad_inputs.load]
    damaged = [name for name in bad if CASES[name].why == "damaged"]
    assert len(damaged) > 1
    chosen = [*names("calls"), *{**dict.fromkeys(damaged), **dict.fromkeys(bad[::5])}]
    found = {name: backend_server.run(name) for name in chosen}
    wrong = {name: problems(CASES[name], each) for name, each in found.items()}
    assert {name: each for name, each in wrong.items() if each} == {}
    record(figure, f"calls and checkpoints, {backend_server.backend}", [*found.values()])


@pytest.mark.every_day("torch")
def test_accepted_by_a_backend(backend_server):
    chosen = [*names("legal calls"), *(name for name in names("legal") if CASES[name].act is bad_inputs.load)]
    found = {name: backend_server.run(name) for name in chosen}
    assert len(found) > 12
    assert {name: each for name, each in found.items() if each["ended"] != "returned" or each["noted"]} == {}


@pytest.mark.every_day("a third")
@pytest.mark.parametrize("share", SHARES)
def test_accepted(share, server, figure):
    found = {name: server.run(name) for name in names("legal")[:: SHARES[share]]}
    wrong = {name: each for name, each in found.items() if each["ended"] != "returned" or each["noted"]}
    assert wrong == {}
    if share == "all":
        record(figure, "legal, accepted", [*found.values()])


@pytest.mark.parametrize("name", META)
def test_the_watch_notices(name, server):
    """Each detector can fail: a case that does the forbidden thing is reported for just that."""
    found = problems(CASES[f"meta: {name}"], server.run(f"meta: {name}"))
    assert any(META[name][1] in problem for problem in found), found


def test_there_are_enough():
    assert len(names("config", "weights", "shards", "images", "calls")) >= 150
    assert len(names("legal", "legal calls")) >= 25
