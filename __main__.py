"""Samokoder and its monitoring, one environment for each stack: `pulumi up -s staging`."""

from __future__ import annotations

import gc
import sys

import pulumi
import pulumi_docker as docker

from stack.common.mistakes import InvalidSettingsError
from stack.outputs import of_kept_volumes, outputs, warnings
from stack.program import Stack, StackArgs
from stack.resources.configuration import environment_from_pulumi

# Pulumi makes thousands of small objects for each preview and drops hardly one: looking for garbage among them, as
# often as Python does by default, was a third of the program's time.
gc.set_threshold(100_000)

try:
    environment = environment_from_pulumi()
except InvalidSettingsError as mistakes:
    pulumi.log.error(str(mistakes))
    sys.exit(1)

for warning in warnings(environment):
    pulumi.log.warn(warning)

engine = docker.Provider("engine", host=environment.settings.docker_host)
stack = Stack(
    "samokoder",
    StackArgs(environment=environment),
    opts=pulumi.ResourceOptions(providers={"docker": engine}),
)

for warning in of_kept_volumes(environment, stack.specs):
    pulumi.log.warn(warning)

for name, value in outputs(environment, stack.specs).items():
    pulumi.export(name, value)

if pulumi.runtime.is_dry_run():
    # Pulumi looks at all of its outstanding Outputs, thousands, each time that one of them is ready: a fifth of the
    # program's time. An update does not wait here, because a failed one must have noted the outputs above.
    pulumi.run(stack.registered)
