"""What PostgreSQL and Redis have in common: an exporter asks them, and its answer says whether they are down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stack.settings.environment import Environment
from tests.render.rule_cases.model import Case, Fires, Series, container, pair, stays

DOWN = "It does not answer its exporter: it is down, silent, out of reach, or refuses the exporter's login."
BROKEN = 10
"""Minute from which on the exporter is refused."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store as its exporter sees it. answered, silent: what the application measures while it answers, or does not.

    without: further states in which it does not answer the application, by what they are called.
    """

    alert: str
    summary: str
    part: str
    metric: str
    exporter: Mapping[str, str]
    answered: Series
    silent: Series
    without: Mapping[str, Series]
    besides: Mapping[str, Series]
    """Further states in which it answers the application."""

    def cases(self, environment: Environment, *, managed: bool) -> Iterator[Case]:
        """Yield the cases of its alert that it is down."""
        yield from self._seen()
        yield from self._refused()
        if managed:
            yield from self._silent()
        else:
            yield self._well(environment)

    def refused(self) -> Series:
        """Return what is measured where the exporter alone cannot log in, without what the application measures."""
        return {f"up{{{self._at}}}": stays(1), f"{self.metric}{{{self._at}}}": f"1+0x{BROKEN - 1} 0+0x50"}

    @property
    def _at(self) -> str:
        return ",".join(f'{name}="{value}"' for name, value in self.exporter.items())

    @property
    def _labels(self) -> Mapping[str, str]:
        return {"service": self.part, "severity": "critical", **self.exporter}

    @property
    def _fires(self) -> tuple[Fires]:
        return (Fires(labels=self._labels, summary=self.summary, description=DOWN),)

    def _seen(self) -> Iterator[Case]:
        up = {f"up{{{self._at}}}": stays(1)}
        yield from pair(
            self.alert,
            titles=(f"{self.metric} is 0", "it answers"),
            fires=up | {f"{self.metric}{{{self._at}}}": "1 0+0x9"},
            silent=up | {f"{self.metric}{{{self._at}}}": stays(1)},
            minute=4,
            labels=self._labels,
            summary=self.summary,
            description=DOWN,
        )
        labels = {name: value for name, value in self._labels.items() if name != "instance"}
        yield Case(
            alert=self.alert,
            title=f"the exporter answers and has no {self.metric}",
            series=up,
            minute=4,
            fires=(Fires(labels=labels, summary=self.summary, description=DOWN),),
        )
        yield Case(
            alert=self.alert,
            title="the exporter is down, and it says so",
            series={f"up{{{self._at}}}": stays(0), f"scrape_duration_seconds{{{self._at}}}": stays(0.01)},
            minute=4,
        )

    def _refused(self) -> Iterator[Case]:
        """Yield the cases of an exporter that is refused: it may not keep the application's alerts back for ever."""
        soon, late = BROKEN + 3, BROKEN + 20
        answers = self.refused() | self.answered
        yield Case(
            alert=self.alert, title="it is refused: told at first", series=answers, minute=soon, fires=self._fires
        )
        for title, series in {"the application is well": self.answered, **self.besides}.items():
            yield Case(
                alert=self.alert,
                title=f"the exporter alone is refused, for long, and {title}",
                series=self.refused() | series,
                minute=late,
            )
        for title, series in {"it answered nobody since": self.silent, **self.without}.items():
            for minute in (soon, BROKEN + 6, late):
                yield Case(
                    alert=self.alert,
                    title=f"{title}, after {minute - BROKEN} minutes",
                    series=self.refused() | series,
                    minute=minute,
                    fires=self._fires,
                )

    def _silent(self) -> Iterator[Case]:
        """Yield the cases of a managed server that takes the connection and says nothing."""
        late = {f"up{{{self._at}}}": stays(0), f"scrape_duration_seconds{{{self._at}}}": stays(10.001)}
        page = f'probe_success{{job="probe",service="{self.exporter["job"]}"}}'
        yield from pair(
            self.alert,
            titles=("it holds its exporter up until the scrape fails", "the exporter hangs, its own page too"),
            fires=late | {page: stays(1)},
            silent=late | {page: stays(0)},
            minute=4,
            labels=self._labels,
            summary=self.summary,
            description=DOWN,
        )

    def _well(self, environment: Environment) -> Case:
        """Return the case of a server whose own check passes while nobody can connect: it has no network, say."""
        return Case(
            alert=self.alert,
            title="its own check passes, and nobody else reaches it for long",
            series=self.refused() | self.silent | container(environment, self.part),
            minute=BROKEN + 20,
            fires=self._fires,
        )
