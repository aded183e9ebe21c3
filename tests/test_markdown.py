import pytest

from pipelines.data.markdown import bullets, table, write_page


def test_a_table_escapes_what_would_break_its_lines():
    assert table(["a", "b"], [["x|y", 1], ["two\nlines", ""]]).splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| x\\|y | 1 |",
        "| two lines |  |",
    ]


def test_a_page_holds_its_blocks_and_leaves_out_empty_ones(tmp_path):
    write_page(tmp_path / "page.md", ["# Title", "", bullets(["one", 2])])
    assert (tmp_path / "page.md").read_text() == "# Title\n\n- one\n- 2\n"


def test_a_page_that_fails_leaves_the_old_one(tmp_path):
    def blocks():
        yield "new"
        raise OSError("disk")

    (tmp_path / "page.md").write_text("old")
    with pytest.raises(OSError, match="disk"):
        write_page(tmp_path / "page.md", blocks())
    assert (tmp_path / "page.md").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]
