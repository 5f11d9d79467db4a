"""Install what the project needs, from nothing but python3 and pip. Standard library only.

`bootstrap.py tests` adds what only tests need, if apt and npm work: Chromium, Uppy and more.
`bootstrap.py check` adds checkov, in an environment of its own: it pins a hundred packages.

uv (from PATH, or from the package registry into .local/uv) makes two environments from uv.lock:
.venv for us and .local/ministack for the AWS emulator, which pins its own botocore.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = Path(".venv")
EMULATOR = Path(".local/ministack")
CHECKOV = Path(".local/checkov")
# What makes clients of openapi.json for tests: of Python, and of TypeScript.
CLIENTS = Path(".local/clients")
CLIENTS_NPM = Path(".local/clients-npm")
_STAMP = ".installed"
# What tests take from npm: package, version, the archive's digest, its file, and where it goes.
NPM = (
    (
        "uppy",
        "5.2.4",  # an uploader that front ends use
        (
            "d5bb6000651bed3bbb1b29a9980f5793219c5c148cf77775140dfa27aa58e25a"
            "fa6b48cc5dfbc5520eba0db9e6fd76aaeac16f9bc2b048f245e3a77c360d04f1"
        ),
        "package/dist/uppy.min.mjs",
        Path(".local/uppy/uppy.min.mjs"),
    ),
    (
        "axe-core",
        "4.14.1",  # faults that people meet who do not see a page, or use no mouse
        (
            "1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b73"
            "4f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5"
        ),
        "package/axe.min.js",
        Path(".local/axe/axe.min.js"),
    ),
)


def main() -> None:
    """Bring both environments up to date; quick when they are."""
    install("the project's Python packages", OURS, "--group", "dev")
    install("the AWS emulator", EMULATOR, "--only-group", "emulator")


def install_for_checks() -> None:
    """Bring checkov's environment up to date."""
    install("checkov", CHECKOV, "--only-group", "checkov")


def install(what: str, home: Path, *groups: str) -> None:
    """Make an environment of dependency groups, unless a current and working one exists."""
    path = (ROOT / home).resolve()
    stamp = path / _STAMP
    starts = works(path)
    if current(path) and starts:
        return
    _, place = _installed(path)
    if path.exists() and not (starts and place in ("", str(path))):
        # uv would keep the installed programs, which point to the old path or the old Python.
        shutil.rmtree(path)
    stamp.unlink(missing_ok=True)
    step(what, [*sync(), *groups], UV_PROJECT_ENVIRONMENT=str(home))
    stamp.write_text(f"{wanted()}\n{path}")


def current(path: Path) -> bool:
    """Return whether an environment was made here, from the present uv.lock."""
    return _installed(path) == (wanted(), str(path.resolve()))


def _installed(path: Path) -> tuple[str, str]:
    """Return the digest of what is installed in an environment, and where it was made."""
    stamp = path / _STAMP
    digest, _, place = stamp.read_text().partition("\n") if stamp.exists() else ("", "", "")
    return digest, place


def works(path: Path) -> bool:
    """Return whether an environment's Python starts: the one it was made from may be gone."""
    try:
        done = subprocess.run([path / "bin/python", "-c", ""], check=False, capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def wanted() -> str:
    """Return the digest of the files that decide which packages are installed."""
    digest = hashlib.sha256()
    for name in ("uv.lock", "pyproject.toml", ".python-version"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def sync() -> list[str]:
    """Return the beginning of every installation."""
    return [find_uv(), "sync", "--quiet", "--frozen", *python_option()]


def install_for_tests() -> None:
    """Install Debian's programs; without root or apt, tests that need them skip and say why."""
    if not any(map(shutil.which, ("chromium", "chromium-browser"))):
        install_package("chromium", "Chromium for the browser tests")
    for wanted_file in NPM:
        install_from_npm(*wanted_file)
    install("openapi-python-client for tests", CLIENTS, "--only-group", "clients")
    install_npm_project(ROOT / "tests/e2e/clients", ROOT / CLIENTS_NPM)
    if not shutil.which("faketime"):
        install_package("faketime", "faketime for make test-later")
    if not shutil.which("ffprobe"):
        install_package("ffmpeg", "ffmpeg for the tests of video and audio")
    if not shutil.which("spamassassin"):
        install_package("spamassassin", "SpamAssassin for the tests of mail")
    if not shutil.which("memcached"):
        install_package("memcached", "Memcached for the tests of the cache")
        if systemctl := shutil.which("systemctl"):  # the package starts a server
            stop = [systemctl, "disable", "--quiet", "--now", "memcached"]
            subprocess.run(stop, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        install_package("pgbouncer", "pgbouncer for the tests behind a pooler")
        if systemctl := shutil.which("systemctl"):  # as above
            stop = [systemctl, "disable", "--quiet", "--now", "pgbouncer"]
            subprocess.run(stop, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def install_from_npm(package: str, version: str, sha512: str, member: str, file: Path) -> None:
    """Download one file of a package by version and digest; without npm do nothing."""
    npm = shutil.which("npm")
    if not npm or (ROOT / file).exists():
        return
    print(f"  · installing {package} for the tests in a browser", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pack = [npm, "pack", "--silent", "--pack-destination", folder, f"{package}@{version}"]
        subprocess.run(pack, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        archive = Path(folder) / f"{package}-{version}.tgz"
        if not archive.exists():
            return
        if hashlib.sha512(archive.read_bytes()).hexdigest() != sha512:
            print(f"  ✗ {package} {version} has another digest; it is not used", flush=True)
            return
        (ROOT / file).parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as opened:
            if found := opened.extractfile(member):
                (ROOT / file).write_bytes(found.read())


def install_npm_project(source: Path, home: Path) -> None:
    """Install what a package-lock.json names, by digest; without npm do nothing."""
    npm, lock = shutil.which("npm"), source / "package-lock.json"
    if not npm or not lock.exists():
        return
    stamp, digest = home / ".installed", hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    print("  · installing generators of TypeScript clients for tests", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(source / file, home)
    command = [npm, "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
    if subprocess.run(command, cwd=home, check=False, stdout=subprocess.DEVNULL).returncode:
        print("  ✗ they could not be installed; the tests that need them skip", flush=True)
        return
    stamp.write_text(digest)


def install_package(package: str, what: str) -> None:
    """Install a Debian package; without root or apt do nothing."""
    apt = shutil.which("apt-get")
    if not apt or os.geteuid():
        return
    print(f"  · installing {what}", flush=True)
    for words in (["update", "-qq"], ["install", "-y", "-qq", package]):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([apt, *words], check=False, env=environment, stdout=subprocess.DEVNULL)


def find_uv() -> str:
    """Return a uv program, installing one below .local when there is none."""
    if found := shutil.which("uv"):
        return found
    home = ROOT / ".local/uv"
    program = home / "bin/uv"
    if not program.exists():
        # --target leaves the system's Python alone and needs no venv module (Debian splits it off).
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        # Pinned by hash: it installs everything else.
        pinned = ["--require-hashes", "--only-binary", ":all:", "-r", str(ROOT / "local/uv.txt")]
        step("uv", [*pip, "install", "--quiet", "--target", str(home), *pinned])
    return str(program)


def python_option() -> list[str]:
    """Name pyenv's Python 3.13 when PATH has none: uv does not look there."""
    if shutil.which("python3.13"):
        return []
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(versions.glob("3.13*/bin/python3.13"))
    return ["--python", str(found[-1])] if found else []


def step(what: str, command: list[str], **variables: str) -> None:
    """Run a command and print how long it took; its output is printed when it fails."""
    print(f"  · installing {what}", flush=True)
    began = time.monotonic()
    environment = {**os.environ, **variables}
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        if "python-build-standalone" in done.stdout or "No interpreter found" in done.stdout:
            sys.exit("kyora: Python 3.13 is not on this machine; install it and run make again")
        sys.exit(f"{done.stdout}\nkyora: installing {what} failed; its output is above")
    print(f"  ✓ {what:<64} {time.monotonic() - began:5.1f} s", flush=True)


if __name__ == "__main__":
    main()
    if sys.argv[1:] == ["tests"]:
        install_for_tests()
    if sys.argv[1:] == ["check"]:
        install_for_checks()
