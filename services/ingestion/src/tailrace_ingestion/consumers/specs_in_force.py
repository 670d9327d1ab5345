"""The specs by which one log is checked: those that were in force at each offset, and newer ones from now on.

A newer revision takes effect with the first batch of the log that has events of its model. That is published, and
acknowledged, before anything of the batch is: see `domain/effects.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from tailrace_contracts.events import SpecTookEffect
from tailrace_contracts.ranges import Log
from tailrace_ingestion.domain.effects import SpecHistory
from tailrace_ingestion.domain.model import Model
from tailrace_ingestion.ports import Compile, PublishedEffects, Specs
from tailrace_runtime.clock import Clock
from tailrace_runtime.errors import DeliveryFailed, RetryLater
from tailrace_runtime.producer import Publisher
from tailrace_runtime.records import Outgoing, Record, outgoing

EFFECTS = "spec-effects"


class SpecEffects:
    """Where it is written down what took effect: read when a log is taken over, added to from then on."""

    def __init__(
        self, specs: Specs, compile_spec: Compile, published: PublishedEffects, publisher: Publisher, clock: Clock
    ) -> None:
        self.specs = specs
        self.compile = compile_spec
        self._published = published
        self._publisher = publisher
        self._clock = clock

    async def of_logs(self, logs: Collection[Log]) -> dict[Log, SpecsInForce]:
        """What is in force in each of these logs, as far as it is written down."""
        found: dict[Log, list[SpecTookEffect]] = {log: [] for log in logs}
        for effect in await self._published.all() if logs else ():
            found.get(Log(effect.topic, effect.partition), []).append(effect)
        return {log: SpecsInForce(log, self, effects) for log, effects in found.items()}

    async def announce(self, log: Log, models: Mapping[str, Model], offset: int) -> list[SpecTookEffect]:
        """Write down that these are in force from an offset of a log on. Raises RetryLater."""
        effects = [
            SpecTookEffect(
                model=name,
                spec_revision=model.shape.revision,
                topic=log.topic,
                partition=log.partition,
                from_offset=offset,
                spec=model.shape.spec,
                time=self._clock.now(),
            )
            for name, model in models.items()
        ]
        try:
            await self._publisher.send_all([_outgoing(effect) for effect in effects])
        except DeliveryFailed as error:
            raise RetryLater(str(error), 1.0) from error
        return effects


class SpecsInForce:
    """What is in force in one log."""

    def __init__(self, log: Log, effects: SpecEffects, published: Iterable[SpecTookEffect] = ()) -> None:
        self._log = log
        self._effects = effects
        self._specs = effects.specs
        self._history = SpecHistory(published)
        self._in_force: dict[str, Model] = {}

    def parts(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """The batch, in parts within which nothing changes."""
        places = self._history.cuts(records[0].offset, records[-1].offset)
        begin = 0
        for place in places:
            end = next(at for at, record in enumerate(records) if record.offset >= place)
            if end > begin:
                yield records[begin:end]
            begin = end
        yield records[begin:]

    async def of(self, names: Collection[str], offset: int) -> Mapping[str, Model]:
        """The models of these names that have a spec, as they are to be checked from this offset on.

        Raises RetryLater when a newer spec cannot be announced.
        """
        if not self._specs.models().keys() >= set(names):
            await self._specs.refresh()
        newer = {name: model for name in names if (model := self._newer(name, offset)) is not None}
        if newer:
            for effect in await self._effects.announce(self._log, newer, offset):
                self._history.add(effect)
            self._in_force |= newer
        return {name: self._in_force[name] for name in names if name in self._in_force}

    def _newer(self, name: str, offset: int) -> Model | None:
        """The revision that takes effect here; None where that of before goes on, which this finds too."""
        effect, adopt = self._history.at(name, offset)
        newest = self._specs.models().get(name)
        revision = effect.spec_revision if effect else 0
        if adopt and newest is not None and newest.shape.revision > revision:
            return newest
        if effect is None or (adopt and newest is None):
            self._in_force.pop(name, None)
        elif newest is not None and newest.shape.revision == revision:
            self._in_force[name] = newest
        elif name not in self._in_force or self._in_force[name].shape.revision != revision:
            self._in_force[name] = self._effects.compile(effect.spec, revision)
        return None


def _outgoing(effect: SpecTookEffect) -> Outgoing:
    place = f"{effect.topic}|{effect.partition}|{effect.model}|{effect.spec_revision}|{effect.from_offset}"
    return outgoing(effect, EFFECTS, place, event_id=place)
