"""Prepares an AIRFLOW_HOME so that nothing is left to do by hand. Run it before Airflow starts, with Airflow's own Python:

    AIRFLOW_HOME=… AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=postgresql+psycopg2://… python pipelines/airflow/deploy.py

It writes `airflow.cfg` with secrets that it makes up once, brings the metadata database up to date, sets the pools to what
`pipelines/jobs.yaml` says, and refuses a wrong list of jobs. Safe to repeat: the secrets stay, and so does the password of `admin`,
in the file `passwords.json` beside it.
"""

import base64
import configparser
import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
sys.path[:0] = [str(PROJECT), str(HERE)]  # where PYTHONPATH will lead Airflow

from chartinsight_lib.errors import ConfigError  # noqa: E402
from chartinsight_lib.jobs import read_list  # noqa: E402

ADMIN = "admin"


def settings(home: Path) -> dict[str, dict[str, str]]:
    """Return what differs from Airflow's defaults, without secrets; a variable AIRFLOW__SECTION__KEY stands above it."""
    return {
        "core": {
            "executor": "LocalExecutor",
            "dags_folder": str(HERE / "dags"),
            "plugins_folder": str(HERE / "plugins"),
            "load_examples": "False",
            "parallelism": "8",
            "simple_auth_manager_users": f"{ADMIN}:admin",
            "simple_auth_manager_passwords_file": str(home / "passwords.json"),
        },
        "api": {"host": "127.0.0.1", "expose_config": "False"},
        # The list of jobs changes with a deployment, not every half minute.
        "dag_processor": {"min_file_process_interval": "300", "refresh_interval": "60"},
        "scheduler": {"catchup_by_default": "False"},
        # Five seconds are the default: a start that a busy API answers later counts as lost, though it was recorded.
        "workers": {"execution_api_timeout": "60"},
        "logging": {"base_log_folder": str(home / "logs")},
        "usage_data_collection": {"enabled": "False"},
    }


def made_up() -> dict[str, dict[str, str]]:
    """Return new secrets: those that all parts of an Airflow share."""
    return {
        "core": {"fernet_key": base64.urlsafe_b64encode(os.urandom(32)).decode()},
        "api": {"secret_key": secrets.token_hex(32)},
        "api_auth": {"jwt_secret": secrets.token_hex(32)},
    }


def write_config(home: Path) -> None:
    """Write airflow.cfg; the secrets of the one that is there are kept."""
    path, held = home / "airflow.cfg", configparser.ConfigParser(interpolation=None)
    held.read(path, encoding="utf-8")
    written = configparser.ConfigParser(interpolation=None)
    for section, options in settings(home).items():
        written[section] = options
    for section, options in made_up().items():
        if section not in written:
            written.add_section(section)
        for option, value in options.items():
            written[section][option] = held.get(section, option, fallback=value)
    with tempfile.NamedTemporaryFile("w", dir=home, delete=False, encoding="utf-8") as file:  # made with mode 600
        written.write(file)
    Path(file.name).replace(path)


def write_password(home: Path) -> Path:
    """Write the password of `admin`, made up, unless there is one. Airflow's own default would print one into its log."""
    path = home / "passwords.json"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({ADMIN: secrets.token_urlsafe(18)}, file)
    return path


def set_pools(pools: dict[str, int]) -> None:
    """Make Airflow's pools as large as the list says; others stay. A task whose pool does not exist would wait for ever."""
    told = {
        name: {"slots": places, "description": "pipelines/jobs.yaml", "include_deferred": False}
        for name, places in pools.items()
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(told, file)
        file.flush()
        airflow("pools", "import", file.name)


def airflow(*command: str) -> None:
    """Run a command of Airflow's, and end with its exit code if it fails."""
    done = subprocess.run([Path(sys.executable).parent / "airflow", *command], check=False)
    if done.returncode:
        sys.exit(f"deploy: airflow {' '.join(command)} ended with {done.returncode}; its message stands above.")


def main() -> None:
    """Do all of it, in the order in which each step needs the one before."""
    try:
        listed = read_list(Path(os.environ.get("CHARTINSIGHT_PROJECT") or PROJECT))
    except ConfigError as error:
        sys.exit(f"deploy: {error}")
    home = Path(
        os.environ.get("AIRFLOW_HOME") or sys.exit("deploy: AIRFLOW_HOME is not set. Name a folder of its own.")
    )
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_config(home)
    password = write_password(home)
    airflow("db", "migrate")
    set_pools(dict(listed.pools))
    pools = ", ".join(f"{name} of {places}" for name, places in listed.pools.items())
    sys.stdout.write(
        f"deploy: {len(listed.jobs)} jobs; pools: {pools or 'none'}; the password of {ADMIN} is in {password}\n"
    )


if __name__ == "__main__":
    main()
