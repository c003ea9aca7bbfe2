"""The image that the pods under test run, and how it gets onto the cluster's nodes.

The kubeconfig's current context tells the kind of cluster: `kind-NAME` is kind's, which builds the Dockerfile beside
this file; `debkube` is that of the script of this name, which lays a directory over an image with Python 3.11. For any
other cluster, TEST_IMAGE names an image of this Dockerfile that its nodes can pull.

The tests see to the image by themselves. Only where they run without a way to PyPI,
`python -m tests.integration.images` comes first: it makes and loads the image, and prints its name.
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
EXTRAS = ("--extra", "flask", "--extra", "starlette")  # those of the examples, which the Dockerfile has too
SOURCES = (REPOSITORY / "src/podproof", REPOSITORY / "examples")


def ensure() -> str:
    """Return the name of the image made of the sources as they are now, on every node."""
    if given := os.environ.get("TEST_IMAGE"):
        return given
    image = _name()
    if not _is_on_nodes(image):
        _load(image)
    return image


def _name() -> str:
    """Return a name that follows the content, so that no test runs on an image of other sources."""
    digest = hashlib.sha256()
    files = [path for source in SOURCES for path in source.rglob("*") if path.suffix != ".pyc" and path.is_file()]
    for path in [PROJECT, REQUIREMENTS, *sorted(files)]:
        digest.update(f"{path.relative_to(REPOSITORY)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"localhost/podproof-examples:{digest.hexdigest()[:12]}"


def _is_on_nodes(image: str) -> bool:
    """Return True if every node says that it has the image; it says so some seconds late, and names only some."""
    nodes = json.loads(_run("kubectl", "get", "nodes", "--output", "json"))["items"]
    return all(any(image in (known["names"] or ()) for known in node["status"]["images"]) for node in nodes)


def _load(image: str) -> None:
    context = _run("kubectl", "config", "current-context").strip()
    if context == "debkube":
        _debkube(image)
    elif context.startswith("kind-"):
        _kind(image, context.removeprefix("kind-"))
    else:
        raise RuntimeError(f"the cluster {context!r} is neither kind's nor debkube: name an image by TEST_IMAGE")


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
    """Return a directory that has the dependencies at opt/app, made anew when others are wanted."""
    root = REPOSITORY / ".venv-image"  # beside the virtual environments, for `make clean`
    made_of = root / "opt/app/requirements.json"
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = json.dumps([project["dependencies"], extras, EXTRAS, REQUIREMENTS.read_text()], indent=1)
    if not made_of.exists() or made_of.read_text() != wanted:
        shutil.rmtree(root, ignore_errors=True)
        made_of.parent.mkdir(parents=True)
        uv = (str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet")
        wanted_by = ("--requirements", str(PROJECT), *EXTRAS, "--requirements", str(REQUIREMENTS))
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
