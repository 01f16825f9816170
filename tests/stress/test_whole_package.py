"""`tinynet verify --all tinynet`: every layer and loss of the package, then random networks of them."""

import json

from tinynet.cli import main
from tinynet.verification.cases import CASES


def test_every_case_passes_and_so_do_random_networks(capsys):
    assert main(["verify", "--all", "tinynet", "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)["reports"]
    assert [r["verdict"] for r in reports] == ["PASS"] * (len(CASES) + 1)
    assert "random networks" in reports[-1]["target"]
