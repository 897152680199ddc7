"""What a run is told is checked before anything starts."""

from dataclasses import replace

import pytest
from running import NOW, records, shown

from chartinsight_lib.errors import ConfigError
from chartinsight_lib.runner import check_parameters, declared, parse_parameters, run_job

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"cod": "005930"}, "it has no parameter 'cod'. Its parameters are code, rows, share, full, names."),
        ({"code": 5930}, "parameter code must be str, and 5930 is int."),
        ({"rows": "3"}, "parameter rows must be int, and '3' is str."),
        ({"rows": True}, "parameter rows must be int, and True is bool."),
        ({"rows": None}, "parameter rows must be int, and None is NoneType."),
        ({"full": 1}, "parameter full must be bool, and 1 is int."),
        ({"names": ["close"]}, "parameter names must be dict, and ['close'] is list."),
        ({"code\nopen('proof', 'w')\n": "x"}, """it has no parameter "code\\nopen('proof', 'w')\\n". """),
        ({"share": float("nan")}, "a parameter holds what a record cannot"),
        ({"names": {"close": NOW}}, "a parameter holds what a record cannot"),
        ({"code": "\udcff"}, "a parameter holds what a record cannot"),
        ({"code": "a\0b"}, "a parameter holds what a record cannot"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_starts(database, place, loader, notebook, told, sentence):
    with pytest.raises(ConfigError) as refusal:
        run_job(database, place, notebook("1"), told)
    assert f"made.ipynb: {sentence}" in str(refusal.value)
    assert records(loader) == []
    assert not place.runs.exists()


def test_a_notebook_without_parameters_takes_none(database, place, loader, notebook):
    job = notebook("1", parameters=None)
    with pytest.raises(ConfigError, match=r"it has no parameter 'code'\. Its parameters are none\."):
        run_job(database, place, job, {"code": "005930"})
    assert records(loader) == []
    assert not place.runs.exists()


def test_a_parameter_without_a_plain_type_cannot_be_set(notebook):
    job = notebook(parameters="untyped = 3\nodd: int | None = None")
    with pytest.raises(ConfigError, match="parameter untyped is declared as 'None'; declare it as one of str, int,"):
        check_parameters(job.notebook, {"untyped": 3})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"code": "005930"}, {"code": "005930"}),
        ({"code": "true"}, {"code": "true"}),
        ({"rows": "20"}, {"rows": 20}),
        ({"share": "0.25"}, {"share": 0.25}),
        ({"full": "yes"}, {"full": True}),
        ({"names": "{close: 종가}"}, {"names": {"close": "종가"}}),
    ],
)
def test_what_a_person_writes_is_read_as_the_type_that_the_notebook_declares(notebook, written, meant):
    assert parse_parameters(notebook().notebook, written) == meant


def test_a_text_that_is_no_number_is_refused_with_the_parameters_name(notebook):
    with pytest.raises(ConfigError, match="parameter rows must be int, and 'many' is str"):
        parse_parameters(notebook().notebook, {"rows": "many"})
    with pytest.raises(ConfigError, match=r"parameter names: '\{' cannot be read as dict"):
        parse_parameters(notebook().notebook, {"names": "{"})


def test_a_runs_folder_that_cannot_be_made_is_said_before_anything_starts(database, place, loader, notebook, tmp_path):
    (tmp_path / "runs").write_text("a file in the way")
    with pytest.raises(ConfigError, match=r"runs: .* cannot be made .*CHARTINSIGHT_RUNS_DIR"):
        run_job(database, place, notebook("1"), {})
    assert records(loader) == []


@pytest.mark.parametrize("name", ["../outside", "a/b", "", "Made", "made.x"])
def test_a_job_whose_name_is_no_folder_of_its_own_is_refused(database, place, loader, notebook, name):
    with pytest.raises(ConfigError, match="a name is a folder's name under runs/"):
        run_job(database, place, replace(notebook("1"), name=name), {})
    assert not place.runs.exists()


def test_a_folder_of_a_job_that_leads_elsewhere_is_refused(database, place, loader, notebook, tmp_path):
    place.runs.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (place.runs / "made").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"runs/made leads to .*elsewhere\. Remove that link"):
        run_job(database, place, notebook("1"), {})
    assert records(loader) == []
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_folder_of_all_runs_may_lie_elsewhere(database, place, loader, notebook, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    place.runs.symlink_to(tmp_path / "elsewhere")
    run_job(database, place, notebook("1"), {})
    assert len(list((tmp_path / "elsewhere" / "made").glob("*.ipynb"))) == 1


def test_a_path_that_papermill_would_fill_in_is_taken_as_it_stands(database, place, loader, notebook, tmp_path):
    (tmp_path / "{code}").mkdir()
    job = notebook("code")
    odd = replace(job, notebook=job.notebook.rename(tmp_path / "{code}" / "made.ipynb"))
    place = place.model_copy(update={"runs_dir": tmp_path / "{code.__class__}"})
    run = run_job(database, place, odd, {"code": "../../x"})
    assert run.output.parent == tmp_path / "{code.__class__}" / "made"
    assert run.output.is_file()
    assert shown(run.output)[-1] == "'../../x'"


def test_what_a_notebook_declares_is_read_from_its_syntax(notebook):
    odd = 'many: int = (\n    3\n)  # a = b | c\nText: str = "a: int = 4"\nplain = 1\nprint("x")\nsome.thing = 3'
    assert declared(notebook(parameters=odd).notebook) == {"many": "int", "Text": "str", "plain": "None"}
    with pytest.raises(ConfigError, match=r"made\.ipynb: its parameters cannot be read"):
        declared(notebook(parameters="a: int = ").notebook)
