"""What the head of a request settles: the route, who asks, with which class of data. Read once for as long
as a connection repeats its head within one snapshot.
"""

from __future__ import annotations

from typing import Final

from allod.front import auth, refusals
from allod.front.auth import Identity
from allod.front.http1 import RequestHead
from allod.front.problems import Problem
from allod.front.route import Plan
from allod.front.upstream import Replica
from allod.front.world import World


class HotRoute:
    """A path whose dialect is the engines' own."""

    __slots__ = ("action", "endpoint", "kind", "request_line")

    def __init__(self, endpoint: str, action: str, kind: str) -> None:
        self.endpoint = endpoint
        self.action = action
        self.kind = kind
        self.request_line = (
            b"POST %b HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\ncontent-length: "
            % endpoint.encode()
        )


HOT: Final = {
    b"/v1/chat/completions": HotRoute("/v1/chat/completions", "chat", "chat"),
    b"/v1/completions": HotRoute("/v1/completions", "complete", "chat"),
    b"/v1/embeddings": HotRoute("/v1/embeddings", "embed", "embed"),
    b"/v1/ocr": HotRoute("/v1/ocr", "ocr", "ocr"),
}
HOT[b"/mistral/v1/ocr"] = HOT[b"/v1/ocr"]  # the OCR engine speaks Mistral's shape by itself


class Terms:
    """Of one head on a hot route. Holds for requests with the same head while `world` is in force and
    `identity` has not expired.
    """

    __slots__ = ("_plans", "categories", "content_type", "data_class", "identity", "parent", "route", "world")

    def __init__(self, route: HotRoute, head: RequestHead, world: World, now_us: int, *, inner: bool) -> None:
        """Raises Problem where the request is refused for its head alone."""
        fields = head.fields
        if head.method != b"POST":
            raise Problem(405, "http.method", f"{route.endpoint} is asked with POST")
        self.parent = ""
        if inner:
            self.identity: Identity = world.keyring.inner(fields.get(b"allod-internal-caller", b""))
            self.parent = fields.get(b"allod-internal-parent", b"").decode("latin-1")
        else:
            found = world.keyring.identify(fields, now_us)
            if found is None:
                raise auth.missing()
            self.identity = found
        if b"content-encoding" in fields:
            raise Problem(
                415, "body.content-encoding", "a compressed body is not read here", hint="Send it plain"
            )
        self.data_class, self.categories = auth.carried(self.identity.project, fields)
        self.content_type = fields.get(b"content-type", b"")
        self.route = route
        self.world = world
        self._plans: dict[str, Plan[Replica]] = {}  # by the name asked for: of known names only

    def plan(self, model: str, now_us: int) -> Plan[Replica]:
        """Raises Problem `model.unknown`, `model.wrong-kind`, `model.not-running`."""
        plan = self._plans.get(model)
        if plan is not None and now_us < plan.valid_until_us:
            return plan
        world, route = self.world, self.route
        service = world.service(model)
        if service.kind != route.kind:
            raise refusals.wrong_kind(service, route.endpoint)
        if not service.replicas:
            raise refusals.not_running(service)
        plan = world.plan(self.identity, service, route.action, self.data_class, self.categories, now_us)
        self._plans[model] = plan
        return plan
