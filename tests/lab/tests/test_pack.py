"""The packer: layout, modes, errors, reproducibility, and the program that starts the charm."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from lab.pack import PackError, metadata_files, pack

META = """\
type: charm
name: small
title: A small one
summary: Nothing.
description: Nothing at all.
base: ubuntu@24.04
platforms: {amd64: }
links: {source: "https://example.com/small", documentation: "https://example.com/docs"}
peers: {cluster: {interface: small-peers}}
config: {options: {word: {type: string}}}
"""
CODE = "import helper\nimport os\n\nprint(helper.WORD, os.environ['JUJU_DISPATCH_PATH'])\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_ROOT", str(tmp_path / "labs"))
    top = tmp_path / "small"
    (top / "src").mkdir(parents=True)
    (top / "src" / "charm.py").write_text(CODE)
    (top / "src" / "charm.py").chmod(0o755)
    (top / "lib").mkdir()
    (top / "lib" / "helper.py").write_text("WORD = 'found'\n")
    (top / "charmcraft.yaml").write_text(META)
    (top / "actions.yaml").write_text("go: {description: Go.}\n")
    return top


def unzip(charm: Path, out: Path) -> Path:
    with zipfile.ZipFile(charm) as archive:
        for info in archive.infolist():
            path = Path(archive.extract(info, out))
            path.chmod((info.external_attr >> 16) & 0o777)
    return out


def test_layout(source: Path, tmp_path: Path) -> None:
    out = unzip(pack(source, tmp_path), tmp_path / "out")
    meta = yaml.safe_load((out / "metadata.yaml").read_text())
    assert meta["display-name"] == "A small one"
    assert (meta["source"], meta["docs"]) == (
        "https://example.com/small",
        "https://example.com/docs",
    )
    assert meta["peers"] == {"cluster": {"interface": "small-peers"}}
    assert not {"type", "base", "platforms", "parts", "config", "links", "title"} & set(meta)
    assert yaml.safe_load((out / "config.yaml").read_text())["options"]["word"]["type"] == "string"
    assert yaml.safe_load((out / "actions.yaml").read_text()) == {"go": {"description": "Go."}}
    manifest = yaml.safe_load((out / "manifest.yaml").read_text())
    assert manifest["bases"][0]["channel"] == "24.04"
    assert (out / "src" / "charm.py").stat().st_mode & 0o777 == 0o755
    assert (out / "lib" / "helper.py").stat().st_mode & 0o777 == 0o644
    assert list((out / "src" / "__pycache__").glob("charm.cpython-*.pyc"))


def test_generated_dispatch_starts_the_charm_from_anywhere(source: Path, tmp_path: Path) -> None:
    out = unzip(pack(source, tmp_path), tmp_path / "out")
    for _ in range(2):  # the first start links the interpreter in, the second finds it
        done = subprocess.run(
            [out / "dispatch"],
            env={"JUJU_DISPATCH_PATH": "hooks/start", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
        )
        assert (done.returncode, done.stdout) == (0, "found hooks/start\n"), done.stderr
    assert (out / "venv" / "bin" / "python").is_symlink()


def test_own_dispatch_is_kept(source: Path, tmp_path: Path) -> None:
    (source / "dispatch").write_text("#!/bin/sh\necho own\n")
    with pytest.raises(PackError, match="not executable"):
        pack(source, tmp_path)
    (source / "dispatch").chmod(0o755)
    out = unzip(pack(source, tmp_path), tmp_path / "out")
    assert subprocess.run([out / "dispatch"], capture_output=True, timeout=60).stdout == b"own\n"


def test_same_input_same_bytes(source: Path, tmp_path: Path) -> None:
    first = pack(source, tmp_path / "a.charm").read_bytes()
    second = pack(source, tmp_path / "b.charm").read_bytes()
    assert first == second


def test_cache_does_not_hide_an_edit(source: Path, tmp_path: Path) -> None:
    before = pack(source, tmp_path / "a.charm").read_bytes()
    (source / "lib" / "helper.py").write_text("WORD = 'other'\n")
    assert pack(source, tmp_path / "a.charm").read_bytes() != before
    out = unzip(tmp_path / "a.charm", tmp_path / "out")
    assert (out / "lib" / "helper.py").read_text() == "WORD = 'other'\n"


def test_an_edit_on_the_unit_takes_effect(source: Path, tmp_path: Path) -> None:
    """The compiled files must not outlive the source they were made from."""
    out = unzip(pack(source, tmp_path), tmp_path / "out")
    (out / "lib" / "helper.py").write_text("WORD = 'local'\n")
    done = subprocess.run(
        [out / "dispatch"],
        env={"JUJU_DISPATCH_PATH": "hooks/start", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "local hooks/start\n"


def test_files_named_under_prime_are_packed(source: Path, tmp_path: Path) -> None:
    (source / "templates").mkdir()
    (source / "templates" / "a.conf").write_text("x")
    (source / "unnamed").write_text("x")
    with (source / "charmcraft.yaml").open("a") as meta:
        meta.write("parts: {charm: {plugin: dump, source: ., prime: [templates]}}\n")
    out = unzip(pack(source, tmp_path), tmp_path / "out")
    assert (out / "templates" / "a.conf").exists()
    assert not (out / "unnamed").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("actions: {go: {}}\n", "'actions' stands in charmcraft.yaml and in actions.yaml"),
        ("surplus: 1\n", "unknown section.*surplus"),
        ("parts: {charm: {prime: [nothing]}}\n", "no file 'nothing'"),
        ("parts: {charm: {charm-requirements: [no.txt]}}\n", "no.txt is missing"),
    ],
)
def test_inconsistent_charms_are_refused(
    source: Path, tmp_path: Path, change: str, message: str
) -> None:
    with (source / "charmcraft.yaml").open("a") as meta:
        meta.write(change)
    with pytest.raises(PackError, match=message):
        pack(source, tmp_path)


def test_requirements_without_hashes_are_refused(source: Path, tmp_path: Path) -> None:
    (source / "requirements.txt").write_text("ops==3.9.0\n")
    with pytest.raises(PackError, match="hash"):
        pack(source, tmp_path)


def test_metadata_of_a_source_directory(source: Path) -> None:
    files = metadata_files(source)
    assert set(files) == {"metadata.yaml", "config.yaml", "actions.yaml", "manifest.yaml"}
