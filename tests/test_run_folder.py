import dataclasses
import json

import pytest

from jfusion import config_file, run_folder
from jfusion.config import ConfigError, Mesh
from tests.training import runs


def a_config(**train):
    values = {**runs.CONFIG, "name": "small:one", "train": {**runs.CONFIG["train"], **train}}
    return config_file.resolve(values)


def begin(folder, config=None):
    """A run that has written something besides its config."""
    run_folder.open_run(str(folder), config or a_config()).close()
    (folder / "metrics.jsonl").write_text("")


def test_a_new_folder_holds_the_whole_config(tmp_path):
    with run_folder.open_run(str(tmp_path / "deep" / "run"), a_config()) as folder:
        assert folder.path == tmp_path / "deep" / "run"
        assert folder.summary is None
    values = json.loads((folder.path / "config.json").read_text())
    assert values["train"]["b1"] == 0.9  # a default
    assert config_file.resolve(values) == a_config()


def test_without_a_workdir_the_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = []
    for _ in range(2):
        with run_folder.open_run("", a_config()) as folder:
            paths.append(str(folder.path))
    assert paths == ["runs/small-one-1", "runs/small-one-2"]


@pytest.mark.parametrize("place", ["s3://bucket", "gs://", "ftp://bucket/run", "s3://bucket/../x"])
def test_no_place_in_a_bucket_is_refused(place):
    with pytest.raises(ConfigError, match=f"^--workdir: {place} is no place in a bucket; it must"):
        run_folder.open_run(place, a_config())


def test_an_unfinished_run_is_opened_again(tmp_path):
    begin(tmp_path)
    with run_folder.open_run(str(tmp_path), a_config()) as folder:
        assert folder.summary is None


def test_a_finished_run_is_known_by_its_summary(tmp_path):
    begin(tmp_path)
    run_folder.write_json(tmp_path / "summary.json", {"best_step": 3})
    with run_folder.open_run(str(tmp_path), a_config()) as folder:
        assert folder.summary == {"best_step": 3}


def test_another_config_is_refused_with_the_difference(tmp_path):
    begin(tmp_path)
    phases = runs.CONFIG["train"]["phases"]
    changed = [{**phases[0], "epochs": 9}, phases[1]]
    with pytest.raises(ConfigError) as caught:
        run_folder.open_run(str(tmp_path), a_config(batch_size=16, phases=changed))
    assert str(caught.value).split("\n") == [
        f"--workdir: {tmp_path} holds a run of another config; choose another folder, or undo:",
        "  config.train.batch_size: 8 there, 16 now",
        "  config.train.phases.0.epochs: 2 there, 9 now",
    ]
    begin(tmp_path)  # nothing was changed by that


def test_a_run_that_never_began_may_go_on_with_another_config(tmp_path):
    run_folder.open_run(str(tmp_path), a_config()).close()
    run_folder.open_run(str(tmp_path), a_config(batch_size=16)).close()
    assert json.loads((tmp_path / "config.json").read_text())["train"]["batch_size"] == 16


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds files but no run; choose another folder"):
        run_folder.open_run(str(tmp_path), a_config())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_hidden_files_are_no_work(tmp_path):
    (tmp_path / ".config.json.tmp").write_text("{")  # left by a process killed as it began
    run_folder.open_run(str(tmp_path), a_config()).close()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_damaged_file_is_an_error_that_names_it(tmp_path):
    begin(tmp_path)
    (tmp_path / "config.json").write_text('{"seed"')
    with pytest.raises(ConfigError, match=r"config\.json is damaged \(.+\); choose another"):
        run_folder.open_run(str(tmp_path), a_config())


def test_a_file_in_the_way_is_an_error_that_names_it(tmp_path):
    (tmp_path / "run").write_text("")
    for workdir in (tmp_path / "run", tmp_path / "run" / "deeper"):
        with pytest.raises(ConfigError, match=f"^--workdir: {workdir}: "):
            run_folder.open_run(str(workdir), a_config())


def test_two_processes_do_not_share_a_folder(tmp_path):
    # A lock belongs to the opened file, so this process can stand for two.
    with (
        run_folder.open_run(str(tmp_path), a_config()),
        pytest.raises(ConfigError, match=f"^--workdir: another process is at work in {tmp_path}$"),
    ):
        run_folder.open_run(str(tmp_path), a_config())
    run_folder.open_run(str(tmp_path), a_config()).close()


def test_a_refused_folder_is_not_left_locked(tmp_path):
    begin(tmp_path)
    with pytest.raises(ConfigError, match="another config"):
        run_folder.open_run(str(tmp_path), a_config(batch_size=16))
    run_folder.open_run(str(tmp_path), a_config()).close()


def test_json_is_never_seen_half_written(tmp_path):
    run_folder.write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        run_folder.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_a_run_may_go_on_with_another_mesh(tmp_path):
    begin(tmp_path)
    config = dataclasses.replace(a_config(), mesh=Mesh(fsdp=2))
    run_folder.open_run(str(tmp_path), config).close()
    assert json.loads((tmp_path / "config.json").read_text())["mesh"]["fsdp"] == 2


def test_the_first_of_several_processes_opens_and_the_others_join(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = []

    def decide(do):
        told.append(do())
        return told[0]

    with run_folder.open_shared("", a_config(), decide) as first:
        assert first.leads and str(first.path) == "runs/small-one-1"
        with run_folder.open_shared("", a_config(), lambda do: told[0]) as second:
            assert not second.leads and second.path == first.path
        monkeypatch.chdir(tmp_path / "runs")
        with pytest.raises(ConfigError, match="give a folder on a disk that all processes share"):
            run_folder.open_shared("", a_config(), lambda do: told[0])
