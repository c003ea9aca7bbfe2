"""`PodUser`: a pod as the `request.user` of Django, without a row in a database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from podproof.identity import PodIdentity


class PodUser:
    """A pod as a user of Django: authenticated, active, and without any permission.

    Its username is `system:serviceaccount:<namespace>:<name>`. What it may do is decided by podproof (`allow`, rules,
    `require`), never by Django's permissions: those belong to users in the database, and no backend is asked.
    """

    id = pk = None
    is_authenticated = is_active = True
    is_anonymous = is_staff = is_superuser = False

    def __init__(self, identity: PodIdentity) -> None:
        self.identity = identity
        self.username = identity.identity

    def __str__(self) -> str:
        return str(self.identity.service_account)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PodUser) and other.identity == self.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def get_username(self) -> str:
        """Return the username."""
        return self.username

    @property
    def groups(self) -> Any:
        """No groups: an empty query."""
        from django.contrib.auth.models import Group  # noqa: PLC0415  needs an app that is installed

        return Group.objects.none()

    @property
    def user_permissions(self) -> Any:
        """No permissions: an empty query."""
        from django.contrib.auth.models import Permission  # noqa: PLC0415  needs an app that is installed

        return Permission.objects.none()

    def get_all_permissions(self, obj: object = None) -> set[str]:  # noqa: ARG002  as Django calls it
        """Return no permissions."""
        return set()

    get_user_permissions = get_group_permissions = get_all_permissions

    def has_perm(self, perm: str, obj: object = None) -> bool:  # noqa: ARG002  as Django calls it
        """Return False."""
        return False

    def has_perms(self, perm_list: Iterable[str], obj: object = None) -> bool:  # noqa: ARG002  as Django calls it
        """Return True if no permission is needed."""
        return not [*perm_list]

    def has_module_perms(self, _module: str) -> bool:
        """Return False."""
        return False

    async def aget_all_permissions(self, obj: object = None) -> set[str]:  # noqa: ARG002  as Django calls it
        """Return no permissions."""
        return set()

    aget_user_permissions = aget_group_permissions = aget_all_permissions

    async def ahas_perm(self, perm: str, obj: object = None) -> bool:  # noqa: ARG002  as Django calls it
        """Return False."""
        return False

    async def ahas_perms(self, perm_list: Iterable[str], obj: object = None) -> bool:  # noqa: ARG002  as Django calls it
        """Return True if no permission is needed."""
        return self.has_perms(perm_list)

    async def ahas_module_perms(self, _module: str) -> bool:
        """Return False."""
        return False

    def save(self, *_: object, **__: object) -> NoReturn:
        """Raise NotImplementedError: there is no row to save."""
        raise NotImplementedError("a pod has no row in the database")

    delete = set_password = check_password = save
