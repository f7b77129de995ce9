"""The configuration of a node: `<home>/allod.toml` as one strict schema, and the folders of its home."""

from allod.config.home import Home, write_default
from allod.config.read import load, parse
from allod.config.schema import (
    Config,
    DatabaseConfig,
    EmbeddingsService,
    LedgerConfig,
    LlmService,
    NodeConfig,
    OcrService,
    Service,
    SiteConfig,
    VllmService,
    WitnessConfig,
)

__all__ = [
    "Config",
    "DatabaseConfig",
    "EmbeddingsService",
    "Home",
    "LedgerConfig",
    "LlmService",
    "NodeConfig",
    "OcrService",
    "Service",
    "SiteConfig",
    "VllmService",
    "WitnessConfig",
    "load",
    "parse",
    "write_default",
]
