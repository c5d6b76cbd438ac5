"""The controller's charm store: unpack a `.charm` or copy a charm's directory, and read it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import yaml

from lab.juju.controller.errors import Refused

Doc = dict[str, Any]
_META_KEYS = (
    "name",
    "summary",
    "description",
    "peers",
    "provides",
    "requires",
    "storage",
    "resources",
    "extra-bindings",
    "containers",
    "assumes",
    "subordinate",
    "terms",
    "devices",
    "charm-user",
)
_SKIP = {"__pycache__", "parts", "prime", "stage", "overlay", "node_modules"}


def unpack(source: Path, target: Path) -> str:
    """Put a charm's files into `target`; returns a digest of the content."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=_ignored)
    elif zipfile.is_zipfile(source):
        _unzip(source, target)
    else:
        raise Refused(f'"{source}" is neither a charm directory nor a .charm file (a zip)')
    _complete(target)
    if not (target / "dispatch").exists() and not (target / "hooks").is_dir():
        raise Refused(f'charm "{source}" has neither a "dispatch" file nor a "hooks" directory')
    return digest(target)


def _ignored(_folder: str, names: list[str]) -> set[str]:
    return {n for n in names if n.startswith(".") or n in _SKIP or n.endswith(".charm")}


def _unzip(source: Path, target: Path) -> None:
    """Like `unzip`: modes and symbolic links are kept, and times for the sake of .pyc files."""
    import time

    with zipfile.ZipFile(source) as archive:
        for item in archive.infolist():
            path = target / item.filename
            if not path.resolve().is_relative_to(target.resolve()):
                raise Refused(f'"{source}" holds a file outside the charm: {item.filename}')
            mode = item.external_attr >> 16
            if item.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if mode & 0o170000 == 0o120000:
                path.symlink_to(archive.read(item).decode())
                continue
            path.write_bytes(archive.read(item))
            path.chmod((mode & 0o777) or 0o644)
            stamp = time.mktime((*item.date_time, 0, 0, -1))
            os.utime(path, (stamp, stamp))


def _complete(folder: Path) -> None:
    """Split charmcraft.yaml as packing does, for charms run from their source directory."""
    project = folder / "charmcraft.yaml"
    if (folder / "metadata.yaml").exists() or not project.exists():
        if not (folder / "metadata.yaml").exists():
            raise Refused("the charm has neither metadata.yaml nor charmcraft.yaml")
        return
    doc: Doc = yaml.safe_load(project.read_text()) or {}
    meta = {key: doc[key] for key in _META_KEYS if key in doc}
    if "title" in doc:
        meta["display-name"] = doc["title"]
    (folder / "metadata.yaml").write_text(yaml.safe_dump(meta, sort_keys=False))
    for section in ("config", "actions"):
        file = folder / f"{section}.yaml"
        if doc.get(section) and file.exists():
            raise Refused(f"{section} is stated both in charmcraft.yaml and in {section}.yaml")
        if doc.get(section):
            file.write_text(yaml.safe_dump(doc[section], sort_keys=False))


def digest(folder: Path) -> str:
    """A digest of every file's path, mode and content."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(str(path.relative_to(folder)).encode())
        if path.is_symlink():
            total.update(os.readlink(path).encode())
        elif path.is_file():
            total.update(oct(path.stat().st_mode).encode())
            total.update(path.read_bytes())
    return total.hexdigest()


def read_yaml(folder: Path, name: str) -> Doc:
    file = folder / name
    if not file.exists():
        return {}
    try:
        return yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as err:
        raise Refused(f"charm's {name} is not valid YAML: {err}") from err


def endpoints(meta: Doc) -> list[dict[str, str]]:
    """The charm's relation endpoints with juju-info added, as Juju adds it."""
    found: list[dict[str, str]] = []
    for section, role in (("peers", "peer"), ("provides", "provider"), ("requires", "requirer")):
        for name, spec in (meta.get(section) or {}).items():
            found.append(
                {
                    "endpoint": name,
                    "role": role,
                    "interface": spec["interface"],
                    "scope": spec.get("scope", "global"),
                    "limit": str(spec.get("limit") or ""),
                }
            )
    if not any(e["endpoint"] == "juju-info" for e in found):
        found.append(
            {
                "endpoint": "juju-info",
                "role": "provider",
                "interface": "juju-info",
                "scope": "global",
                "limit": "",
            }
        )
    return found


def check_assumes(meta: Doc, version: str) -> None:
    """Refuse a charm whose `assumes` this controller does not meet."""
    for item in meta.get("assumes") or []:
        if not _holds(item, version):
            raise Refused(
                f'charm "{meta.get("name")}" cannot be deployed: it assumes {item}, but this '
                f"controller is juju {version} on machines"
            )


def _holds(item: Any, version: str) -> bool:
    if isinstance(item, dict):
        if "any-of" in item:
            return any(_holds(i, version) for i in item["any-of"])
        return all(_holds(i, version) for i in item.get("all-of", []))
    match = re.fullmatch(r"\s*juju\s*(>=|<)\s*([\d.]+)\s*", str(item))
    if not match:
        return False
    ours, theirs = _numbers(version), _numbers(match[2])
    return ours >= theirs if match[1] == ">=" else ours < theirs


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("-")[0]))


def option_value(name: str, spec: Doc, text: str) -> Any:
    """A config value given as text, in the option's type; Refused when it does not fit."""
    kind = spec.get("type", "string")
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind == "boolean":
            return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError):
        raise Refused(f'option "{name}" expected {kind}, got "{text}"') from None
    if kind == "secret" and text and not text.startswith("secret:"):
        raise Refused(f'option "{name}" expected a secret URI (secret:...), got "{text}"')
    return text
