"""Results equal those of the golden record; a deliberate change renews it, and says so."""

import pytest
from golden_record import DATA, ROOT, differences, digest, lines, load
from golden_runs import write_journal


@pytest.mark.measured
def test_results_are_those_of_the_golden_record(tmp_path):
    recorded = lines(ROOT, DATA, write_journal(tmp_path / "runs", DATA))
    new = {name: [digest(line) for line in outcomes] for name, outcomes in recorded.items()}
    wrong = list(differences(load(), new, exact=False))
    assert not wrong, "\n".join(wrong[:20])
