"""What happens once, when an app starts: an authenticator is made, and what can be seen to be wrong is said at once."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from podproof._authentication.authenticator import Authenticator
from podproof._authentication.pods import PodLookup
from podproof._authentication.token_review import TokenReviewVerifier
from podproof._authorization.policy import Policy
from podproof._authorization.rbac import RBAC
from podproof._authorization.rules import Rules
from podproof._token.jwt import read_claims
from podproof.errors import ConfigurationError, MalformedToken, Unavailable
from podproof.options import Options

if TYPE_CHECKING:
    from podproof._apiserver.client import APIServerClient

log = logging.getLogger("podproof")


def build_authenticator(options: Options, cluster: APIServerClient | None = None) -> Authenticator:
    """Return an authenticator that asks the API server, by default the one of our surroundings.

    Missing permissions are logged, by a thread of its own: an API server that is away keeps no app from starting. Who
    forks waits for it.

    Raises ConfigurationError for an audience that is the API server's own.
    """
    # Here and not above: the official client takes about a second to import, and `import podproof.wsgi` stays light.
    from podproof._apiserver.client import APIServerClient  # noqa: PLC0415

    cluster = cluster or APIServerClient(connections=options.max_reviews)
    check_audiences(options.audience, cluster.own_token())
    if options.source_address == "off":
        log.warning(
            "source_address is off: whoever gets hold of a caller's token can use it from anywhere until it expires"
        )
    checking = threading.Thread(
        target=log_missing_permissions,
        args=(cluster, options.timeout),
        kwargs={"rbac": options.policy == "rbac" or isinstance(options.policy, RBAC)},
        name="podproof-startup",
        daemon=True,
    )
    checking.start()
    # gunicorn --preload forks now. A child that is forked while another thread speaks TLS inherits OpenSSL's locks as
    # they are, and its first SHA-256 never ends.
    os.register_at_fork(before=checking.join)
    return Authenticator(options, TokenReviewVerifier(cluster, options.audience), PodLookup(cluster))


def build_policy(options: Options) -> Policy | None:
    """Return what decides on what known callers may do, None where they may do everything.

    Raises ConfigurationError for a rules file that is wrong.
    """
    if options.rules is not None:
        return Rules(options.rules)
    if options.rules_file is not None:
        from podproof._authorization.rules_file import RulesFile  # noqa: PLC0415  who has no such file needs no YAML

        return RulesFile(options.rules_file)
    return RBAC() if options.policy == "rbac" else options.policy


def check_audiences(audiences: tuple[str, ...], own_token: str | None) -> None:
    """Refuse an audience that our own token for the API server has: whoever gets such a token can act as its caller.

    Raises ConfigurationError.
    """
    if own_token is None:
        return
    try:
        named = read_claims(own_token).get("aud")
    except MalformedToken:
        return
    theirs = named if isinstance(named, list) else [named]
    for audience in audiences:
        if audience in theirs:
            raise ConfigurationError(
                f"audience was given {audience!r}, which is the API server's own: a caller's token for it would let "
                'this app act as the caller in the whole cluster; possible is a name of this app alone, such as "bob"'
            )


def log_missing_permissions(cluster: APIServerClient, timeout: float, *, rbac: bool = False) -> None:
    """Log an error for each permission that we need, with `rbac` as the policy or without, and do not have.

    Blocks for up to `timeout` seconds.
    """
    from podproof._apiserver.permissions import CREATE_ACCESS_REVIEWS, CREATE_TOKENREVIEWS, GET_PODS  # noqa: PLC0415

    needed = [CREATE_TOKENREVIEWS, GET_PODS, *([CREATE_ACCESS_REVIEWS] if rbac else [])]
    deadline = time.monotonic() + timeout
    try:
        missing = [one for one in needed if not cluster.is_allowed(one, deadline)]
    except Unavailable as trouble:
        log.error("could not check our permissions: %s", trouble.reason)
        return
    for permission in missing:
        log.error(
            "no caller can be let in: this app's service account may not %s; a ClusterRole with it, bound by a "
            "ClusterRoleBinding, is needed (a RoleBinding does not do)",
            permission,
        )
