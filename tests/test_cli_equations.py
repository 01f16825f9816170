"""`tinynet equations`."""

import json

from tinynet.cli import main


def test_json_lists_all_26(capsys):
    assert main(["equations", "--json"]) == 0
    assert [e["number"] for e in json.loads(capsys.readouterr().out)] == list(range(1, 27))
