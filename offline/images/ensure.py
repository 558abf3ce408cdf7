"""Return local images for those that a container registry would give, and build what the engine has not."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import docker
import docker.types

from host.engine import connect
from host.errors import EngineError
from host.progress import Reporter, about
from offline import toolchain
from offline.errors import OfflineError
from offline.images.builder import POLL_SECONDS, Builder
from offline.images.estimates import expected, together
from offline.images.grafana import NO_GRAFANA
from offline.images.recipes import NAMES, RECIPES, programs_of
from offline.pulumi_cli import PROGRAMS_OF_PULUMI, ensure_pulumi


@dataclass(frozen=True)
class OfflineImages:
    """The result of `ensure_images`."""

    ids: dict[str, str] = field(default_factory=dict)
    """Name -> local image id (`sha256:…`)."""
    unavailable: dict[str, str] = field(default_factory=dict)
    """Name -> why there is none."""


def ensure_images(
    names: Iterable[str],
    *,
    cache: Path,
    docker_host: str,
    progress: Reporter,
    pulumi: bool = False,
) -> OfflineImages:
    """Return local image ids for `names` (of NAMES), building what the engine does not have yet.

    `cache` is the product's cache folder. pulumi: Pulumi is built meanwhile; it takes the longest, so it comes first.
    Two runs at once wait for each other; an interrupted one resumes where it was. Raises OfflineError when one cannot
    be built.
    """
    wanted = list(dict.fromkeys(names))
    if unknown := sorted(set(wanted) - set(NAMES)):
        raise OfflineError(f"No such offline image: {', '.join(unknown)}. There are: {', '.join(NAMES)}.")
    try:
        with contextlib.closing(connect(docker_host, timeout=None)) as client:
            return _ensure(wanted, client=client, cache=cache, progress=progress, pulumi=pulumi)
    except (EngineError, docker.errors.DockerException) as error:
        raise OfflineError(f"Images: {error}") from error


def _ensure(
    wanted: Sequence[str], *, client: docker.DockerClient, cache: Path, progress: Reporter, pulumi: bool = False
) -> OfflineImages:
    programs = [*(PROGRAMS_OF_PULUMI if pulumi else ())]
    programs += [source for name in wanted if name in RECIPES for source in programs_of(name)]
    stopped = threading.Event()
    built: dict[str, Path] = {}
    builder = Builder(client=client, cache=cache, progress=progress)
    there = toolchain.there(programs, cache=cache)
    unbuilt = [name for name in dict.fromkeys(programs) if name not in there]
    things = expected([*unbuilt, *builder.missing(wanted, there)])
    if things:
        progress.say(
            f"Building {len(things)} things from package registries, {about(together(things))} on a quiet machine. "
            "They are kept: the next time it takes seconds"
        )
    with (
        progress.plan(things, together=together(things)),
        concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool,
    ):
        # The compiler and the package downloads hardly get in each other's way.
        compiling = pool.submit(_programs, programs, cache, progress, stopped, built)

        def check() -> None:
            if compiling.done():
                compiling.result()

        builder.check = check
        try:
            result = _images(wanted, builder, built)
            compiling.result()
            if pulumi:
                ensure_pulumi(cache=cache, progress=progress)
        finally:
            stopped.set()  # after a failure the compiler would run for minutes, and the message would wait for it
    return result


def _images(wanted: Sequence[str], builder: Builder, built: Mapping[str, Path]) -> OfflineImages:
    """Make the images, each as soon as its programs are there. built: grows meanwhile."""
    result = OfflineImages()
    waiting = sorted(wanted, key=lambda name: bool(name in RECIPES and RECIPES[name].programs))
    while waiting:
        name = next((each for each in waiting if programs_of(each) <= built.keys()), None)
        if name is None:
            builder.check()
            time.sleep(POLL_SECONDS)
            continue
        waiting.remove(name)
        image = builder.grafana() if name == "grafana" else builder.image(name, programs=built)
        if image is None:
            result.unavailable[name] = NO_GRAFANA
        else:
            result.ids[name] = image
    return result


def _programs(
    names: Sequence[str], cache: Path, progress: Reporter, stopped: threading.Event, built: dict[str, Path]
) -> None:
    """Build the Go programs; each one is in `built` as soon as it is there."""
    if names:
        toolchain.build(names, cache=cache, jobs=2, progress=progress, stopped=stopped, on_built=built.__setitem__)
