"""What a card of the job panel says of a job, in the script itself."""

from __future__ import annotations

import pytest

JOB = {"state": "accepted", "waited_for": True, "unsent": False, "seed": 7, "pictures": []}


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({}, "running"),
        ({"waited_for": False}, "goes on, paid"),
        ({"state": "saved", "waited_for": False}, "finished"),
        ({"state": "refused"}, "not accepted, not billed"),
        ({"state": "refused", "unsent": True}, "not sent, not billed"),
    ],
)
def test_a_job_is_called_what_became_of_it(call, job, said) -> None:
    assert call("job_text.js", "describeState", JOB | job) == said


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"cost_usd": None, "estimate_usd": 0.014}, "about $0.0140"),
        ({"cost_usd": 0.02, "estimate_usd": 0.014}, "$0.0200"),
        ({"cost_usd": None, "estimate_usd": 0}, "free"),
    ],
)
def test_what_a_job_cost(call, job, said) -> None:
    assert call("job_text.js", "describeCost", JOB | job) == said


def test_a_line_before_run_says_where_it_goes(call) -> None:
    told = {"usd": 0, "seconds": None, "jobs": 0}
    assert call("job_text.js", "describeEstimate", told) == "about $0.0000"
    assert call("job_text.js", "describeEstimate", told | {"server": "desk"}) == "desk: free"
    assert (
        call("job_text.js", "describeEstimate", told | {"server": "desk", "usd": 0.5})
        == "desk: about $0.5000"
    )


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a = b\n\n  c=d = e \nf", {"a": "b", "c": "d = e", "f": ""}),
        ("", {}),
    ],
)
def test_lines_of_the_settings_panel_are_pairs(call, text, pairs) -> None:
    assert call("pairs.js", "readPairs", text) == pairs
    assert call("pairs.js", "readPairs", call("pairs.js", "writePairs", pairs)) == pairs


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({}, "Seed 7"),
        ({"seed": None}, ""),
        ({"pictures": [{"seed": 8}]}, "Seed 8"),
        ({"pictures": [{"seed": 8}, {"seed": None}, {"seed": 0}]}, "Seeds 8, 0"),
    ],
)
def test_seeds_are_those_of_the_pictures_else_the_one_asked_for(call, job, said) -> None:
    assert call("job_text.js", "describeSeeds", JOB | job) == said


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        ([{"seed": 8}], ""),
        ([{"worker": ""}, {"worker": ""}], ""),
        ([{"worker": "b"}, {"worker": "a"}, {"worker": "b"}, {"worker": ""}], "Drawn by b (2), a (1)"),
    ],
)
def test_a_clusters_workers_are_counted(call, pictures, said) -> None:
    assert call("job_text.js", "describeWorkers", JOB | {"pictures": pictures}) == said
