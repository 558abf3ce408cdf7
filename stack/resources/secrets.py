"""The secrets of an environment as Pulumi's resources; their values are never an output of the stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import pulumi
import pulumi_random as random

from stack.common.names import PROJECT
from stack.settings.environment import Environment
from stack.spec.rotation import IN_USE, PHASES, SLOTTED, label, slots
from stack.spec.secrets import (
    GENERATED,
    KEPT_FORMS,
    KEPT_MARKS,
    KEPT_ORIGINS,
    OPENS_WHAT_IS_KEPT,
    WEB_PASSWORDS,
    bcrypt_of,
    kept_forms,
    kept_origins,
    mark_of,
    secret_names,
)

TYPE = "samokoder:platform:Secrets"


@dataclass(frozen=True, kw_only=True)
class SecretsArgs:
    """The environment, which decides which secrets there are."""

    environment: Environment


class Secrets(pulumi.ComponentResource):
    """The secrets of one environment. `values`: name of a secret or a slot -> its value, as a secret Output."""

    values: Mapping[str, pulumi.Output[str]]
    generated: list[pulumi.Resource]
    """The generated secrets. Data volumes depend on them, so that `destroy --exclude-protected` keeps both."""

    def __init__(self, name: str, args: SecretsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        environment = args.environment
        config = pulumi.Config(PROJECT)
        values: dict[str, pulumi.Output[str]] = {}
        in_use: dict[str, str] = {}
        phases: dict[str, str] = {}
        marks: dict[str, pulumi.Output[str]] = {}
        self.generated = []
        used = secret_names(environment)
        for secret in sorted({*used, *OPENS_WHAT_IS_KEPT}):
            generated = GENERATED.get(secret)
            key = generated.configured if generated else secret
            configured = generated is None or key in environment.configured_secrets
            if configured and secret in used:
                values[secret] = config.require_secret(key)
                if generated:
                    marks[label(secret)] = values[secret].apply(partial(mark_of, secret))
            if generated is None or (configured and secret not in OPENS_WHAT_IS_KEPT):
                continue
            generations = {secret: getattr(environment.settings.rotation, secret) if generated.rotates else 1}
            if secret in SLOTTED:
                both = slots(environment, secret)
                generations = dict(both.generations)
                in_use[label(secret)] = label(both.in_use)
                if phase := getattr(environment.settings.rotating, secret):
                    phases[label(secret)] = phase
            for slot, generation in sorted(generations.items()):
                password = random.RandomPassword(
                    f"{name}-{label(slot)}",
                    length=generated.length,
                    special=False,
                    keepers={"generation": str(generation)},
                    opts=pulumi.ResourceOptions(parent=self, protect=secret in OPENS_WHAT_IS_KEPT),
                )
                self.generated.append(password)
                if configured or secret not in used:
                    continue
                values[slot] = password.result
                if secret in WEB_PASSWORDS:
                    # pulumi-random keeps this hash in the state; a hash made here would change with each run's salt.
                    values[bcrypt_of(secret)] = password.bcrypt_hash
        self.values = values
        # `make password` and the checks before an `up` read these outputs, because they read only the state.
        self.register_outputs(
            {
                IN_USE: in_use,
                PHASES: phases,
                KEPT_ORIGINS: kept_origins(environment),
                KEPT_FORMS: kept_forms(environment),
                KEPT_MARKS: marks,
            }
        )
