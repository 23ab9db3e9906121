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
        ({}, "Seed 7"),
        ({"seed": None}, ""),
        ({"pictures": [{"seed": 8}]}, "Seed 8"),
        ({"pictures": [{"seed": 8}, {"seed": None}, {"seed": 0}]}, "Seeds 8, 0"),
    ],
)
def test_seeds_are_those_of_the_pictures_else_the_one_asked_for(call, job, said) -> None:
    assert call("job_text.js", "describeSeeds", JOB | job) == said
