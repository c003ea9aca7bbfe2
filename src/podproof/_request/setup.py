"""From a middleware's arguments to its pipeline: all that it uses is made here, once, and handed down."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, cast

from podproof._authentication.authenticator import Authenticator
from podproof._authentication.pods import PodLookup, PodStore
from podproof._authentication.token_review import TokenReviewVerifier
from podproof._authorization.access_reviews import AccessReviews
from podproof._authorization.rbac import RBAC
from podproof._authorization.rules import Rule, Rules
from podproof._cache.review_threads import review_threads
from podproof._request.pipeline import Authorize, OtherCredentials, RequestPipeline
from podproof.errors import ConfigurationError
from podproof.options import OptionArguments, Options

if TYPE_CHECKING:
    from podproof._apiserver.client import APIServerClient
    from podproof._authentication.auto_mode import Mode
    from podproof._authentication.custom import CustomAuthenticator, SupportsAuthenticate
    from podproof._authentication.token_verifier import TokenVerifier
    from podproof._authorization.namespace_labels import NamespaceLabels

log = logging.getLogger("podproof")


class MiddlewareOptions(OptionArguments, total=False):
    """What a middleware takes: options, and an authenticator in the place of the one that asks the API server."""

    authenticator: SupportsAuthenticate


def new_request_id() -> str:
    """Return what leads from a response to the log line that has its reason."""
    return secrets.token_hex(8)


def build_pipeline(
    given: MiddlewareOptions,
    *,
    environ: Mapping[str, str] = os.environ,
    new_id: Callable[[], str] = new_request_id,
) -> RequestPipeline:
    """Return the pipeline of a middleware with these arguments. It starts no thread and opens no connection.

    Raises ConfigurationError.
    """
    arguments = dict(given)
    authenticator = cast("SupportsAuthenticate | None", arguments.pop("authenticator", None))
    if isinstance(authenticator, Authenticator):
        if arguments:
            raise ConfigurationError(
                f"authenticator cannot be combined with {' and '.join(arguments)}: it has options of its own"
            )
        own: Authenticator | CustomAuthenticator = authenticator
        options = authenticator.options
    else:
        options = Options.read(arguments, environ)
        own = build_authenticator(options) if authenticator is None else _build_custom(authenticator, options)
    return RequestPipeline(
        options,
        own,
        build_authorize(options, own, build_namespace_labels(options, own)),
        others=build_others(options, own),
        monotonic=own.monotonic,
        new_id=new_id,
    )


def build_own_pipeline(
    given: MiddlewareOptions, environ: Mapping[str, str] = os.environ
) -> tuple[Authenticator | None, RequestPipeline]:
    """Return the pipeline of a server of podproof's own, and its authenticator, to close, if that is podproof's own.

    Raises ConfigurationError.
    """
    arguments = dict(given)
    if arguments.get("authenticator") is None:
        arguments = {"authenticator": build_authenticator(Options.read(arguments, environ))}
    authenticator = arguments["authenticator"]
    pipeline = build_pipeline(cast("MiddlewareOptions", arguments), environ=environ)
    return authenticator if isinstance(authenticator, Authenticator) else None, pipeline


def _build_custom(authenticator: SupportsAuthenticate, options: Options) -> CustomAuthenticator:
    from podproof._authentication.custom import CustomAuthenticator  # noqa: PLC0415  only where it is used

    return CustomAuthenticator(authenticator, options)


def build_others(options: Options, authenticator: Authenticator | CustomAuthenticator) -> OtherCredentials | None:
    """Return what tells other credentials from the cluster's, None if they do not pass."""
    if options.other_credentials == "refuse":
        return None
    from podproof._authentication.cluster_issuers import ClusterIssuers  # noqa: PLC0415  only where they pass
    from podproof._request.other_credentials import OtherIssuersCredentials  # noqa: PLC0415

    issuers = ClusterIssuers(
        options.issuers,
        authenticator.issuer_reader or _default_client(options),
        authenticator.threads,
        monotonic=authenticator.monotonic,
    )
    return OtherIssuersCredentials(issuers)


def build_authenticator(options: Options, client: APIServerClient | None = None) -> Authenticator:
    """Return an authenticator that asks the API server, by default the one that our surroundings name.

    Raises ConfigurationError for an audience that is the API server's own, where a mounted token shows it.
    """
    # Here and not above, as in _default_client.
    from podproof._apiserver.connection import read_mounted_token  # noqa: PLC0415
    from podproof._apiserver.permissions import needed_permissions  # noqa: PLC0415
    from podproof._apiserver.startup import StartupCheck, check_audiences  # noqa: PLC0415

    check_audiences(options.audience, read_mounted_token())
    if not options.enforce:
        log.warning("enforce is off: every request reaches the app, and those that would be denied are only logged")
    if options.source_address == "off":
        log.warning("source_address is off: a stolen token is accepted from any address until it expires")
    client = client or _default_client(options)
    changes: list[Callable[[str], None]] = []
    mode = build_mode(options, client, changes)
    authenticator = Authenticator(
        options,
        mode.verifier,
        mode.pods,
        access_reviewer=client,
        namespace_reader=client,
        issuer_reader=client,
        startup=StartupCheck(
            client,
            audiences=options.audience,
            permissions=needed_permissions(
                reviews=options.verify != "keys",
                keys=options.verify == "keys" and options.jwks is None,
                watch=options.watches_pods,
                namespaces=options.watch_namespaces,
                rbac=isinstance(options.policy, RBAC) or options.policy == "rbac",
                namespace_labels=any(rule.namespace_labels for rule in read_all_rules(options)),
            ),
            timeout=options.timeout,
            trusted_proxies=options.trusted_proxies,
        ),
        on_close=mode.close,
    )
    changes.append(authenticator.discard_pod)
    return authenticator


def build_mode(
    options: Options,
    client: APIServerClient,
    changes: Sequence[Callable[[str], None]],
    *,
    monotonic: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
) -> Mode:
    """Return what verifies tokens and what knows the pods; `changes` are called with the UID of a pod that changes."""
    from podproof._authentication.auto_mode import AutoMode, Mode  # noqa: PLC0415  only where an app is made

    reviews: TokenVerifier = TokenReviewVerifier(client, options.audience)
    lookup: PodStore = PodLookup(client, max_outage=options.max_outage or 0.0, monotonic=monotonic)
    if options.verify == "review" and not options.watches_pods:
        return Mode(reviews, lookup)
    from podproof._apiserver.permissions import needed_permissions  # noqa: PLC0415  in the modes that need them
    from podproof._authentication.pod_watch import MAX_OUTAGE, PodWatch  # noqa: PLC0415

    max_outage = MAX_OUTAGE if options.max_outage is None else options.max_outage
    watch = PodWatch(
        client,
        namespaces=options.watch_namespaces,
        label_selector=options.watch_labels or "",
        field_selector=options.watch_fields or "",
        fallback=PodLookup(client, max_outage=max_outage, monotonic=monotonic),
        listeners=changes,
        max_age=options.max_staleness,
        max_outage=max_outage,
        monotonic=monotonic,
        now=now,
    )
    if options.verify == "review":
        return Mode(reviews, watch, watch.close)
    verifier = _build_key_verifier(options, client, reviews, monotonic, now)
    keys = Mode(verifier, lookup if options.pods == "lookup" else watch, watch.close)
    if options.verify == "keys":
        return keys
    needed = needed_permissions(reviews=False, keys=True, watch=keys.pods is watch, namespaces=options.watch_namespaces)
    auto = AutoMode(client, needed, keys=keys, review=Mode(reviews, watch if options.pods == "watch" else lookup))
    return Mode(auto, auto, watch.close)


def _build_key_verifier(
    options: Options,
    client: APIServerClient,
    reviews: TokenVerifier,
    monotonic: Callable[[], float],
    now: Callable[[], float],
) -> TokenVerifier:
    from podproof._authentication.key_set import KeySet  # noqa: PLC0415  needs cryptography
    from podproof._authentication.key_source import make_key_source  # noqa: PLC0415
    from podproof._authentication.own_issuer import OwnIssuerVerifier  # noqa: PLC0415
    from podproof._authentication.signing_keys import SigningKeyVerifier  # noqa: PLC0415

    key_set = KeySet(make_key_source(options.jwks, client), monotonic=monotonic, now=now)

    def verifier_for(*issuers: str) -> SigningKeyVerifier:
        return SigningKeyVerifier(dict.fromkeys(issuers, key_set), options.audience, review=reviews, now=now)

    return verifier_for(*options.issuers) if options.issuers else OwnIssuerVerifier(client, verifier_for)


def read_all_rules(options: Options) -> Sequence[Rule]:
    """Return the rules, those of the rules file as they are now. Raises ConfigurationError for a file that is wrong."""
    if options.rules_file is None:
        return options.rules or ()
    from podproof._authorization.rules_file import read_rules  # noqa: PLC0415  YAML, only where it is used

    return read_rules(options.rules_file)


def build_namespace_labels(
    options: Options, authenticator: Authenticator | CustomAuthenticator
) -> NamespaceLabels | None:
    """Return what knows the labels of the callers' namespaces, None without rules, which ask for them.

    It uses the authenticator's API server client, threads and settings.
    """
    if options.rules is None and options.rules_file is None:
        return None
    from podproof._authorization.namespace_labels import NamespaceLabels  # noqa: PLC0415  only where it is used

    return NamespaceLabels(
        # A file's rules may ask for them after a change, and until then no client is made.
        cache(lambda: authenticator.namespace_reader or _default_client(options)),
        authenticator.threads,
        ttl=options.cache_ttl,
        size=options.cache_size,
        missing_ttl=options.rejection_ttl,
        missing_size=options.rejection_size,
        monotonic=authenticator.monotonic,
    )


def build_authorize(
    options: Options,
    authenticator: Authenticator | CustomAuthenticator,
    namespaces: NamespaceLabels | None = None,
) -> Authorize | None:
    """Return what decides on what authenticated callers may do, None where they may do everything.

    Kubernetes RBAC uses the authenticator's API server client, threads and settings.

    Raises ConfigurationError for a rules file that is wrong, and for rules by namespace labels without `namespaces`.
    """
    if options.rules is not None:
        return Rules(options.rules, namespaces).check
    if options.rules_file is not None:
        from podproof._authorization.rules_file import RulesFile  # noqa: PLC0415  YAML, only where it is used

        return RulesFile(options.rules_file, namespaces).check
    if options.policy is None:
        return None
    if isinstance(options.policy, RBAC) or options.policy == "rbac":
        return _build_access_reviews(
            RBAC() if options.policy == "rbac" else options.policy, options, authenticator
        ).check
    policy = options.policy
    return lambda identity, method, path, _: policy.check(identity, method, path)


def _build_access_reviews(
    rbac: RBAC, options: Options, authenticator: Authenticator | CustomAuthenticator
) -> AccessReviews:
    return AccessReviews(
        rbac,
        rbac.reviewer or authenticator.access_reviewer or _default_client(options),
        authenticator.threads if rbac.reviews is None else review_threads(rbac.reviews),
        allowed_ttl=options.cache_ttl if rbac.allowed_ttl is None else rbac.allowed_ttl,
        allowed_size=options.cache_size,
        denied_ttl=options.rejection_ttl if rbac.denied_ttl is None else rbac.denied_ttl,
        denied_size=options.rejection_size,
        monotonic=authenticator.monotonic,
    )


def _default_client(options: Options) -> APIServerClient:
    # Here and not above: the kubernetes package takes about a second to import, and podproof.wsgi has to stay light.
    from podproof._apiserver.client import APIServerClient  # noqa: PLC0415

    return APIServerClient(connections=options.max_reviews)
