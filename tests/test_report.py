"""The report of the benchmarks is what their results give."""

import pytest

from benchmarks import report


def test_the_report_is_fresh_and_a_stale_one_is_noticed(tmp_path, monkeypatch, capsys):
    report.main(["--check"])
    stale = tmp_path / "README.md"
    stale.write_text(report.REPORT.read_text().replace("69.2", "39.2", 1))
    monkeypatch.setattr(report, "REPORT", stale)
    with pytest.raises(SystemExit, match=r"README.md is stale; write it with `python -m benchma"):
        report.main(["--check"])
    report.main([])
    report.main(["--check"])
    assert capsys.readouterr().out == ""


def test_a_text_that_leaves_a_table_out_is_refused():
    with pytest.raises(ValueError, match="findings.md shows .*there are"):
        report.report(report.TEXT.read_text().replace("{{steps}}", ""))
