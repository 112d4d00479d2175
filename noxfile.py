"""The jobs of the project. `nox -s demo` shows the SDK at work, `nox -s tests` proves it; `nox -l` lists the rest."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv" if shutil.which("uv") else "virtualenv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

_WORKERS = ("-n", "3", "--dist", "worksteal")
"""Three processes on two cores: many a test waits for a process or a clock."""

_DEV = {"PYTHONDEVMODE": "1"}
"""What `-X dev` does, for the processes of the suite too."""

CODE = ("nex_async", "tests", "benchmarks", "examples", ".ci", "noxfile.py")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the main job against the embedded Nex, with real companies."""
    session.install("-e", ".[demo]")
    session.run("nex-async", "demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite. Arguments after `--` go to pytest."""
    session.install("-e", ".[dev,demo]")
    session.run("python", "-m", "pytest", *_WORKERS, *session.posargs)


@nox.session
def debug(session: nox.Session) -> None:
    """Run the test suite with asyncio's debug mode and Python's development mode."""
    session.install("-e", ".[dev,demo]")
    session.run("python", "-m", "pytest", *_WORKERS, *session.posargs, env={**_DEV, "PYTHONASYNCIODEBUG": "1"})


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the test suite and report which lines and branches it reaches, in the processes it starts too."""
    session.install("-e", ".[dev,demo]")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *_WORKERS, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--skip-covered")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format, and that each row of the catalogue of faults has a test or a limit."""
    session.install("ruff >= 0.8")
    session.run("ruff", "check", *CODE)
    session.run("ruff", "format", "--check", *CODE)
    session.run("python", ".ci/check_faults.py", "-q")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy and pyright, the public surface included."""
    session.install(".[dev,demo]")
    session.run("mypy")
    session.run("pyright")
    session.chdir(session.create_tmp())  # what is checked is the package as it is installed
    session.run("pyright", "--verifytypes", "nex_async", "--ignoreexternal")


@nox.session
def package(session: nox.Session) -> None:
    """Build the distributions, look at them, and run the demo from the wheel in an environment that holds nothing else."""
    session.install("build", "twine")
    place = Path(session.create_tmp()).resolve()
    made, empty = place / "dist", place / "empty"
    shutil.rmtree(made, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(made))
    (wheel,), (source,) = made.glob("*.whl"), made.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(source))
    session.run("python", "-m", "venv", "--clear", str(empty))
    binaries = empty / ("Scripts" if os.name == "nt" else "bin")
    session.run(str(binaries / "python"), "-m", "pip", "install", "--quiet", f"{wheel}[demo]", external=True)
    with session.chdir(place):  # away from the sources
        session.run(str(binaries / "nex-async"), "demo", "--companies", "50", external=True)


@nox.session
def api(session: nox.Session) -> None:
    """Compare the public surface with that of the last tag: what breaks must be in the changelog. `-- TAG` names another."""
    session.install("griffe >= 1.5")
    tags = session.posargs or (session.run("git", "tag", "--sort=-creatordate", silent=True, external=True) or "").split()
    if not tags:
        session.log("there is no tag yet, and so nothing to compare with")
        return
    session.run("griffe", "check", "nex_async", "--against", tags[0])


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into build/site; a warning fails it, and so does a page that would fetch from another host."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", "--config-file", ".ci/mkdocs.yml", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks beside what a user would pick instead: ratios taken in one run. `-- --full` wanders less."""
    session.install("-e", ".[bench]")
    session.run("python", "-m", "benchmarks", *(session.posargs or ("--plot", "bench.png")))


@nox.session
def gate(session: nox.Session) -> None:
    """Fail when one of four hot paths became 15 % dearer than it was. `-- --update` stores what they cost now."""
    session.install("-e", ".", "psutil")
    session.run("python", "-m", "benchmarks.gate", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Prove the insight feed over 10 000 schedules and 100 days of virtual time, and that the proof has teeth.

    `-- --schedules 2000 --days 10` chooses other numbers. The time is virtual; `soak_real` takes a real hour.
    """
    session.install("-e", ".[dev]")
    numbers = session.posargs or ("--schedules", "10000", "--days", "100", "--regimes")
    session.run("python", "-m", "tests.simulation.soak", "--jobs", "2", *numbers)
    session.run("python", "-m", "tests.simulation.mutants")
    session.run("python", "-m", "tests.exact.soak")


@nox.session
def soak_real(session: nox.Session) -> None:
    """Prove listener, bulk writer and callers at once: one real hour on loopback, through a proxy that injects faults.

    `-- --minutes 5 --seed 7 --json figures.json` chooses other numbers. Fails when something was lost, doubled or leaked.
    """
    session.install("-e", ".[dev]")
    session.run("python", "-m", "tests.soak.real", *(session.posargs or ("--minutes", "60")))


@nox.session
def kills(session: nox.Session) -> None:
    """Prove the bulk writers: `kill -9` at 200 instants and at every named point, over 100 000 rows."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "tests.bulk.soak", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Throw many more requests at every operation of the emulator than the test suite does. `-- 2000` sets how many each."""
    session.install("-e", ".[dev]")
    examples = session.posargs[0] if session.posargs else "500"
    session.run("python", "-m", "pytest", "tests/emulator/test_fuzz.py", env={"NEX_ASYNC_FUZZ_EXAMPLES": examples})


@nox.session
def hostile(session: nox.Session) -> None:
    """Decode a million spoilt replies, and fifty thousand ids in paths. `-- --replies 10000` chooses other numbers."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "tests.faults.hostile", *session.posargs)


@nox.session
def console(session: nox.Session) -> None:
    """Test the emulator's console in a headless Chromium: that of `NEX_ASYNC_CHROMIUM` or the first on the path."""
    session.install("-e", ".[dev]", "playwright >= 1.44")
    session.run("python", "-m", "pytest", "tests/console", *session.posargs)


@nox.session
def sinks(session: nox.Session) -> None:
    """Test the sinks of insights against a Redis and a NATS that are killed, and so are their services.

    The rate budget in Redis is tested along.
    `-- -s` shows the numbers; `NEX_ASYNC_KILLS=100` kills more often.
    """
    search = f"{os.environ.get('PATH', '')}:/usr/sbin"
    missing = [program for program in ("redis-server", "nats-server") if shutil.which(program, path=search) is None]
    if missing:
        session.error(f"no {' and no '.join(missing)} on the path (Debian: apt-get install redis-server nats-server)")
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", "-n", "2", "--dist", "worksteal", "tests/sinks", *session.posargs)


@nox.session
def scale(session: nox.Session) -> None:
    """Test the integration with Ray on a real cluster of this machine, with 20 workers killed; and measure it.

    `-- -s -k budget` takes a part and shows its figures.
    """
    session.install("-e", ".[dev,ray]", "ray[default]")  # with its dashboard, whose state is looked at
    more = session.posargs or ("--durations=10",)
    session.run("python", "-m", "pytest", "tests/scale", "--show-capture=no", *more)
    page = ("tests/docs/test_guides.py", "-k", "page_on_ray", "-W", "default", "--timeout", "300")
    session.run("python", "-m", "pytest", "--show-capture=no", *page)
    if not session.posargs:
        session.run("python", "examples/ray_sync.py", "--local", "2000")
        session.run("python", "-m", "benchmarks.ray_cluster")


@nox.session
def dlt(session: nox.Session) -> None:
    """Test the source of dlt against a real DuckDB, its page, and the example as it is written."""
    session.install("-e", ".[dev,demo,dlt]", "dlt[duckdb]")
    session.run("python", "-m", "pytest", "tests/integrations/test_dlt.py", "tests/docs", "-k", "dlt", *session.posargs)
    place = Path(session.create_tmp()).resolve()
    for name in ("nex.sqlite", "crm.duckdb"):
        (place / name).unlink(missing_ok=True)
    shutil.rmtree(place / "dlt", ignore_errors=True)
    example = Path("examples/dlt_to_duckdb.py").resolve()
    with session.chdir(place):
        for _ in range(2):  # the second run goes on from the first
            session.run("python", "-W", "error", str(example))


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def matrix(session: nox.Session) -> None:
    """Run the suite in development mode on asyncio and on uvloop, each time in a random order. Arguments: pytest.

    The order is told at the head of each run, and can be had again with `-p randomly --randomly-seed=...`.
    `nox -s matrix-3.12` takes one version; a version that is not installed is passed over.
    """
    session.install("-e", ".[dev,demo]", "pytest-randomly >= 3.15")
    for loop in ("asyncio", "uvloop"):
        run = ("python", "-m", "pytest", *_WORKERS, *session.posargs)
        session.run(*run, env={**_DEV, "NEX_ASYNC_LOOP": loop})


@nox.session
def audit(session: nox.Session) -> None:
    """Ask the advisory database about what the package needs, in the newest versions and in the lowest it allows."""
    session.install("pip-audit >= 2.7")
    needs = _needs("cli", "demo", "dlt", "nats", "otel", "parquet", "redis", "speed", "zstd")
    place = Path(session.create_tmp())
    for name, lines in (("newest", needs), ("lowest", [_lowest(need) for need in needs])):
        listed = place / f"{name}.txt"
        listed.write_text("\n".join(lines) + "\n")
        report = place / f"{name}.json"
        report.unlink(missing_ok=True)
        more = ("--no-deps", "--disable-pip") if name == "lowest" else ()
        command = ("pip-audit", "-r", str(listed), *more, "--progress-spinner", "off", "-f", "json", "-o", str(report))
        session.run(*command, success_codes=[0, 1])
        if not report.exists():
            session.error(f"{name}: the advisory database cannot be reached, or pip-audit failed: nothing was audited")
        found = json.loads(report.read_text())["dependencies"]
        passed_over = [each["name"] for each in found if "skip_reason" in each]
        if not found or len(passed_over) == len(found):
            session.error(f"{name}: the advisory database cannot be reached, or knows none of them: nothing was audited")
        if passed_over:
            session.warn(f"{name}: not audited, for the database does not know them: {', '.join(passed_over)}")
        if bad := [each["name"] for each in found if each.get("vulns")]:
            session.error(f"{name}: advisories against {', '.join(bad)}")
        session.log(f"{name}: no advisory against {len(found) - len(passed_over)} packages")


@nox.session
def floors(session: nox.Session) -> None:
    """Run the tests of the core with the lowest version of each dependency that `pyproject.toml` allows, extras too.

    Without the sink for NATS: not every index has versions as old.
    """
    extras = ("cli", "demo", "otel", "parquet", "redis", "speed", "testing", "zstd")
    tools = (
        "hypothesis",
        "psutil",
        "pytest-asyncio >= 1.0",
        "pytest-timeout >= 2.3",
        "trustme >= 1.1",
    )
    session.install("-e", ".", *(_lowest(need) for need in _needs(*extras)), *tools)
    default = (
        "tests/test_config.py",
        "tests/test_models.py",
        "tests/test_paging.py",
        "tests/test_client.py",
        "tests/test_retry.py",
        "tests/faults",
    )
    session.run("python", "-m", "pytest", *(session.posargs or default))


@nox.session
def mutation(session: nox.Session) -> None:
    """Change the pure cores in every small way, and count the changes that their tests notice: 85 % in each file at least.

    `-- --sample 40` draws some; `-- nex_async/feeds/sse.py` takes one file.
    """
    session.install("-e", ".[dev]")
    session.run("python", "-m", "tests.mutation.run", *session.posargs)


def _needs(*extras: str) -> list[str]:
    """Return what the package depends on, with these of its extras."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    found = [*project["dependencies"], *(need for extra in extras for need in project["optional-dependencies"][extra])]
    return list(dict.fromkeys(found))


def _lowest(need: str) -> str:
    """Return a requirement with its lower bound pinned: `aiohttp >= 3.14` becomes `aiohttp == 3.14`."""
    return need.replace(">=", "==", 1)
