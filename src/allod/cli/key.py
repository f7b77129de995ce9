"""`allod key`: API keys. A key is shown once, when it is made."""

from __future__ import annotations

import argparse

from allod import limits
from allod.api.ports import KeyView, NewKey
from allod.cli.admin import Admin, segment
from allod.cli.output import Out, day, table
from allod.cli.parser import Verbs, count, home_of
from allod.clock import SystemClock
from allod.identity.caller import Role


def register(verbs: Verbs) -> None:
    under = verbs.group("key", "API keys: make, list, revoke")
    create = under.add("create", "make a key and show it, once", _create)
    create.add_argument("--project", default="default", help="what it may use (default: default)")
    create.add_argument(
        "--role", choices=[r.value for r in Role], default=Role.DEVELOPER.value, help="default: developer"
    )
    create.add_argument("--label", default="", help="who or what it is for")
    days = limits.KEY_LIFETIME_DEFAULT_DAYS
    create.add_argument("--days", type=count, default=days, help=f"how long it lasts (default: {days})")
    under.add("ls", "list the keys, never their secrets", _ls)
    revoke = under.add("revoke", "refuse a key from now on, on every worker", _revoke)
    revoke.add_argument("id", help="the key's id, as `allod key ls` shows it")


def _create(args: argparse.Namespace, out: Out) -> int:
    body = {"project": args.project, "role": args.role, "label": args.label, "lifetime_days": args.days}
    made = Admin(home_of(args)).post("/admin/v1/keys", NewKey, body)
    out.result(made, [made.secret])
    until = day(made.key.expires_us)
    out.say(
        f"{made.key.role.value} of project {made.key.project}, until {until}. It is shown only now: keep it."
    )
    return 0


def _ls(args: argparse.Namespace, out: Out) -> int:
    keys = Admin(home_of(args)).get("/admin/v1/keys", list[KeyView])
    now = SystemClock().now_us()
    rows = [
        (k.key_id, k.role.value, k.organisation, k.project, _state(k, now), day(k.expires_us), k.label)
        for k in keys
    ]
    header = ("KEY", "ROLE", "ORGANISATION", "PROJECT", "STATE", "EXPIRES", "LABEL")
    out.result({"keys": keys}, table(header, rows))
    if not keys:
        out.say("no keys yet: allod key create")
    return 0


def _revoke(args: argparse.Namespace, out: Out) -> int:
    key = Admin(home_of(args)).delete(f"/admin/v1/keys/{segment(args.id)}", KeyView)
    out.result(key, [f"{key.key_id} is revoked: every worker refuses it now"])
    return 0


def _state(key: KeyView, now_us: int) -> str:
    if key.revoked_us is not None:
        return "revoked"
    return "expired" if key.expires_us <= now_us else "valid"
