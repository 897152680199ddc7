"""./studio on machines that lack something: every programme it meets here is a stand-in, and nothing is installed."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("studio", "pyproject.toml", "requirements.lock", "requirements-test.lock")
TOOLS = ("sh", "awk", "cat", "chmod", "cksum", "dirname", "env", "grep", "id", "mkdir", "rm", "tail", "tr")

# A Python whose `-m venv` makes an environment in which pip does as the test says.
PYTHON = """#!/bin/sh
case "$*" in
*"import sys; sys.exit"*) exit {suits} ;;
"--version") echo "Python {version}" ;;
"-c import venv, ensurepip") exit {venv} ;;
"-m venv "*)
    mkdir -p "$3/bin"
    echo "VIRTUAL_ENV='$3'" >"$3/bin/activate"
    cat >"$3/bin/python" <<'END'
{inner}
END
    chmod +x "$3/bin/python" ;;
esac
"""
INNER = """#!/bin/sh
case "$*" in
"-m pip "*)
    echo "$@" >>"{calls}"
    {pip}
    printf '#!/bin/sh\\necho chartinsight "$@"\\n' >"${{0%python}}chartinsight"
    chmod +x "${{0%python}}chartinsight" ;;
esac
"""
PLENTY = "echo 'Filesystem 1048576-blocks Used Available Capacity Mounted'; echo '/dev/sda1 90000 1000 80000 2% /'"


class Machine:
    """A checkout in a folder of its own, and a PATH with nothing but the usual tools and what a test puts there."""

    def __init__(self, folder: Path, shell: str) -> None:
        self.checkout, self.bin, self.shell = folder / "a check out", folder / "bin", shell
        self.checkout.mkdir()
        self.bin.mkdir()
        for name in COPIED:
            shutil.copy(ROOT / name, self.checkout)
        for name in TOOLS:
            (self.bin / name).symlink_to(shutil.which(name) or pytest.fail(f"this machine has no {name}"))
        self.has("df", PLENTY)
        self.calls = folder / "calls"

    def has(self, name: str, body: str, *, folder: Path | None = None) -> None:
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body if body.startswith("#!") else f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def has_python(self, *, suits: int = 0, version: str = "3.12.1", venv: int = 0, pip: str = ":") -> None:
        inner = INNER.format(calls=self.calls, pip=pip)
        self.has("python3", PYTHON.format(suits=suits, version=version, venv=venv, inner=inner))

    def has_environment(self, lock: str = "requirements.lock") -> Path:
        """Make a .venv that is up to date, as its stamp says; return its bin."""
        venv = self.checkout / ".venv"
        self.has("python", "exit 0", folder=venv / "bin")
        (venv / "bin" / "activate").write_text(f"VIRTUAL_ENV='{venv}'\n")
        content = b"".join((self.checkout / name).read_bytes() for name in (lock, "pyproject.toml"))
        content = f"{self.checkout}\n".encode() + content
        sum_of = subprocess.run(["cksum"], input=content, capture_output=True, check=True).stdout.decode()
        (venv / f".studio-{lock}").write_text(sum_of.replace(" ", "-").replace("\n", "-").rstrip("-"))
        return venv / "bin"

    def studio(
        self, *arguments: str, cwd: Path | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.shell, str(self.checkout / "studio"), *arguments], cwd=cwd or self.checkout, text=True,
            env={"PATH": str(self.bin), "HOME": str(self.bin)} | environment, capture_output=True, check=False, timeout=60,
        )  # fmt: skip


SHELLS = [found for name in ("sh", "dash", "bash") if (found := shutil.which(name))]


@pytest.fixture(params=SHELLS, ids=lambda shell: Path(shell).name)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param)


@pytest.fixture
def refused(machine: Machine) -> Callable[..., str]:
    """Runs `./studio up`, which must end with 2 and one line of its own at the end; returns that line."""

    def run(**environment: str) -> str:
        done = machine.studio("up", **environment)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stdout == ""
        said = [line for line in done.stderr.splitlines() if line.startswith("studio: ")]
        assert len(said) == 1, done.stderr
        assert done.stderr.splitlines()[-1] == said[0]
        return said[0].removeprefix("studio: ")

    return run


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_can_be_parsed(shell):
    subprocess.run([shell, "-n", ROOT / "studio"], check=True)


def test_the_script_is_executable_and_asks_for_no_more_than_a_posix_shell():
    assert os.access(ROOT / "studio", os.X_OK)
    assert (ROOT / "studio").read_text().splitlines()[0] == "#!/bin/sh"


# --- what may be lacking --------------------------------------------------------------------------


def test_without_python_it_says_which_is_needed_and_how_to_get_it(machine, refused):
    said = refused()
    assert said.startswith("Python 3.11, 3.12 or 3.13 is needed, and this machine has no Python at all.")
    assert "sudo apt install python3" in said
    assert not (machine.checkout / ".venv").exists()


def test_a_python_that_is_too_old_is_named(machine, refused):
    machine.has_python(suits=1, version="3.8.10")
    assert "and this machine has Python 3.8.10." in refused()


def test_a_python_elsewhere_can_be_named(machine):
    machine.has_python(suits=1, version="3.8.10")
    old = (machine.bin / "python3").read_text()
    machine.has("python3.12", old.replace("exit 1 ;;", "exit 0 ;;", 1), folder=machine.bin.parent / "elsewhere")
    done = machine.studio("up", STUDIO_PYTHON=str(machine.bin.parent / "elsewhere" / "python3.12"))
    assert (done.returncode, done.stdout) == (0, "chartinsight up\n"), done.stderr


def test_a_python_without_the_venv_module_is_named_with_the_package_that_has_it(machine, refused):
    machine.has_python(venv=1)
    said = refused()
    assert said.startswith("this Python lacks the venv module.")
    assert "sudo apt install python3-venv" in said


def test_too_little_space_is_said_before_anything_is_made(machine, refused):
    machine.has_python()
    machine.has("df", PLENTY.replace("80000", "150"))
    assert refused() == (f"150 MB are free under {machine.checkout}, and 2000 MB are needed. Make room and try again.")
    assert not (machine.checkout / ".venv").exists()


# Last lines of pip and of uv, as they print them without a network.
PIP_OFFLINE = "ERROR: Could not find a version that satisfies the requirement alembic (from versions: none)"
PIP_PROXY = "ProxyError('Cannot connect to proxy.', NewConnectionError('Failed to establish a new connection'))"
UV_OFFLINE = "error: Failed to fetch: client error (Connect): dns error: failed to lookup address information"


@pytest.mark.parametrize("message", [PIP_OFFLINE, PIP_PROXY])
def test_an_installer_without_a_network_is_explained_and_may_be_repeated(machine, refused, message):
    machine.has_python(pip=f'echo "{message}" >&2; exit 1')
    said = refused()
    assert said.startswith("the packages could not be fetched: no network, or a proxy in between (set HTTPS_PROXY).")
    log = machine.checkout / ".venv" / "install.log"
    assert said.endswith(f"Log: {log}")
    assert message in log.read_text()

    machine.has("python", INNER.format(calls=machine.calls, pip=":"), folder=machine.checkout / ".venv" / "bin")
    done = machine.studio("up")
    assert (done.returncode, done.stdout) == (0, "chartinsight up\n")


def test_a_disk_that_fills_up_while_installing_is_explained(machine, refused):
    machine.has_python(pip='echo "ERROR: Could not install packages: [Errno 28] No space left on device"; exit 1')
    assert refused() == "the disk became full while installing. Make room and try again."


def test_an_installer_that_fails_otherwise_is_not_blamed_on_the_network(machine, refused):
    machine.has_python(pip='echo "THESE PACKAGES DO NOT MATCH THE HASHES"; exit 1')
    log = machine.checkout / ".venv" / "install.log"
    assert refused() == f"installing requirements.lock failed; the log is {log}. It is safe to try again."


def test_uv_is_used_where_it_is_and_its_network_error_is_explained(machine, refused):
    machine.has_python()
    machine.has("uv", f'case "$1" in venv) mkdir -p "$5/bin" ;; pip) echo "{UV_OFFLINE}" >&2; exit 2 ;; esac')
    assert refused().startswith("the packages could not be fetched: no network,")


def test_an_environment_of_an_old_python_is_made_anew(machine):
    machine.has_python()
    machine.has("python", 'case "$*" in *"sys.exit"*) exit 1 ;; esac', folder=machine.checkout / ".venv" / "bin")
    done = machine.studio("up")
    assert (done.returncode, done.stdout) == (0, "chartinsight up\n"), done.stderr


def test_an_environment_that_was_moved_is_made_anew(machine):
    machine.has_python()
    (machine.has_environment() / "activate").write_text("VIRTUAL_ENV='/somewhere/else/.venv'\n")
    (machine.checkout / ".venv" / ".studio-requirements.lock").write_text("of another place")
    done = machine.studio("up")
    assert (done.returncode, done.stdout) == (0, "chartinsight up\n"), done.stderr
    assert "making the environment" in done.stderr


# --- the first time, and later --------------------------------------------------------------------


def test_the_first_start_installs_the_hashed_lock_then_the_package_and_later_ones_nothing(machine):
    machine.has_python()
    assert machine.studio("up").stdout == "chartinsight up\n"
    lock, package = machine.calls.read_text().splitlines()
    assert lock.endswith(f"--require-hashes --no-deps -r {machine.checkout}/requirements.lock")
    assert package.endswith(f"--no-deps --no-build-isolation -e {machine.checkout}")

    again = machine.studio("up")
    assert (again.returncode, again.stdout, again.stderr) == (0, "chartinsight up\n", "")
    assert len(machine.calls.read_text().splitlines()) == 2


def test_a_changed_lock_is_installed_again(machine):
    machine.has_python()
    machine.studio("up")
    with (machine.checkout / "requirements.lock").open("a") as lock:
        lock.write("# newer\n")
    machine.studio("up")
    assert len(machine.calls.read_text().splitlines()) == 4


def test_arguments_folder_and_exit_code_are_the_programs_own(machine, tmp_path):
    venv_bin = machine.has_environment()
    machine.has("chartinsight", 'for word; do echo "<$word>"; done; pwd; exit 7', folder=venv_bin)
    (tmp_path / "elsewhere").mkdir()
    words = ["up", "--source", "files:a b.csv", "--map", "close=종가", "", "*", "$HOME"]
    done = machine.studio(*words, cwd=tmp_path / "elsewhere")
    assert done.returncode == 7
    assert done.stdout.splitlines() == [*(f"<{word}>" for word in words), str(tmp_path / "elsewhere")]
    assert done.stderr == ""


def test_another_pythons_settings_do_not_reach_the_program(machine):
    venv_bin = machine.has_environment()
    machine.has("chartinsight", 'echo "<${PYTHONPATH-unset}><${PYTHONHOME-unset}>"', folder=venv_bin)
    assert machine.studio("up", PYTHONPATH="/opt/spark", PYTHONHOME="/opt/old").stdout == "<unset><unset>\n"


# --- ./studio test --------------------------------------------------------------------------------


def test_test_runs_lint_types_and_tests_in_this_order(machine):
    venv_bin = machine.has_environment("requirements-test.lock")
    for tool in ("ruff", "mypy", "pytest"):
        machine.has(tool, f'echo "{tool} $*"', folder=venv_bin)
    machine.has("chromium", ":")
    done = machine.studio("test", "-k", "one or two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "ruff check .", "ruff format --check --quiet .", "mypy ",
        "pytest -n 2 --dist loadfile --no-loadscope-reorder -k one or two",
    ]  # fmt: skip
    assert done.stderr.splitlines()[-1] == "all green. Next: ./studio up opens the radar."


@pytest.mark.parametrize("broken", ["ruff", "mypy", "pytest"])
def test_test_is_not_green_when_one_of_them_is_not(machine, broken):
    venv_bin = machine.has_environment("requirements-test.lock")
    for tool in ("ruff", "mypy", "pytest"):
        machine.has(tool, f"exit {3 if tool == broken else 0}", folder=venv_bin)
    machine.has("chromium", ":")
    done = machine.studio("test")
    assert done.returncode == 3
    assert "all green" not in done.stderr
