"""A daemon that is killed in mid-run goes on: `make kills` does it fifty times."""

from killing import kill_often


def test_no_outcome_is_lost_or_made_twice_by_kills(tmp_path):
    record = kill_often(tmp_path, kills=3, seed=1)
    assert not record.wrong(), record.describe()
    assert record.expected.total() > 100, record.describe()
