"""From the configuration to what has to run and what the fronts may offer.

A service that cannot be served (no such model, changed bytes, engine not installed) does not stop the others:
it is left out of the snapshot, and its reason is shown wherever the service would have been.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from allod import __version__, digest
from allod.config import Config, EmbeddingsService, Home, LlmService, OcrService, Service, VllmService
from allod.engines.launch import LaunchSpec
from allod.engines.llm.spec import context_of, llm_spec, threads_for
from allod.engines.ocr.identity import ocr_identity
from allod.engines.ocr.spec import ocr_spec
from allod.engines.provider.config import ProviderConfig
from allod.engines.provider.spec import config_bytes, provider_spec
from allod.engines.vllm import Gpus, find_installation, vllm_spec
from allod.errors import AllodError, Usage
from allod.front.snapshot import ReplicaEntry, ServiceEntry
from allod.limits import ENGINE_CHOICES_MAX, MODEL_CONFIG_BYTES_MAX
from allod.models import fim, instructions, papers, trust
from allod.models import store as models
from allod.models.fim import FimForm
from allod.models.manifest import ModelManifest
from allod.sites.load import LOCAL, RemoteSite


class Failed(msgspec.Struct, frozen=True):
    """A service of the configuration that could not be planned, or an egress process by its id; and why."""

    model: str
    kind: str
    error: AllodError


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`specs` is what the supervisor runs, `services` what the fronts know, `origins` who made it."""

    specs: tuple[LaunchSpec, ...]
    services: dict[str, ServiceEntry]
    origins: dict[str, str]
    fim: dict[str, FimForm]  # how a model fills gaps, for those that can
    vision: frozenset[str]  # models that understand images
    failed: tuple[Failed, ...]
    unreachable: tuple[Failed, ...]  # sites whose egress process cannot be started


def plan(config: Config, home: Home, remotes: Sequence[RemoteSite]) -> Plan:
    """Reads manifests, verifies model files, writes the egress processes' configuration; starts nothing."""
    building = _Building(config, home)
    for service in config.services:
        try:
            building.local(service)
        except AllodError as e:
            building.failed.append(Failed(service.model, service.kind, e))
    for remote in remotes:
        building.remote(remote)
    return Plan(
        specs=tuple(building.specs),
        services=building.services,
        origins=building.origins,
        fim=building.fim,
        vision=frozenset(building.vision),
        failed=tuple(building.failed),
        unreachable=tuple(building.unreachable),
    )


class _Building:
    def __init__(self, config: Config, home: Home) -> None:
        self._config = config
        self._home = home
        self._replicas = home.run / "replicas"
        self._cores = os.cpu_count() or 1
        self._computing = sum(s.replicas for s in config.services if isinstance(s, LlmService))
        self._instructions = instructions.Instructions(home.instructions)
        self.specs: list[LaunchSpec] = []
        self.services: dict[str, ServiceEntry] = {}
        self.origins: dict[str, str] = {}
        self.fim: dict[str, FimForm] = {}
        self.vision: set[str] = set()
        self.failed: list[Failed] = []
        self.unreachable: list[Failed] = []

    @cached_property
    def _trust(self) -> trust.Trust:
        return trust.load(self._home.trust)

    def _instruct(self, service: Service, folder: Path, manifest: ModelManifest) -> tuple[str, str]:
        """The system prompt of a service, and the digest of all that its model is told."""
        if isinstance(service, OcrService | EmbeddingsService):
            return "", ""
        if service.kind != "chat":
            if service.instructions:
                raise Usage("instructions.not-a-chat", f"{service.model} takes no conversation to instruct")
            return "", ""
        prompt = ""
        if service.instructions:
            four_eyes = self._config.instructions.four_eyes
            _, prompt = self._instructions.in_force(service.instructions, four_eyes=four_eyes)
        return prompt, self._instructions.keep(prompt, instructions.template_of(folder, manifest))

    def local(self, service: Service) -> None:
        manifest = None
        prompt, instructed = "", ""
        specs = []
        if isinstance(service, OcrService):
            identity = ocr_identity(languages=service.languages, rapidocr=service.rapidocr)
            origin = "; ".join(dict.fromkeys(identity.origins.values()))
            for number in range(service.replicas):
                id_ = f"{service.model}-{number}"
                specs.append(
                    ocr_spec(
                        id=id_,
                        run_dir=self._replicas / id_,
                        languages=service.languages,
                        rapidocr=service.rapidocr,
                        workers=service.threads or max(1, self._cores - 1),
                        service=service.model,
                        identity=identity,
                    )
                )
        else:
            folder, manifest = models.find(self._home.models, service.weights or service.model)
            papers.gate(folder, manifest, self._trust)
            prompt, instructed = self._instruct(service, folder, manifest)
            origin = describe_origin(manifest)
            if form := fim_form(manifest, folder):
                self.fim[service.model] = form
            if isinstance(service, VllmService) and sees_images(folder):
                self.vision.add(service.model)
            specs = [
                self._with_weights(service, number, folder, manifest) for number in range(service.replicas)
            ]
        watts = self._config.site.active_watts
        entries = tuple(_replica(spec, service.model, manifest, watts) for spec in specs)
        self.specs += specs
        self._add(
            ServiceEntry(
                model=service.model,
                kind=service.kind,
                replicas=entries,
                aliases=service.aliases + (manifest.aliases if manifest else ()),
                context_tokens=_context(service, manifest) if manifest else None,
                test_model=manifest.test_model if manifest else False,
                system_prompt=prompt,
                instructions={entry.id: instructed for entry in entries} if instructed else {},
            ),
            origin,
        )

    def _with_weights(
        self, service: Service, number: int, folder: Path, manifest: ModelManifest
    ) -> LaunchSpec:
        id_ = f"{service.model}-{number}"
        run_dir = self._replicas / id_
        if isinstance(service, VllmService):
            first = number * service.tensor_parallel  # each replica on GPUs of its own
            return vllm_spec(
                manifest,
                id=id_,
                folder=folder,
                run_dir=run_dir,
                gpus=Gpus(
                    numbers=tuple(range(first, first + service.tensor_parallel)),
                    memory_share=service.gpu_memory,
                ),
                installation=find_installation(tuple(shlex.split(service.program))),
                context_tokens=service.context_tokens,
                parallel=service.parallel,
            )
        assert isinstance(service, LlmService | EmbeddingsService)
        return llm_spec(
            manifest,
            id=id_,
            folder=folder,
            run_dir=run_dir,
            threads=service.threads or threads_for(self._cores, self._computing),
            context_tokens=service.context_tokens if isinstance(service, LlmService) else None,
            parallel=service.parallel if isinstance(service, LlmService) else 4,
        )

    def remote(self, remote: RemoteSite) -> None:
        """One egress process per site; each of its models is served through it."""
        name = remote.site.name
        id_ = f"{name}-egress"
        folder = self._replicas / id_
        provider = remote.provider
        egress = ProviderConfig(
            base_url=provider.base_url,
            api=provider.api,
            key=provider.key,
            models={m.name: m.upstream for m in provider.models},
        )
        config_path = _write_config(self._home.run / "egress" / name, config_bytes(egress))
        try:
            self.specs.append(
                provider_spec(
                    egress,
                    id=id_,
                    service=name,
                    run_dir=folder,
                    config_path=config_path,
                    environment=os.environ,
                )
            )
        except AllodError as e:
            # The policy still decides over the site, and says so; an allowed request then finds no replica.
            self.unreachable.append(Failed(id_, "egress", e))
        for model in provider.models:
            replica = ReplicaEntry(
                id=id_,
                site=name,
                socket=str(folder / "http.sock"),
                upstream_model=model.name,  # the egress process knows what the provider calls it
                engine=f"allod-egress {__version__}",
                engine_digest="",
                model_digest="",
                choices_max=ENGINE_CHOICES_MAX,
            )
            self._add(
                ServiceEntry(
                    model=model.name,
                    kind=model.kind,
                    replicas=(replica,),
                    context_tokens=model.context_tokens,
                    owned_by=name,
                ),
                f"as served by {remote.site.operator.value or name}; its provider does not prove which files",
            )

    def _add(self, service: ServiceEntry, origin: str) -> None:
        """A model that is served here and elsewhere is one service: this machine first."""
        known = self.services.get(service.model)
        if known is None:
            self.services[service.model] = service
            self.origins[service.model] = origin
        elif known.kind == service.kind:
            # The system prompt is the service's, wherever it runs; a provider's chat template is not known.
            told = self._instructions.keep(known.system_prompt, "")
            elsewhere = {r.id: told for r in service.replicas if r.site != LOCAL and told}
            self.services[service.model] = msgspec.structs.replace(
                known,
                replicas=known.replicas + service.replicas,
                instructions=known.instructions | service.instructions | elsewhere,
            )


def _write_config(folder: Path, content: bytes) -> Path:
    """The only file of `folder`, named by its content: a changed site is another command line, and so another
    process.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{digest.of(content).removeprefix('sha256:')[:16]}.json"
    for other in folder.iterdir():
        if other != path:
            other.unlink()
    path.write_bytes(content)
    return path


def _context(service: Service, manifest: ModelManifest) -> int | None:
    """What clients are told that the model takes: what its engine is started with."""
    if isinstance(service, VllmService):
        return service.context_tokens or manifest.context_tokens
    return context_of(manifest, service.context_tokens if isinstance(service, LlmService) else None)


def describe_origin(manifest: ModelManifest) -> str:
    """Who made a model, where, under which licence; unknown said as unknown."""
    origin = manifest.origin
    return f"{origin.maker} ({origin.country}), licence {manifest.licence}"


def fim_form(manifest: ModelManifest, folder: Path) -> FimForm | None:
    """What the manifest declares, else what the weights say."""
    if manifest.fim is not None or manifest.format != "gguf" or manifest.kind != "chat":
        return manifest.fim
    return fim.of_gguf(folder / manifest.weights)


def sees_images(folder: Path) -> bool:
    """Whether the model's own configuration (`config.json` of Transformers) has a vision part."""
    try:
        with (folder / "config.json").open("rb") as f:
            read = msgspec.json.decode(f.read(MODEL_CONFIG_BYTES_MAX))
    except (FileNotFoundError, msgspec.DecodeError, RecursionError):
        return False
    return isinstance(read, dict) and isinstance(read.get("vision_config"), dict)


def replica_names(services: dict[str, ServiceEntry]) -> dict[str, tuple[str, ...]]:
    """Site name -> the models it serves."""
    found: dict[str, list[str]] = {LOCAL: []}
    for service in services.values():
        for replica in service.replicas:
            names = found.setdefault(replica.site, [])
            if service.model not in names:
                names.append(service.model)
    return {site: tuple(names) for site, names in found.items()}


def _replica(
    spec: LaunchSpec, upstream: str, manifest: ModelManifest | None, watts: float | None
) -> ReplicaEntry:
    return ReplicaEntry(
        id=spec.id,
        site=LOCAL,
        socket=str(spec.socket),
        upstream_model=manifest.name if manifest else upstream,
        engine=spec.engine,
        engine_digest=spec.engine_digest,
        model_digest=spec.model_digest,
        quantisation=manifest.quantisation if manifest else "",
        active_watts=watts,
        choices_max=ENGINE_CHOICES_MAX if spec.engine.startswith("vllm ") else 1,
    )
