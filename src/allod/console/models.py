"""A model's page: where it comes from, who vouches for it, and what it is told. Reads only."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from allod.console import lineage
from allod.console.i18n import N_
from allod.console.shell import Shell

# The sections of the Commission's template for the public summary of training content, in its order.
TRAINING = {
    "provider": N_("Provider"),
    "modalities": N_("Modalities"),
    "size": N_("Size"),
    "languages": N_("Languages"),
    "latest_data": N_("Newest data"),
    "public_datasets": N_("Publicly available datasets"),
    "licensed_datasets": N_("Datasets licensed from others"),
    "other_private_datasets": N_("Other private datasets"),
    "crawled": N_("Crawled and scraped data"),
    "user_data": N_("Data from users"),
    "synthetic": N_("Synthetic data"),
    "other_sources": N_("Other sources"),
    "rights_reservations": N_("Reservations of rights respected"),
    "illegal_content": N_("Removal of illegal content"),
}


class Models:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    async def card(self, request: Request) -> Response:
        """Everybody who may sign in may know what answers them. NotFound `model.not-found`."""
        session = await self._shell.signed_in(request)
        view = await self._shell.node.model_papers(request.path_params["name"])
        return self._shell.page(
            request,
            "model.html",
            session,
            view=view,
            picture=lineage.draw(view, self._shell.catalogue(request)),
            roles=lineage.ROLES,
            training=[(label, getattr(view.lineage.training, name)) for name, label in TRAINING.items()],
        )
