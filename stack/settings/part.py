"""Settings that every part has, and those of a part with a port on the host."""

from __future__ import annotations

from pydantic import Field, model_validator

from stack.settings.types import Address, Cpus, MemoryMib, Model, Port, http_url


class Health(Model):
    """When a container counts as healthy, and how long an update waits for that."""

    interval_seconds: int = Field(
        5, ge=1, le=300, description="Time between two health checks, in seconds.", examples=[10]
    )
    timeout_seconds: int = Field(
        5, ge=1, le=300, description="A check that takes longer has failed, in seconds.", examples=[5]
    )
    retries: int = Field(
        6,
        ge=1,
        le=100,
        description="So many failed checks in a row make the container unhealthy.",
        examples=[6],
    )
    start_period_seconds: int = Field(
        10,
        ge=0,
        le=3600,
        description="Seconds after its start in which failed checks do not count.",
        examples=[30],
    )
    wait_timeout_seconds: int = Field(
        120,
        ge=1,
        le=7200,
        description="`pulumi up` waits so long for healthy before it fails, in seconds. "
        "Longer than startPeriodSeconds + intervalSeconds x retries.",
        examples=[180],
    )

    @model_validator(mode="after")
    def _wait_outlasts_the_checks(self) -> Health:
        slowest = self.start_period_seconds + self.interval_seconds * self.retries
        if self.wait_timeout_seconds <= slowest:
            raise ValueError(
                f"waitTimeoutSeconds is {self.wait_timeout_seconds}, but a container may need "
                f"startPeriodSeconds + intervalSeconds x retries = {slowest} seconds to become healthy; "
                f"write waitTimeoutSeconds: {slowest + 30}"
            )
        return self


class PartSettings(Model):
    """What every part of the stack has: limits and health."""

    memory_mib: MemoryMib = Field(64, description="Memory limit in MiB; there is no swap on top of it.", examples=[256])
    cpus: Cpus = Field(0.25, description="CPU limit in cores.", examples=[0.5])
    health: Health = Field(default_factory=Health, description="Health check timing.", examples=[{"retries": 10}])


class Published(PartSettings):
    """A part with a port on the host."""

    port: Port = Field(description="Port on the host.", examples=[8000])
    bind_address: Address = Field(
        "127.0.0.1",
        description="Address of the host that the port is bound to. Anything but loopback needs bindReason.",
        examples=["127.0.0.1"],
    )
    bind_reason: str = Field(
        "",
        description="Why the port is reachable from outside the host; required when bindAddress is not loopback.",
        examples=["behind the provider's load balancer"],
    )

    @property
    def url(self) -> str:
        """Address of the part for a person."""
        return http_url(self.bind_address, self.port)
