"""The files that install and run the studio elsewhere agree with pyproject.toml, with each other and with the rules.

No container engine is needed. What only an engine can show is not shown here: that the image builds and the services
work together.
"""

import json
import re
import stat
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from chartinsight_lib.cli import main
from chartinsight_lib.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE_TEXT = (ROOT / "docker-compose.yaml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES = COMPOSE["services"]
ONE_SHOT = {"migrate", "airflow-init"}
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()

# What a person may set; the run's id is the runner's word to its notebook.
SETTINGS = {
    field.validation_alias or PREFIX + name.upper() for name, field in Settings.model_fields.items() if name != "run_id"
}
SOURCE_KEYS = {"CHARTINSIGHT_KIWOOM_APPKEY", "CHARTINSIGHT_KIWOOM_SECRETKEY", "CHARTINSIGHT_DART_KEY"}
each_service = pytest.mark.parametrize("name", SERVICES)


def dockerfile(instruction: str) -> list[str]:
    """The arguments of every such line, from the top."""
    return [line.removeprefix(f"{instruction} ") for line in DOCKERFILE if line.startswith(f"{instruction} ")]


def copied_from_the_checkout() -> set[str]:
    return {source for line in dockerfile("COPY") if "--from" not in line for source in line.split()[:-1]}


# --- conda and the locks --------------------------------------------------------------------------


def test_conda_installs_what_pyproject_asks_for_and_then_the_package_itself():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, itself = conda["dependencies"][-1]["pip"]
    assert packages == PROJECT["dependencies"]
    assert itself == "-e .[sample,public]"


def test_conda_takes_a_python_that_pyproject_allows_and_the_image_has():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    minor = re.fullmatch(r"python=3\.(\d+)", conda["dependencies"][0]).group(1)
    least, below = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert int(least) <= int(minor) < int(below)
    assert dockerfile("FROM")[0].startswith(f"python:3.{minor}.")


@pytest.mark.parametrize("lock", sorted(path.name for path in ROOT.glob("*.lock")))
def test_a_lock_names_no_host(lock):
    assert "://" not in (ROOT / lock).read_text()


# --- docker-compose.yaml --------------------------------------------------------------------------


def test_compose_file_meets_the_compose_specification():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yaml"]
    result = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_profiles_are_app_pipeline_and_airflow_and_all_have_the_database():
    members = {name: set(service.get("profiles", [])) for name, service in SERVICES.items()}
    assert set().union(*members.values()) == {"app", "pipeline", "airflow"}
    # No profile means every profile.
    assert {name for name, profiles in members.items() if not profiles} == {"postgres", "migrate"}


@each_service
def test_ports_are_published_to_this_machine_alone(name):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@each_service
def test_a_service_that_stays_up_is_watched_and_restarted(name):
    watched = "test" in SERVICES[name].get("healthcheck", {}) and SERVICES[name].get("restart") == "unless-stopped"
    assert watched == (name not in ONE_SHOT)


@each_service
def test_a_container_gets_no_right_it_does_not_need(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & service.keys()


def test_every_password_and_token_must_be_given():
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|TOKEN|SECRET|KEY)\w*)([^}]*)\}", COMPOSE_TEXT)
    assert secrets
    # The keys of data sources may lack: then what needs them is skipped, and says so.
    assert {(name, rest) for name, rest in secrets if not rest.startswith(":?")} == {
        (name, "-") for name in SOURCE_KEYS
    }
    for service in SERVICES.values():
        for key, value in service["environment"].items():
            assert not re.search("PASSWORD|TOKEN", key) or re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), key


@pytest.mark.parametrize(
    ("name", "role"), [("migrate", "owner"), ("scheduler", "loader"), ("jupyterlab", "reader"), ("voila", "reader")]
)
def test_a_service_logs_in_as_its_own_role_and_knows_no_other_password(name, role):
    environment = SERVICES[name]["environment"]
    assert f"//chartinsight_{role}:${{" in environment["DATABASE_URL"]
    assert set(re.findall(r"POSTGRES_\w*PASSWORD", json.dumps(environment))) == {f"POSTGRES_{role.upper()}_PASSWORD"}


@pytest.mark.parametrize("name", [name for name in SERVICES if name.startswith("airflow")])
def test_of_airflow_only_what_runs_tasks_knows_the_login_and_the_keys_of_jobs(name):
    told = json.dumps(SERVICES[name]["environment"])
    known = set(re.findall(r"\$\{(\w*(?:PASSWORD|KEY)\w*)", told)) - {"AIRFLOW_DB_PASSWORD"}
    assert known == ({"POSTGRES_LOADER_PASSWORD", *SOURCE_KEYS} if name == "airflow-scheduler" else set())
    assert "AIRFLOW_DB_PASSWORD" in told


def test_a_connection_in_compose_is_one_that_airflow_reads():
    told = {name: value for name, value in SERVICES["airflow-scheduler"]["environment"].items() if "_CONN_" in name}
    assert set(told) == {"AIRFLOW_CONN_TRADESMART", "AIRFLOW_CONN_KIWOOM", "AIRFLOW_CONN_DART"}
    filled = {name: re.sub(r"\$\{\w+[^}]*\}", "x", value) for name, value in told.items()}
    assert json.loads(filled["AIRFLOW_CONN_KIWOOM"]) == {"conn_type": "generic", "login": "x", "password": "x"}
    assert json.loads(filled["AIRFLOW_CONN_DART"]) == {"conn_type": "generic", "password": "x"}


READY = {
    "postgres": {"postgres": "service_healthy"},
    "tables": {"postgres": "service_healthy", "migrate": "service_completed_successfully"},
    "airflow": {"airflow-db": "service_healthy", "airflow-init": "service_completed_successfully"},
}
WAITS = {
    "postgres": {},
    "airflow-db": {},
    "migrate": READY["postgres"],
    "airflow-init": {"airflow-db": "service_healthy"},
    "airflow-api": READY["airflow"],
    "airflow-dag-processor": READY["airflow"],
    "airflow-scheduler": READY["airflow"] | READY["tables"] | {"airflow-api": "service_healthy"},
}


@each_service
def test_every_service_waits_for_the_tables_it_uses(name):
    conditions = {other: how["condition"] for other, how in SERVICES[name].get("depends_on", {}).items()}
    assert conditions == WAITS.get(name, READY["tables"])


@each_service
def test_what_a_service_waits_for_is_in_its_profile(name):
    mine = set(SERVICES[name].get("profiles", []))
    for other in SERVICES[name].get("depends_on", {}):
        theirs = set(SERVICES[other].get("profiles", []))
        assert not theirs or mine <= theirs


@each_service
def test_images_are_pinned_or_built_here(name):
    service = SERVICES[name]
    assert service.get("pull_policy") == "build" or re.search(r":\d+\.\d+(\.\d+)?(-\w+)?$", service["image"])


def test_every_command_of_a_service_is_one_the_program_has():
    commands = [service["command"] for service in SERVICES.values() if "command" in service]
    ours = [command for command in commands if command[0] == "chartinsight"]
    assert {command[1] for command in ours} == {"db", "radar", "scheduler"}
    for command in ours:
        assert CliRunner().invoke(main, [*command[1:], "--help"]).exit_code == 0, command


# --- docker/postgres ------------------------------------------------------------------------------


def test_the_script_of_the_roles_reads_exactly_the_passwords_compose_hands_it():
    script = ROOT / "docker/postgres/10-roles.sh"
    read = set(re.findall(r"^\\getenv \w+ +(\w+)$", script.read_text(), re.MULTILINE))
    handed = {key for key in SERVICES["postgres"]["environment"] if key.endswith("_PASSWORD")}
    assert read == handed - {"POSTGRES_PASSWORD"}
    # The image sources a script that is not executable, into its own shell and under its options.
    assert script.stat().st_mode & stat.S_IXUSR


# --- Dockerfile -----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="hadolint's wheel has no build for Windows")
def test_dockerfile_lints_clean():
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    result = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_image_stands_on_one_pinned_base_and_runs_as_the_user_compose_names():
    first, *later = dockerfile("FROM")
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+ AS base", first)
    assert {line.split()[0] for line in later} == {"base", "studio"}
    assert {dockerfile("USER")[0], dockerfile("USER")[-1]} == {SERVICES["voila"]["user"]}


def test_a_service_is_built_from_a_stage_that_there_is():
    stages = {line.split(" AS ")[1] for line in dockerfile("FROM")}
    built = {name: service["build"]["target"] for name, service in SERVICES.items() if "build" in service}
    assert set(built.values()) == {"studio", "airflow"} <= stages
    assert {name for name, target in built.items() if target == "airflow"} == {
        name for name in SERVICES if name.startswith("airflow-") and name != "airflow-db"
    }


def test_image_installs_the_lock_with_its_hashes_and_nothing_beside_it():
    installs = [line for line in dockerfile("RUN") if "pip install" in line]
    lock, package, airflow = installs
    assert "--require-hashes --no-deps -r requirements.lock" in lock
    assert '--require-hashes --no-deps -r "$AIRFLOW_LOCK"' in airflow
    assert dockerfile("ARG") == ["AIRFLOW_LOCK=requirements.lock"]
    assert "--no-deps --no-build-isolation" in package
    assert all("--no-cache-dir" in line for line in installs)


def test_build_sees_what_it_copies_and_nothing_else():
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    # What is below a folder that is copied may be copied by itself, too.
    assert set(allowed) == {name for name in copied_from_the_checkout() if not name.startswith("pipelines/")}
    assert [name for name in allowed if not (ROOT / name).exists()] == []


# --- .env.example ---------------------------------------------------------------------------------


def test_env_example_names_every_setting_and_every_variable_of_compose():
    named = re.findall(r"^#?([A-Z][A-Z_]*)=", ENV_EXAMPLE, re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) == SETTINGS | set(re.findall(r"\$\{(\w+)", COMPOSE_TEXT))


def test_env_example_leaves_what_compose_requires_to_be_filled_in_and_holds_no_secret():
    assert set(re.findall(r"^([A-Z_]+)=$", ENV_EXAMPLE, re.MULTILINE)) == set(re.findall(r"\$\{(\w+):\?", COMPOSE_TEXT))
    assert re.findall(r"^[A-Z_]+=.+$", ENV_EXAMPLE, re.MULTILINE) == []


def test_env_example_explains_each_line():
    lines = ENV_EXAMPLE.splitlines()
    settings = [number for number, line in enumerate(lines) if re.match(r"#?[A-Z][A-Z_]*=", line)]
    assert [lines[number] for number in settings if not lines[number - 1].startswith("# ")] == []
