"""The console: server-rendered pages over `api.ports.NodePort`. Holds no rules, and no state but cookies.

Every page works without JavaScript; htmx only refreshes and replaces parts. No inline script or style exists,
so the content security policy allows none.
"""

from allod.console.app import console_app

__all__ = ["console_app"]
