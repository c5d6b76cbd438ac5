"""Pack any machine charm directory into a `.charm` file, without charmcraft and without snaps.

`pack(charm_dir, out)` reads `charmcraft.yaml` (and `metadata.yaml`, `config.yaml`, `actions.yaml`
where they stand beside it) and writes the same layout charmcraft writes: the split YAML files,
`manifest.yaml`, `dispatch`, `src/`, `lib/` and `venv/` with the pinned requirements. The result
is reproducible: the same input gives the same bytes. Installed requirements are kept in a cache
under the labs' root, by content hash, so a second pack costs a fraction of a second.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

import yaml

FORMAT = "4"  # raise it when the layout written changes, so that old cache entries are not used
INSTALL_TIMEOUT = 300  # seconds for pip to install a charm's requirements
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # one fixed time: the same input must give the same bytes

METADATA_KEYS = (
    "name", "summary", "description", "assumes", "charm-user", "containers", "devices",
    "extra-bindings", "peers", "provides", "requires", "resources", "storage", "subordinate",
    "terms",
)  # fmt: skip
BUILD_KEYS = (
    "type", "title", "links", "base", "build-base", "platforms", "parts", "charmhub",
    "charm-libs", "analysis", "config", "actions",
)  # fmt: skip
LINK_KEYS = {
    "contact": "maintainers",
    "documentation": "docs",
    "issues": "issues",
    "source": "source",
    "website": "website",
}
REQUIREMENT_KEYS = ("charm-requirements", "python-requirements")
REQUIREMENT_FILES = ("requirements/charm.txt", "requirements.txt")
COPIED_DIRS = ("src", "lib")
COPIED_FILES = ("LICENSE", "README.md", "icon.svg", "version")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

DISPATCH = """\
#!/bin/sh
# Start the charm with the packed venv. The interpreter is the machine's own, linked in on the
# first event, because a packed interpreter would only run on the release it was built on.
here="$(dirname "$(readlink -f "$0")")"
cd "$here" || exit 1
if ! [ -x venv/bin/python ]; then
    python3="$(command -v python3)" || { echo "dispatch: no python3 on this machine" >&2; exit 1; }
    mkdir -p venv/bin && ln -sf "$python3" venv/bin/python || exit 1
fi
export PYTHONPATH=lib:src
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$here/lib"
exec venv/bin/python src/charm.py
"""


class PackError(Exception):
    """The charm directory cannot be packed; the message says what, where and what to do."""


@dataclass(frozen=True)
class Entry:
    """One file of the archive: its name there, its bytes, its permission bits."""

    name: str
    data: bytes
    mode: int = 0o644


def pack(charm_dir: Path | str, out: Path | str, requirements: Path | None = None) -> Path:
    """Pack the charm in `charm_dir` and return the path of the `.charm` file.

    `out` is a directory (the file is then called `<name>_<arch>.charm`) or a path ending in
    `.charm`. `requirements` names a requirements file with hashes; without it, the one the
    charm's parts name (`charm-requirements`, `python-requirements`) is used, else
    `requirements/charm.txt` or `requirements.txt` in the charm's directory, else none.

    Raises PackError if the charm's files are inconsistent or its requirements do not install.
    """
    source = Path(charm_dir).resolve()
    meta = _load(source / "charmcraft.yaml")
    if meta is None:
        raise PackError(f"{source} has no charmcraft.yaml: give the directory of a charm")
    entries = {entry.name: entry for entry in _own_files(source, meta)}
    entries.update((entry.name, entry) for entry in _metadata_files(source, meta))
    if "dispatch" not in entries:
        entries["dispatch"] = Entry("dispatch", DISPATCH.encode(), 0o755)
    target = Path(out)
    if target.suffix != ".charm":
        target = target / f"{meta['name']}_{_architecture()}.charm"
    target.parent.mkdir(parents=True, exist_ok=True)
    wanted = requirements or _requirements_file(source, meta)
    _write(target, list(entries.values()), wanted)
    return target


# --- YAML files -----------------------------------------------------------------------------


def metadata_files(charm_dir: Path | str) -> dict[str, str]:
    """Return the text of the YAML files Juju reads, by file name, made from a source directory.

    Raises PackError if a section stands in two files or is not known.
    """
    source = Path(charm_dir).resolve()
    meta = _load(source / "charmcraft.yaml") or {}
    return {entry.name: entry.data.decode() for entry in _metadata_files(source, meta)}


def _load(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise PackError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise PackError(f"{path} must hold a mapping")
    return content


def _dump(name: str, content: Mapping[str, Any]) -> Entry:
    return Entry(name, yaml.safe_dump(dict(content), sort_keys=False).encode())


def _metadata_files(source: Path, meta: Mapping[str, Any]) -> Iterator[Entry]:
    metadata = _metadata(source, meta)
    yield _dump("metadata.yaml", metadata)
    for name in ("config", "actions"):
        beside = _load(source / f"{name}.yaml")
        inside = meta.get(name)
        if beside is not None and inside is not None:
            raise PackError(
                f"{source}: '{name}' stands in charmcraft.yaml and in {name}.yaml; keep one"
            )
        content = beside if beside is not None else inside
        if content is not None:
            yield _dump(f"{name}.yaml", content)
    yield _dump("manifest.yaml", _manifest(source, meta))


def _metadata(source: Path, meta: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(meta) - set(METADATA_KEYS) - set(BUILD_KEYS))
    if unknown:
        raise PackError(f"{source}/charmcraft.yaml: unknown section(s) {', '.join(unknown)}")
    if meta.get("type") != "charm":
        raise PackError(f"{source}/charmcraft.yaml: 'type' must be 'charm'")
    metadata = {key: meta[key] for key in METADATA_KEYS if key in meta}
    if "title" in meta:
        metadata["display-name"] = meta["title"]
    for key, value in (meta.get("links") or {}).items():
        if key not in LINK_KEYS:
            raise PackError(f"{source}/charmcraft.yaml: unknown link '{key}'")
        metadata[LINK_KEYS[key]] = (
            [value] if key == "contact" and isinstance(value, str) else value
        )
    for key, value in (_load(source / "metadata.yaml") or {}).items():
        if key in metadata:
            raise PackError(
                f"{source}: '{key}' stands in charmcraft.yaml and in metadata.yaml; keep one"
            )
        metadata[key] = value
    missing = [key for key in ("name", "summary", "description") if key not in metadata]
    if missing:
        raise PackError(f"{source}/charmcraft.yaml lacks {', '.join(missing)}")
    return metadata


def _manifest(source: Path, meta: Mapping[str, Any]) -> dict[str, Any]:
    base = str(meta.get("base", ""))
    if not base:
        names = [key for key in (meta.get("platforms") or {}) if "@" in str(key)]
        base = str(names[0]).rpartition(":")[0] or str(names[0]) if names else ""
    name, at, channel = base.partition("@")
    if not at:
        raise PackError(f"{source}/charmcraft.yaml: 'base' must be like ubuntu@24.04")
    return {
        "bases": [{"name": name, "channel": channel, "architectures": [_architecture()]}],
        "analysis": {
            "attributes": [
                {"name": "language", "result": "python"},
                {"name": "framework", "result": "operator"},
            ]
        },
    }


def _architecture() -> str:
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


# --- the charm's own files ------------------------------------------------------------------


def _own_files(source: Path, meta: Mapping[str, Any]) -> Iterator[Entry]:
    if not (source / "src" / "charm.py").is_file() and not (source / "dispatch").is_file():
        raise PackError(f"{source} has neither src/charm.py nor dispatch: nothing to start")
    dispatch = source / "dispatch"
    if dispatch.is_file():
        if not os.access(dispatch, os.X_OK):
            raise PackError(f"{dispatch} is not executable: chmod 755 it")
        yield Entry("dispatch", dispatch.read_bytes(), 0o755)
    for name in COPIED_FILES:
        if (source / name).is_file():
            yield Entry(name, (source / name).read_bytes())
    for name in (*COPIED_DIRS, "hooks", "actions", *_primed(source, meta)):
        if (source / name).is_file():
            yield Entry(name, (source / name).read_bytes(), _mode(source / name))
        elif (source / name).is_dir():
            yield from _tree(source / name, name)


def _primed(source: Path, meta: Mapping[str, Any]) -> Iterator[str]:
    """Yield the extra files that the charm's parts name under `prime`."""
    for part in (meta.get("parts") or {}).values():
        for pattern in part.get("prime", []):
            if pattern.startswith("-"):
                raise PackError(f"{source}/charmcraft.yaml: prime: exclusion '{pattern}'")
            found = sorted(source.glob(pattern))
            if not found:
                raise PackError(f"{source}/charmcraft.yaml: prime: no file '{pattern}'")
            yield from (str(path.relative_to(source)) for path in found)


def _mode(path: Path) -> int:
    return 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644


def _tree(top: Path, prefix: str) -> Iterator[Entry]:
    """Yield the files below `top`, without compiled Python."""
    for path in sorted(top.rglob("*")):
        if path.is_symlink() and path.is_dir():
            raise PackError(f"{path} links to a directory: copy it instead")
        if "__pycache__" in path.parts or path.suffix == ".pyc" or not path.is_file():
            continue
        name = f"{prefix}/{path.relative_to(top)}"
        yield Entry(name, path.read_bytes(), _mode(path))


# --- the archive ----------------------------------------------------------------------------


def _write(target: Path, entries: list[Entry], requirements: Path | None) -> None:
    key = hashlib.sha256(f"{FORMAT} {platform.machine()} {sys.version}".encode())
    for entry in sorted(entries, key=lambda e: e.name):
        key.update(f"{entry.name}\0{entry.mode:o}\0{len(entry.data)}\0".encode())
        key.update(entry.data)
    key.update(requirements.read_bytes() if requirements else b"")
    cached = cache_dir() / f"{key.hexdigest()[:32]}.charm"
    if not cached.exists():
        with _scratch() as scratch:
            building = Path(scratch) / "new.charm"
            shutil.copyfile(_venv(requirements), building)
            with zipfile.ZipFile(building, "a") as archive:
                for entry in [*entries, *_compiled(entries)]:
                    _add(archive, entry)
            building.replace(cached)
    copy = target.with_name(target.name + ".new")
    shutil.copyfile(cached, copy)
    copy.replace(target)


def _add(archive: zipfile.ZipFile, entry: Entry) -> None:
    info = zipfile.ZipInfo(entry.name, ZIP_TIME)
    info.create_system = 3  # Unix, or the permission bits below are not read
    info.external_attr = (stat.S_IFREG | entry.mode) << 16
    archive.writestr(info, entry.data, zipfile.ZIP_DEFLATED, compresslevel=4)


def _compiled(entries: list[Entry]) -> Iterator[Entry]:
    """Yield the compiled form of the charm's own Python files.

    They are checked against the source's hash when imported: someone who edits a file on a
    unit must see the edit take effect.
    """
    python = [e for e in entries if e.name.endswith(".py") and e.name.split("/")[0] in COPIED_DIRS]
    with _scratch() as scratch:
        top = Path(scratch)
        for entry in python:
            (top / entry.name).parent.mkdir(parents=True, exist_ok=True)
            (top / entry.name).write_bytes(entry.data)
        yield from _compile(top, PycInvalidationMode.CHECKED_HASH)


def _compile(top: Path, mode: PycInvalidationMode) -> Iterator[Entry]:
    compileall.compile_dir(top, quiet=2, maxlevels=20, stripdir=str(top), invalidation_mode=mode)
    for path in sorted(top.rglob("*.pyc")):
        yield Entry(str(path.relative_to(top)), path.read_bytes())


# --- the requirements -----------------------------------------------------------------------


def cache_dir() -> Path:
    """Return the directory, shared by all labs of this host, that keeps what packing made."""
    root = Path(os.environ.get("LAB_ROOT", "/srv/charm-lab")) / ".cache" / "pack"
    root.mkdir(parents=True, exist_ok=True)
    return root


def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=cache_dir(), prefix="new-")


def _requirements_file(source: Path, meta: Mapping[str, Any]) -> Path | None:
    named: list[str] = []
    for part in (meta.get("parts") or {}).values():
        for key in REQUIREMENT_KEYS:
            named.extend(part.get(key, []))
    if len(named) > 1:
        raise PackError(f"{source}/charmcraft.yaml: name one requirements file, not {named}")
    if named:
        path = (source / named[0]).resolve()
        if not path.is_file():
            raise PackError(f"{source}/charmcraft.yaml: requirements file {path} is missing")
        return path
    candidates = [source / name for name in REQUIREMENT_FILES]
    return next((path for path in candidates if path.is_file()), None)


def _venv(requirements: Path | None) -> Path:
    """Return an archive, kept in the cache, with the charm's venv and nothing else.

    It is kept compressed because the venv is nearly all of a charm and seldom changes.
    """
    identity = f"{FORMAT} {platform.machine()} {sys.version}\n".encode()
    pins = requirements.read_bytes() if requirements else b""
    final = cache_dir() / f"venv-{hashlib.sha256(identity + pins).hexdigest()[:32]}.zip"
    if not final.exists():
        with _scratch() as scratch:
            building = Path(scratch) / "venv.zip"
            with zipfile.ZipFile(building, "w") as archive:
                for entry in _venv_files(requirements, Path(scratch) / "site-packages"):
                    _add(archive, entry)
            building.replace(final)
    return final


def _venv_files(requirements: Path | None, scratch: Path) -> Iterator[Entry]:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    marker = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n"
    yield Entry("venv/pyvenv.cfg", marker.encode())
    if requirements is None:
        return
    _pip(requirements, scratch)
    shutil.rmtree(scratch / "bin", ignore_errors=True)  # console scripts name our interpreter
    for _ in _compile(scratch, PycInvalidationMode.UNCHECKED_HASH):
        pass
    for path in sorted(scratch.rglob("*")):
        if path.is_file():
            name = f"venv/lib/python{version}/site-packages/{path.relative_to(scratch)}"
            yield Entry(name, path.read_bytes(), _mode(path))


def _pip(requirements: Path, top: Path) -> None:
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    argv += ["--no-compile", "--only-binary=:all:", "--disable-pip-version-check"]
    argv += ["--target", str(top), "--requirement", str(requirements)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise PackError(
            f"installing {requirements} took more than {INSTALL_TIMEOUT} s: is the package index "
            "reachable?"
        ) from error
    if done.returncode != 0:
        raise PackError(f"pip cannot install {requirements}:\n{done.stderr.strip()}")


def main(argv: list[str]) -> int:
    """Pack the directory named first into the place named second; print the file's path."""
    if not 1 <= len(argv) <= 2 or argv[0].startswith("-"):
        print("usage: python -m lab.pack CHARM_DIR [DIRECTORY|FILE.charm]", file=sys.stderr)
        return 2
    try:
        print(pack(argv[0], argv[1] if len(argv) > 1 else "."))
    except PackError as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
