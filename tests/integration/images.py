"""Build the image that the tested pods run, and load it onto the cluster's nodes.

The kubeconfig's current context names the kind of cluster: `kind-NAME` is kind, for which the Dockerfile beside this
file is built; `debkube` is made by the script of that name, which adds a directory to an image with Python 3.11. For
any other cluster, TEST_IMAGE names an image of this Dockerfile that its nodes can pull.

The tests build the image when it is missing. To run them without network access, run
`python -m tests.integration.images` first: it builds and loads the image, and prints its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PROJECT = REPOSITORY / "pyproject.toml"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
EXTRAS = ("flask", "starlette", "grpc", "mcp", "exchange")
"""Those of the examples and of the exchange, which the Dockerfile has too."""

SOURCES = (REPOSITORY / "src/podproof", REPOSITORY / "examples")


def ensure() -> str:
    """Return the name of the image of the current sources, after loading it onto every node."""
    if name := os.environ.get("TEST_IMAGE"):
        return name
    image = _name()
    if not _is_on_nodes(image):
        _load(image)
    return image


def _name() -> str:
    """Return a name that contains a hash of the sources, so that no test runs on an image of others."""
    digest = hashlib.sha256()
    files = [path for source in SOURCES for path in source.rglob("*") if path.suffix != ".pyc" and path.is_file()]
    for path in [PROJECT, REQUIREMENTS, *sorted(files)]:
        digest.update(f"{path.relative_to(REPOSITORY)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"localhost/podproof-examples:{digest.hexdigest()[:12]}"


def _is_on_nodes(image: str) -> bool:
    """Return True if every node lists the image; a node lists it some seconds late, and not all of its images."""
    nodes = json.loads(_run("kubectl", "get", "nodes", "--output", "json"))["items"]
    return all(any(image in (known["names"] or ()) for known in node["status"]["images"]) for node in nodes)


def _load(image: str) -> None:
    context = _run("kubectl", "config", "current-context").strip()
    if context == "debkube":
        _debkube(image)
    elif context.startswith("kind-"):
        _kind(image, context.removeprefix("kind-"))
    else:
        raise RuntimeError(
            f"the cluster {context!r} is neither kind nor debkube: set TEST_IMAGE to an image that its nodes can pull"
        )


def _kind(image: str, cluster: str) -> None:
    _run("docker", "build", "--quiet", "--tag", image, "--file", str(Path(__file__).with_name("Dockerfile")), ".")
    _run("kind", "load", "docker-image", image, "--name", cluster)


def _debkube(image: str) -> None:
    script = Path(os.environ.get("DEBKUBE", REPOSITORY / "../shared/cluster/debkube"))
    root = _dependencies()
    for source in SOURCES:
        target = root / "opt/app" / source.name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    _run("bash", str(script), "image", image, str(root))


def _dependencies() -> Path:
    """Return a directory with the dependencies at opt/app, rebuilt when the requirements change."""
    root = REPOSITORY / ".venv-image"  # beside the virtual environments, for `make clean`
    made_of = root / "opt/app/requirements.json"
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = json.dumps([project["dependencies"], extras, EXTRAS, REQUIREMENTS.read_text()], indent=1)
    if not made_of.exists() or made_of.read_text() != wanted:
        shutil.rmtree(root, ignore_errors=True)
        made_of.parent.mkdir(parents=True)
        uv = (str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet")
        wanted_by = (
            "--requirements",
            str(PROJECT),
            *(f"--extra={name}" for name in EXTRAS),
            "--requirements",
            str(REQUIREMENTS),
        )
        for_node = ("--target", str(made_of.parent), "--python-version", "3.11", "--only-binary", ":all:")
        _run(*uv, *wanted_by, *for_node)
        made_of.write_text(wanted)
    return root


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    name = _name()
    _load(name)
    print(name)
