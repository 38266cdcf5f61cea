"""Checkpoints of the family that are not sound are refused by the converter and its command, with what was expected."""

import pytest
from bad_checkpoints import BAD, write_bad

import conversion
from vit_core.errors import CheckpointError, ConfigError
from vitriad.cli import main


@pytest.mark.parametrize("case", BAD)
def test_the_converter_and_its_command_refuse_them(case, tmp_path, capsys):
    folder = write_bad(case, tmp_path)
    capsys.readouterr()
    with pytest.raises((CheckpointError, ConfigError), match=BAD[case][-1]) as caught:
        conversion.load(folder)
    assert str(folder) in str(caught.value) and len(str(caught.value).splitlines()) <= 3
    assert main(["convert", str(folder), str(tmp_path / "new"), "--to", "hf"]) == 1
    assert str(caught.value).splitlines()[-1] in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
