"""The pytest plugin, in pytest runs of its own: a user's tests and a module-level app."""

from __future__ import annotations

import os
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from podproof.testing import Cluster, EmulatedPod

pytest_plugins = ["pytester"]

# These import much, and do nothing here; the plugin itself is found as users have it.
WITHOUT = [f"-pno:{plugin}" for plugin in ("anyio", "cacheprovider", "faker", "hypothesispytest")]

APPS = """
    from flask import Flask, request
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from podproof import asgi, wsgi

    flask_app = Flask(__name__)
    flask_app.wsgi_app = wsgi.PodAuthMiddleware(flask_app.wsgi_app, audience="bob")
    flask_app.add_url_rule("/", view_func=lambda: str(request.environ["podproof.identity"].service_account))


    def whoami(request):
        return PlainTextResponse(request.user.display_name)


    starlette_app = Starlette(routes=[Route("/", whoami)])
    starlette_app.add_middleware(asgi.PodAuthMiddleware, audience="bob")
"""


@pytest.fixture
def run_pytest_with_coverage(pytester: pytest.Pytester) -> pytest.Pytester:
    """Give a folder with the module `apps`, whose two apps are wrapped at import."""
    pytester.makepyfile(apps=dedent(APPS))
    return pytester


@pytest.fixture
def run_pytest(run_pytest_with_coverage: pytest.Pytester, without_coverage: None) -> pytest.Pytester:
    """Give the same; a run starts in half the time."""
    return run_pytest_with_coverage


def passed(pytester: pytest.Pytester, test_module: str, *options: str) -> int:
    """Run pytest on a module, and return how many of its tests passed if none failed."""
    pytester.makepyfile(test_it=dedent(test_module))
    outcomes = pytester.runpytest_subprocess(*WITHOUT, *options).parseoutcomes()
    assert outcomes.keys() == {"passed"}
    return outcomes["passed"]


def test_apps_that_are_wrapped_at_import_work_in_every_test(run_pytest: pytest.Pytester) -> None:
    tests = """
        import pytest
        from starlette.testclient import TestClient

        from apps import flask_app, starlette_app


        @pytest.mark.parametrize("time", [1, 2, 3])
        def test_flask(time, podproof_caller, podproof_cluster):
            response = flask_app.test_client().get("/", headers=podproof_caller.headers("bob"))
            assert response.text == "default/caller"
            assert podproof_cluster.count("tokenreviews") == 1


        @pytest.mark.parametrize("time", [1, 2, 3])
        def test_starlette(time, podproof_caller, podproof_cluster):
            client = TestClient(starlette_app, client=podproof_caller.peer)
            assert client.get("/", headers=podproof_caller.headers("bob")).text == "default/caller"
            assert client.get("/", headers=podproof_caller.headers("carol")).status_code == 401
            podproof_cluster.fail(403)
            assert client.get("/", headers=podproof_caller.headers("bob")).status_code == 503
    """
    assert passed(run_pytest, tests) == 6


def test_a_test_sees_nothing_of_another_but_what_a_session_fixture_made(
    run_pytest_with_coverage: pytest.Pytester,
) -> None:
    tests = """
        import os

        import pytest

        from apps import flask_app


        @pytest.fixture(scope="session")
        def alice(podproof_cluster_session):
            return podproof_cluster_session.pod("default/alice", service_account="alice", addresses=("127.0.0.2",))


        @pytest.fixture(scope="module")
        def bob(podproof_cluster_session):
            with podproof_cluster_session.isolated() as cluster:
                yield cluster.pod("default/bob")


        @pytest.mark.parametrize("time", [1, 2])
        def test_own_state(time, alice, bob, podproof_cluster):
            assert podproof_cluster.requests == []
            podproof_cluster.pod("default/carol")
            podproof_cluster.grant("default/alice", verbs=["get"], resources=["pods"])
            alice.update(phase="Failed" if time == 1 else "Running")
            response = flask_app.test_client().get(
                "/", headers=alice.headers("bob"), environ_base={"REMOTE_ADDR": "127.0.0.2"}
            )
            assert response.status_code == (401 if time == 1 else 200)
            bob.remove()
            podproof_cluster.fail("refuse")


        def test_session_alone(alice, bob, podproof_cluster_session):
            assert (alice.json()["status"]["phase"], bob.json()["status"]["phase"]) == ("Running", "Running")
            assert os.environ["KUBECONFIG"] == str(podproof_cluster_session.kubeconfig)
    """
    assert passed(run_pytest_with_coverage, tests) == 3


def test_unittest_test_cases_use_the_fixtures(run_pytest: pytest.Pytester) -> None:
    tests = """
        import os
        import unittest

        import pytest

        from apps import flask_app


        class WhoamiTest(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def set_caller(self, podproof_caller):
                self.caller = podproof_caller

            def test_caller(self):
                response = flask_app.test_client().get("/", headers=self.caller.headers("bob"))
                self.assertEqual(response.text, "default/caller")

            def test_other_caller(self):
                response = flask_app.test_client().get("/", headers=self.caller.headers("carol"))
                self.assertEqual(response.status_code, 401)


        @pytest.mark.usefixtures("podproof_cluster")
        class EnvironmentTest(unittest.TestCase):
            def test_kubeconfig(self):
                assert os.path.exists(os.environ["KUBECONFIG"])


        class WithoutFixturesTest(unittest.TestCase):
            def test_no_kubeconfig(self):
                assert "KUBECONFIG" not in os.environ
    """
    assert passed(run_pytest, tests) == 4


def test_a_project_may_have_fixtures_of_the_names_cluster_and_caller(run_pytest: pytest.Pytester) -> None:
    run_pytest.makeconftest(
        dedent("""
        import pytest

        @pytest.fixture(scope="session")
        def cluster():
            return "a database"

        @pytest.fixture
        def caller(cluster):
            return f"a caller of {cluster}"
        """)
    )
    tests = """
        def test_both(caller, podproof_caller, podproof_cluster):
            assert caller == "a caller of a database"
            assert podproof_caller.service_account == "caller"
    """
    assert passed(run_pytest, tests) == 1


def test_workers_of_xdist_have_a_cluster_each(run_pytest: pytest.Pytester) -> None:
    tests = """
        import pytest

        from apps import flask_app


        @pytest.mark.parametrize("time", range(8))
        def test_flask(time, podproof_caller):
            response = flask_app.test_client().get("/", headers=podproof_caller.headers("bob"))
            assert response.text == "default/caller"
    """
    assert passed(run_pytest, tests, "-n", "2") == 8


def test_a_run_without_the_fixtures_imports_nothing_heavy(run_pytest: pytest.Pytester) -> None:
    tests = """
        import sys


        def test_modules():
            assert "podproof.testing.plugin" in sys.modules
            heavy = ("cryptography", "jwt", "kubernetes", "requests", "podproof.testing._emulator")
            assert [name for name in heavy if name in sys.modules] == []
    """
    assert passed(run_pytest, tests) == 1


def test_an_app_that_is_wrapped_in_the_test_knows_its_caller(run_pytest: pytest.Pytester) -> None:
    tests = """
        from flask import Flask, request

        from podproof.wsgi import PodAuthMiddleware


        def test_flask(podproof_caller):
            app = Flask(__name__)
            app.wsgi_app = PodAuthMiddleware(app.wsgi_app, audience="bob")
            app.add_url_rule("/", view_func=lambda: str(request.environ["podproof.identity"].service_account))
            assert app.test_client().get("/", headers=podproof_caller.headers("bob")).text == "default/caller"
    """
    assert passed(run_pytest, tests) == 1


def test_the_environment_names_the_emulated_cluster_and_no_other(podproof_cluster: Cluster) -> None:
    assert os.environ["KUBECONFIG"] == str(podproof_cluster.kubeconfig)
    assert "KUBERNETES_SERVICE_HOST" not in os.environ
    assert "KUBERNETES_SERVICE_PORT" not in os.environ


def test_a_second_caller_has_another_address(podproof_cluster: Cluster, podproof_caller: EmulatedPod) -> None:
    alice = podproof_cluster.pod("default/alice", addresses=("127.0.0.2",))
    assert (alice.peer[0], podproof_caller.peer[0]) == ("127.0.0.2", "127.0.0.1")
