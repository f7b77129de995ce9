"""A receipt's statement in words: every field, what it says and what it means. Pure."""

from __future__ import annotations

import msgspec

from allod.console.i18n import N_, Catalogue
from allod.console.picture import usage_text
from allod.ledger.statement import Statement

# Words that reach a page as values (states, classes, roles…) and are translated there.
VOCABULARY = (
    *(N_("public"), N_("internal"), N_("confidential"), N_("restricted")),
    *(
        N_("personal"),
        N_("health"),
        N_("financial"),
        N_("biometric"),
        N_("criminal"),
        N_("children"),
        N_("secret"),
    ),
    *(N_("answered"), N_("refused"), N_("failed"), N_("cancelled"), N_("interrupted")),
    *(
        N_("starting"),
        N_("ready"),
        N_("unhealthy"),
        N_("stopped"),
        N_("ok"),
        N_("open-circuit"),
        N_("unknown"),
    ),
    *(N_("owner"), N_("admin"), N_("auditor"), N_("developer")),
    *(N_("chat"), N_("embed"), N_("ocr"), N_("egress")),
)


class Field(msgspec.Struct, frozen=True, kw_only=True):
    label: str
    value: str  # "" where the statement says nothing: shown as such, never left out
    meaning: str
    code: bool = False  # an identifier or digest: monospace, never translated


class Group(msgspec.Struct, frozen=True):
    title: str
    fields: tuple[Field, ...]


def explain(s: Statement, c: Catalogue) -> tuple[Group, ...]:
    """All fields of the statement, grouped by the question that they answer."""
    return (
        Group(c(N_("Who asked")), _who(s, c)),
        Group(c(N_("What was asked")), _what(s, c)),
        Group(c(N_("What the rules said")), _rules(s, c)),
        Group(c(N_("What answered")), _answered(s, c)),
        Group(c(N_("What it used")), _used(s, c)),
        Group(c(N_("What proves it")), _proves(s, c)),
    )


def _who(s: Statement, c: Catalogue) -> tuple[Field, ...]:
    return (
        Field(label=c(N_("Organisation")), value=s.organisation, meaning=c(N_("Who owns the project."))),
        Field(label=c(N_("Project")), value=s.project, meaning=c(N_("Whose key was used, and who pays."))),
        Field(
            label=c(N_("Key, sealed")),
            value=s.actor,
            code=True,
            meaning=c(
                N_(
                    "A commitment to the API key's name. It can be opened to show which key it was, "
                    "and tells nothing by itself."
                )
            ),
        ),
        Field(
            label=c(N_("Part of")),
            value=s.parent,
            code=True,
            meaning=c(N_("The receipt of the exchange that made this one, where there is one.")),
        ),
    )


def _what(s: Statement, c: Catalogue) -> tuple[Field, ...]:
    return (
        Field(label=c(N_("Model")), value=s.model, meaning=c(N_("The model that was asked for."))),
        Field(
            label=c(N_("Endpoint")),
            value=f"{s.endpoint} ({s.action})",
            code=True,
            meaning=c(N_("The address and the kind of use, as the rules saw it.")),
        ),
        Field(
            label=c(N_("Data class")),
            value=c(s.data_class),
            meaning=c(N_("How protected the data is, never lower than the project's floor.")),
        ),
        Field(
            label=c(N_("Categories")),
            value=", ".join(c(x) for x in s.categories),
            meaning=c(N_("Kinds of data with duties of their own, such as health data.")),
        ),
        Field(
            label=c(N_("Sampling")),
            value=", ".join(f"{k}={v}" for k, v in sorted(s.sampling.items()) if v),
            code=True,
            meaning=c(
                N_("The parameters under which the answer was drawn, with the seed where one was set.")
            ),
        ),
        Field(
            label=c(N_("Instructions")),
            value=s.instructions,
            code=True,
            meaning=c(
                N_(
                    "Digest of what the model was told beforehand: system prompt and chat template."
                    " `allod instructions show` prints both."
                )
            ),
        ),
        Field(
            label=c(N_("Request, sealed")),
            value=s.input,
            code=True,
            meaning=c(
                N_(
                    "A keyed commitment to the %(size)s received. Whoever holds the request and the record "
                    "key can show that it is this one."
                ),
                size=c.size(s.input_bytes),
            ),
        ),
    )


def _rules(s: Statement, c: Catalogue) -> tuple[Field, ...]:
    refused = "; ".join(f"{r.site}: {', '.join(r.rules)}" for r in s.refused)
    return (
        Field(
            label=c(N_("Decision")),
            value=c(N_("allowed")) if s.decision == "allow" else c(N_("refused")),
            meaning=c(N_("Only an allow without any error counts as an allow.")),
        ),
        Field(
            label=c(N_("Deciding rules")),
            value=", ".join(s.rules),
            code=True,
            meaning=c(N_("The rules that decided, by the names that they have in the policy.")),
        ),
        Field(
            label=c(N_("Sites refused")),
            value=refused,
            code=True,
            meaning=c(N_("Places that could have answered and were ruled out, each with its rules.")),
        ),
        Field(
            label=c(N_("Policy")),
            value=s.policy,
            code=True,
            meaning=c(N_("Digest of the whole policy text and its schema at that moment.")),
        ),
        Field(
            label=c(N_("Human review")),
            value=s.review,
            meaning=c(N_("Reference of a person's review, where one took place.")),
        ),
    )


def _answered(s: Statement, c: Catalogue) -> tuple[Field, ...]:
    tried = "; ".join(f"{a.replica} @ {a.site}: {a.outcome}" for a in s.attempts)
    return (
        Field(
            label=c(N_("Outcome")), value=f"{c(s.outcome)} (HTTP {s.status})", meaning=c(N_("How it ended."))
        ),
        Field(label=c(N_("Site")), value=s.site, meaning=c(N_("The place where the answer was made."))),
        Field(
            label=c(N_("Site facts")),
            value=s.site_facts,
            code=True,
            meaning=c(
                N_("Digest of everything that was known of the site at that moment, with sources and dates.")
            ),
        ),
        Field(
            label=c(N_("Replicas contacted")),
            value=tried,
            code=True,
            meaning=c(N_("Every copy that was really contacted, in order.")),
        ),
        Field(
            label=c(N_("Engine")),
            value=" ".join(filter(None, [s.engine, s.engine_digest])),
            code=True,
            meaning=c(N_("The program that ran the model, by name and digest.")),
        ),
        Field(
            label=c(N_("Model files")),
            value=" ".join(filter(None, [s.model_digest, s.quantisation])),
            code=True,
            meaning=c(N_("Digest of the very files that were loaded, and how they were compressed.")),
        ),
        Field(
            label=c(N_("Attestation")),
            value=s.attestation,
            code=True,
            meaning=c(N_("Digest of the evidence that the hardware offered of itself.")),
        ),
        Field(
            label=c(N_("Answer, sealed")),
            value=s.output,
            code=True,
            meaning=c(N_("A keyed commitment to the %(size)s sent."), size=c.size(s.output_bytes)),
        ),
        Field(
            label=c(N_("Watermark")),
            value=s.watermark,
            code=True,
            meaning=c(N_("Which key marked the answer as made by a machine.")),
        ),
    )


def _used(s: Statement, c: Catalogue) -> tuple[Field, ...]:
    energy = "" if s.energy.microjoules is None else f"{c.number(s.energy.microjoules / 1_000_000, 2)} J"
    return (
        Field(
            label=c(N_("Started")),
            value=c.moment(s.started_us),
            meaning=c(N_("When the first byte of the request arrived.")),
        ),
        Field(
            label=c(N_("Ended")),
            value=c.moment(s.ended_us),
            meaning=c(
                N_("%(duration)s later: the last moment before the receipt was written."),
                duration=c.duration(s.ended_us - s.started_us),
            ),
        ),
        Field(
            label=c(N_("Usage")),
            value=usage_text(s, c),
            meaning={
                "engine": c(N_("Counted by the engine itself.")),
                "estimated": c(N_("Estimated, because the engine did not say.")),
                "none": c(N_("Nothing was produced, or nothing could be counted.")),
            }[s.usage.source],
        ),
        Field(
            label=c(N_("Energy")),
            value=energy,
            meaning=c(
                N_("Method: %(method)s. An estimate is never shown as a measurement."), method=s.energy.method
            ),
        ),
    )


def _proves(s: Statement, c: Catalogue) -> tuple[Field, ...]:
    return (
        Field(
            label=c(N_("Receipt")),
            value=s.id,
            code=True,
            meaning=c(N_("The name of this record, in order of time.")),
        ),
        Field(
            label=c(N_("Ledger")),
            value=s.origin,
            code=True,
            meaning=c(N_("The ledger that holds it, by the name that signs its checkpoints.")),
        ),
        Field(
            label=c(N_("Record key")),
            value=s.key_check,
            code=True,
            meaning=c(
                N_(
                    "A check on the record key, which is kept outside the ledger. "
                    "Destroying that key is erasure."
                )
            ),
        ),
        Field(
            label=c(N_("Format")),
            value=s.v,
            code=True,
            meaning=c(N_("The version of this statement's format.")),
        ),
    )
