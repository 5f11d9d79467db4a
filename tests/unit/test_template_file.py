"""Reading template.yaml: each version of the file once, and for each caller its own."""

import os
from pathlib import Path

from local import template


def test_a_template_is_the_callers_own_and_follows_its_file(tmp_path: Path) -> None:
    file = tmp_path / "template.yaml"
    file.write_text("Version: 2012-10-17\nName: !Sub ${Stage}-x\nSize: !GetAtt A.B\n")
    first = template.read(file)
    assert first == {
        "Version": "2012-10-17",
        "Name": {"Fn::Sub": "${Stage}-x"},
        "Size": {"Fn::GetAtt": ["A", "B"]},
    }
    first["Name"]["Fn::Sub"] = "changed"
    assert template.read(file)["Name"] == {"Fn::Sub": "${Stage}-x"}
    file.write_text("Name: !Sub ${Stage}-y\n")
    os.utime(file, ns=(0, 1))
    assert template.read(file) == {"Name": {"Fn::Sub": "${Stage}-y"}}
