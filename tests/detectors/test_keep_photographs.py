"""Klein Keep on real photographs, every case within the goals of `run.py bench edits`."""

from __future__ import annotations

from tools.bench.edits import measure_keep


def test_every_photograph_comes_back() -> None:
    rows = {row.name: row for row in measure_keep(every=4)}
    assert [row for row in rows.values() if row.met is False] == []
    assert rows["Keep: IoU of the change, worst"].n == 18
    # What people use today fails where ours does not: else the photographs would be too easy.
    assert rows["difference pasted: IoU of the change"].value < 0.7
    assert rows["delta E of the rest, edit as it came"].value > 5
