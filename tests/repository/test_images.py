"""The image of the integration tests, and what `kubectl`, `docker` and `kind` are asked for it: stand-ins record it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration import images

STAND_IN = """\
#!/bin/sh
printf '%s|%s|%s\\n' "$PWD" "${{0##*/}}" "$*" >> {calls}
case "${{0##*/}} $*" in
  "kubectl config current-context") echo {context} ;;
  "kubectl get nodes --output json") echo {nodes} ;;
  "{fails}"*) echo it is full >&2; exit 1 ;;
esac
"""

Asked = Callable[[], list[str]]


@pytest.fixture
def make_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """Put programs on PATH that say which cluster there is; return what reads the calls of them."""

    def make(context: str = "kind-here", images_on_nodes: tuple[list[str], ...] = ([],), fails: str = "never") -> Asked:
        calls = tmp_path / "calls"
        calls.write_text("")
        nodes = {"items": [{"status": {"images": [{"names": names}]}} for names in images_on_nodes]}
        quoted = {"calls": shlex.quote(str(calls)), "context": context, "nodes": shlex.quote(json.dumps(nodes))}
        for program in ("kubectl", "docker", "kind"):
            script = tmp_path / program
            script.write_text(STAND_IN.format(**quoted, fails=fails))
            script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        monkeypatch.delenv("TEST_IMAGE", raising=False)

        def asked() -> list[str]:
            lines = [line.split("|") for line in calls.read_text().splitlines()]
            assert {folder for folder, _, _ in lines} <= {str(images.REPOSITORY)}
            return [f"{program} {arguments}" for _, program, arguments in lines]

        return asked

    return make


ASK = ["kubectl get nodes --output json", "kubectl config current-context"]


def test_kind_builds_the_image_and_loads_it_onto_the_nodes_of_the_cluster(make_stand_ins: Callable[..., Asked]) -> None:
    asked = make_stand_ins("kind-podproof-oldest")
    image = images.ensure()
    dockerfile = images.REPOSITORY / "tests/integration/Dockerfile"
    assert asked() == [
        *ASK,
        f"docker build --quiet --tag {image} --file {dockerfile} .",
        f"kind load docker-image {image} --name podproof-oldest",
    ]


def test_an_image_that_every_node_has_is_not_built_again(make_stand_ins: Callable[..., Asked]) -> None:
    make_stand_ins()
    image = images.ensure()
    asked = make_stand_ins(images_on_nodes=([image], ["other", image]))
    assert images.ensure() == image
    assert asked() == ASK[:1]


def test_an_image_that_one_node_lacks_is_loaded(make_stand_ins: Callable[..., Asked]) -> None:
    make_stand_ins()
    image = images.ensure()
    asked = make_stand_ins(images_on_nodes=([image], ["other"]))
    images.ensure()
    assert asked()[-1].startswith("kind load")


def test_an_image_that_is_given_is_taken_as_it_is(
    make_stand_ins: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = make_stand_ins("elsewhere")
    monkeypatch.setenv("TEST_IMAGE", "registry.example/podproof:1")
    assert images.ensure() == "registry.example/podproof:1"
    assert asked() == []


def test_another_cluster_needs_an_image_that_is_given(make_stand_ins: Callable[..., Asked]) -> None:
    asked = make_stand_ins("gke_bob")
    with pytest.raises(RuntimeError, match="'gke_bob' is neither kind nor debkube: set TEST_IMAGE"):
        images.ensure()
    assert asked() == ASK


def test_a_build_that_fails_says_why_and_loads_nothing(make_stand_ins: Callable[..., Asked]) -> None:
    asked = make_stand_ins(fails="docker build")
    with pytest.raises(RuntimeError, match=r"docker build .* failed:\nit is full"):
        images.ensure()
    assert [call.split()[0] for call in asked()] == ["kubectl", "kubectl", "docker"]


def test_the_dockerfile_copies_what_is_there_and_not_ignored() -> None:
    lines = (images.REPOSITORY / "tests/integration/Dockerfile").read_text().splitlines()
    ignore = (images.REPOSITORY / "tests/integration/Dockerfile.dockerignore").read_text().splitlines()
    sources = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert sources
    for source in sources:
        assert (images.REPOSITORY / source).exists()
        assert f"!{source}" in ignore


def test_the_dockerfile_installs_the_extras_of_the_image() -> None:
    assert f"'.[{','.join(images.EXTRAS)}]'" in (images.REPOSITORY / "tests/integration/Dockerfile").read_text()
