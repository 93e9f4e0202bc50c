"""The researcher's SDK: ``connect`` to a federation, then ``catalog``, ``explain``, ``query``, ``budget``.

A ``Federation`` keeps its connection, the verified manifest and grant, parsed datasets and the post-processor, so that
a query costs one round trip, or three with a first look. It may be shared between threads. Every answer is verified
(``verification``) and computed on this side; what the gateway computed is only compared with it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.errors import InsituError, IntegrityFailed, ParameterRefused
from insitu_privacy.language import language_of, speak

from insitu.accuracy import Most, Reach, least_epsilon, read_accuracy
from insitu.bounds import clipping
from insitu.budget import Budget, budget_of
from insitu.catalog import Catalog, catalog_of
from insitu.clipped import Profiled
from insitu.computing import LEVEL, compute, merged_answers, plain_rows
from insitu.data_profiles import DataProfiles
from insitu.datasets import Datasets
from insitu.exchange import Exchange, Exchanged
from insitu.explain import Explanation, expected, explain_plan
from insitu.looking import NOT_LOOKED, SHORT_OF, Looked
from insitu.looks_had import LooksHad
from insitu.marking import marking
from insitu.planned import Planned, plan_asked, plan_looked
from insitu.planning import Number, Options, choose_nodes, seconds, settle
from insitu.profile import Profile, believing, default_folder, read_profile
from insitu.progress import Progress, silent
from insitu.result import Evidence, FirstEvidence, Result
from insitu.signing import sign_budget, sign_query
from insitu.standing import Standing
from insitu.transport import GrpcTransport, Transport
from insitu.trust import Trusted
from insitu.verification import Answer, Sent, check_gateway_result, require

if TYPE_CHECKING:
    from insitu_access.data_profile import NodeProfile
    from insitu_access.manifest import DatasetEntry
    from insitu_privacy.data_profile import DataProfile
    from insitu_privacy.postprocess import Postprocessor

EXPLAIN_EPSILON = Fraction(1)
_BUDGET_TIMEOUT_S = 10.0
"""How long nodes may take to say what is left, where a query waits for it."""


def connect(profile: str | Path | None = None) -> Federation:
    """The federation of a profile folder, as ``insitu connect`` wrote it; None for the default profile.

    From then on errors are shown in the language of this process's environment.
    """
    speak(language_of(os.environ))
    found = read_profile(Path(profile).expanduser() if profile is not None else default_folder())
    return Federation(found, GrpcTransport(found.gateways, believing(found)))


def _now() -> datetime:
    return datetime.now(UTC)


class Federation:
    """A connection to one federation, with one grant. Close it, or use it in a ``with`` block."""

    def __init__(self, profile: Profile, transport: Transport, *, clock: Callable[[], datetime] = _now) -> None:
        self._profile = profile
        self._transport = transport
        self._clock = clock
        self._lock = threading.RLock()
        self._standing = Standing(profile, transport, clock)
        self._exchange = Exchange(transport, self._standing, clock)
        self._datasets = Datasets(profile.folder, transport)
        self._data_profiles = DataProfiles(profile.folder, transport)
        self._looks_had = LooksHad(profile.folder)
        self._shared_postprocessor: Postprocessor | None = None

    def __enter__(self) -> Federation:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the profile stays."""
        self._transport.close()
        with self._lock:
            if self._shared_postprocessor is not None:
                self._shared_postprocessor.close()
                self._shared_postprocessor = None

    # -- what a researcher does --------------------------------------------------------------------------------------

    def catalog(self, dataset: str | None = None) -> Catalog:
        """What the grant lets this researcher ask about: datasets, tables, columns, their public facts, and profiles.

        Fetches the manifest anew, so that a dataset which changed is seen at once.
        """
        trusted = self.refresh()
        return catalog_of(
            trusted.grant,
            trusted.manifest,
            lambda entry: self._datasets.of(entry)[0],
            dataset,
            profiles=lambda entry: self._profiles_of(entry, trusted),
        )

    def profiles(self, dataset: str | None = None) -> Mapping[str, NodeProfile]:
        """By node of the grant, the profile that it has released of a dataset: verified, public, and it spends nothing.

        A node that has released none, or whose profile a gateway withholds, is left out.
        """
        trusted = self._trust()
        options = Options(dataset=dataset, epsilon=EXPLAIN_EPSILON)
        name, now = self._profile.dataset, self._clock()
        asked = settle("", options, grant=trusted.grant, manifest=trusted.manifest, default_dataset=name, now=now)
        return self._profiles_of(asked.dataset, trusted)

    def explain(
        self,
        sql: str,
        *,
        epsilon: Number | None = None,
        accuracy: str | None = None,
        delta: Number | None = None,
        dataset: str | None = None,
        mechanism: str = "auto",
        max_rows_per_group: int | None = None,
        max_groups: int | None = None,
        nodes: Sequence[str] | None = None,
        min_nodes: int | None = None,
        timeout: float = 60.0,
        dialect: str = "duckdb",
        improve: Sequence[str] = (),
        first_look: bool = True,
    ) -> Explanation:
        """What the query would release, how accurate it would be and what it would cost. Spends nothing.

        It takes what a query takes; what is expected is foretold without ``improve``. With ``accuracy``, nodes that
        can be reached are asked what is left of the grant.
        """
        options = Options(
            dataset=dataset,
            epsilon=epsilon,
            accuracy=accuracy,
            delta=delta,
            mechanism=mechanism,
            max_rows_per_group=max_rows_per_group,
            max_groups=max_groups,
            nodes=nodes,
            min_nodes=min_nodes,
            timeout=timeout,
            dialect=dialect,
            improve=improve,
            first_look=first_look,
        )
        return self.explain_with(sql, options)

    def explain_with(self, sql: str, options: Options) -> Explanation:
        """``explain``, with its parameters as one value."""
        from insitu_privacy.improve import read_improvements

        with marking(sql):
            read_improvements(options.improve)
            chosen = self._chosen(sql, options)
            planned = self._plan(sql, chosen, EXPLAIN_EPSILON)
            return explain_plan(
                planned,
                self._postprocessor(),
                level=LEVEL,
                plan_at=lambda epsilon: self._plan(sql, replace(chosen, epsilon=epsilon), None),
            )

    def query(
        self,
        sql: str,
        *,
        epsilon: Number | None = None,
        accuracy: str | None = None,
        delta: Number | None = None,
        dataset: str | None = None,
        mechanism: str = "auto",
        max_rows_per_group: int | None = None,
        max_groups: int | None = None,
        nodes: Sequence[str] | None = None,
        min_nodes: int | None = None,
        timeout: float = 60.0,
        dialect: str = "duckdb",
        improve: Sequence[str] = (),
        first_look: bool = True,
        progress: Progress = silent,
    ) -> Result:
        """Ask the nodes. Every release is verified before anything is returned; raises InsituError.

        ``improve`` may hold ``non-negative`` and ``consistent``: post-processing that costs nothing, which the result
        says is on.
        """
        options = Options(
            dataset=dataset,
            epsilon=epsilon,
            accuracy=accuracy,
            delta=delta,
            mechanism=mechanism,
            max_rows_per_group=max_rows_per_group,
            max_groups=max_groups,
            nodes=nodes,
            min_nodes=min_nodes,
            timeout=timeout,
            dialect=dialect,
            improve=improve,
            first_look=first_look,
        )
        return self.query_with(sql, options, progress=progress)

    def query_with(self, sql: str, options: Options, *, progress: Progress = silent) -> Result:
        """``query``, with its parameters as one value."""
        from insitu_privacy.improve import read_improvements

        with marking(sql):
            improve = read_improvements(options.improve)
            planned = self._affordable(sql, self._chosen(sql, options))
            self._postprocessor().rehearse(planned.plan)  # while a mistake is still free
            started = self._clock()
            looked, planned = self._looked(planned, started, progress, options.accuracy)
            asked, plan, trusted = planned.asked, planned.plan, planned.trusted
            sent = sign_query(asked, plan, trusted, self._profile.identity, now=started)
            sent = replace(sent, improve=improve)
            if not plan.releases:
                return self._computed(sent, trusted, {}, (), self._datasets.of(asked.dataset)[1])
            found = self._exchange.ask(sent, trusted, progress)
            require(found.answers, asked.min_nodes)
            result = self._result(found, self._datasets.of(asked.dataset)[1])
            result = result if looked is None else looked.part_of(result)
            cut = clipping(plan, planned.outlooks, asked.nodes, self._postprocessor())
            warnings = (*planned.warnings, *result.warnings)
            return replace(result, clipping=cut, profiled=planned.profiled, warnings=warnings)

    def budget(
        self, *, nodes: Sequence[str] | None = None, timeout: float = 60.0, progress: Progress = silent
    ) -> Budget:
        """What each node says is spent and left of the grant."""
        trusted = self._trust()
        asked, identity = choose_nodes(nodes, trusted.grant), self._profile.identity
        sent = sign_budget(asked, seconds(timeout), trusted, identity, now=self._clock())
        found = self._exchange.ask(sent, trusted, progress)
        require(found.answers, 1)
        return budget_of(found.trusted.grant.id, found.answers)

    # -- trust -------------------------------------------------------------------------------------------------------

    def refresh(self) -> Trusted:
        """Fetch the manifest now; without a gateway, the last one seen serves while it is in force."""
        return self._standing.refresh()

    def _trust(self) -> Trusted:
        return self._standing.trust()

    def _profiles_of(self, entry: DatasetEntry, trusted: Trusted) -> Mapping[str, NodeProfile]:
        found = self._data_profiles.of(entry, trusted, now=self._clock())
        return {node: found[node] for node in trusted.grant.nodes if node in found}

    def _data_profile(self, entry: DatasetEntry, nodes: Sequence[str]) -> DataProfile | None:
        """What the nodes have released of their data together; None unless every one of them has."""
        return self._data_profiles.total(entry, nodes, self._trust(), now=self._clock())

    def _told(self, entry: DatasetEntry, nodes: Sequence[str]) -> tuple[DataProfile | None, Profiled]:
        total, found = self._data_profile(entry, nodes), self._profiles_of(entry, self._trust())
        return total, Profiled(nodes=tuple(nodes), without=tuple(node for node in nodes if node not in found))

    # -- one request -------------------------------------------------------------------------------------------------

    def _plan(self, sql: str, options: Options, default: Fraction | None) -> Planned:
        trusted = self._trust()
        asked = settle(
            sql,
            options,
            grant=trusted.grant,
            manifest=trusted.manifest,
            default_dataset=self._profile.dataset,
            default_epsilon=default,
            now=self._clock(),
        )
        profiles = partial(self._told, asked.dataset, asked.nodes)
        return plan_asked(asked, trusted, self._datasets.of(asked.dataset)[0], profiles)

    def _affordable(self, sql: str, options: Options) -> Planned:
        """The plan of a query: without a first look where not enough is left of the grant for both.

        Else the look would be paid for, and its query refused. A look that was answered before is free.
        """
        planned = self._priced(sql, options)
        look = planned.look
        if look is None:
            return planned
        had = self._looks_had.answered(planned.trusted.grant.id, look.plan.digest)
        if had.issuperset(look.asked.nodes):
            return planned
        timeout = min(planned.asked.timeout.total_seconds(), _BUDGET_TIMEOUT_S)
        try:
            left = self.budget(nodes=look.asked.nodes, timeout=timeout)
        except IntegrityFailed:
            raise
        except InsituError:  # the query itself says what is wrong
            return planned
        whole, rest = look.whole.parameters.epsilon, look.rest.epsilon
        needed = {node: rest if node in had else whole for node in look.asked.nodes}
        if left.covers(planned.asked.dataset.name, needed, planned.plan.loss.threshold_delta):
            return planned
        return replace(self._priced(sql, replace(options, first_look=False)), warnings=(NOT_LOOKED,))

    def _looked(
        self, planned: Planned, started: datetime, progress: Progress, accuracy: str | None
    ) -> tuple[Looked | None, Planned]:
        """The answer to the first look, where there is to be one, and the query planned by it: at all of the epsilon
        that is left, or as little of it as the accuracy takes that was asked for."""
        look = planned.look
        if look is None:
            return None, planned
        sent = sign_query(look.asked, look.plan, planned.trusted, self._profile.identity, now=started)
        found = self._exchange.ask(sent, planned.trusted, progress)
        found.delivered.gateway_result()  # to the end of what it sends; of histograms nothing is compared
        self._looks_had.add(planned.trusted.grant.id, look.plan.digest, found.released)
        require(found.answers, look.asked.min_nodes)
        looked = Looked(first=FirstEvidence(request=sent.token, outcomes=found.outcomes), answers=found.answers)
        at = partial(
            plan_looked,
            look,
            look.own_rows(merged_answers(look.plan, found.answers)),
            trusted=found.trusted,
            dataset=self._datasets.of(look.whole.dataset)[0],
            profiles=partial(self._told, look.whole.dataset, look.whole.nodes),
        )
        epsilon, most = look.rest.epsilon, Most(look.rest.epsilon)
        if accuracy is None:
            return looked, at(epsilon=epsilon)
        try:
            epsilon = least_epsilon(read_accuracy(accuracy), most, lambda some: self._reaches(at(epsilon=some)))
        except ParameterRefused:
            return looked, replace(at(epsilon=epsilon), warnings=(SHORT_OF.format(accuracy),))
        return looked, at(epsilon=epsilon)

    def _chosen(self, sql: str, options: Options) -> Options:
        """The options, with an epsilon for the accuracy that was asked for."""
        if options.accuracy is None:
            return options
        wanted = read_accuracy(options.accuracy)
        if options.epsilon is not None:
            raise ParameterRefused("INSITU-PARAM-ACCURACY", reason="epsilon was given too", hint="Give one of the two.")

        def columns_at(epsilon: Fraction) -> list[Reach]:
            return self._reaches(self._plan(sql, replace(options, epsilon=epsilon), None))

        first = self._plan(sql, options, EXPLAIN_EPSILON)
        if not first.plan.releases:
            return options
        return replace(options, epsilon=least_epsilon(wanted, self._most(first), columns_at))

    def _reaches(self, planned: Planned) -> list[Reach]:
        reach = expected(planned, self._postprocessor(), LEVEL)
        return [one for one, column in zip(reach, planned.plan.output, strict=True) if column.noisy]

    def _most(self, planned: Planned) -> Most:
        """What is left of the grant at the asked node that has least; all of it where none can be asked.

        Under zCDP what may yet be spent on one query is somewhat more than what is left by subtraction: nothing is
        promised here that a node would refuse. Nor is an answer that the nodes have given before, which is free.
        """
        asked, whole = planned.asked, Most(planned.trusted.grant.epsilon)
        timeout = min(asked.timeout.total_seconds(), _BUDGET_TIMEOUT_S)
        try:
            found = self.budget(nodes=asked.nodes, timeout=timeout).least_left(asked.dataset.name)
        except IntegrityFailed:
            raise
        except InsituError:  # the query itself says what is wrong, where anything is but the network
            return whole
        if found is None or found.epsilon_left >= whole.epsilon:
            return whole
        return Most(max(found.epsilon_left, Fraction(0)), found.node)

    def _priced(self, sql: str, options: Options) -> Planned:
        """The plan of a query. One over public tables alone costs nothing, and needs no epsilon."""
        if options.epsilon is None:
            planned = self._plan(sql, options, EXPLAIN_EPSILON)
            if not planned.plan.releases:
                return planned
        return self._plan(sql, options, None)

    def _result(self, found: Exchanged, bundle: DatasetBundle) -> Result:
        sent, answers = found.sent, found.answers
        result = self._computed(sent, found.trusted, found.outcomes, answers, bundle)
        theirs = found.delivered.gateway_result()
        if theirs is not None:
            rows = plain_rows(sent, answers, self._postprocessor()) if sent.improve else result.rows
            check_gateway_result(theirs, [column.name for column in result.columns], rows)
        return result

    def _computed(
        self,
        sent: Sent,
        trusted: Trusted,
        outcomes: Mapping[str, str],
        answers: Sequence[Answer],
        bundle: DatasetBundle,
    ) -> Result:
        evidence = Evidence(
            manifest=trusted.manifest_token,
            grant=trusted.grant_token,
            request=sent.token,
            outcomes=outcomes,
            bundle=bundle,
        )
        return compute(sent, answers, self._postprocessor(), evidence)

    def _postprocessor(self) -> Postprocessor:
        from insitu_privacy.postprocess import Postprocessor

        with self._lock:
            if self._shared_postprocessor is None:
                self._shared_postprocessor = Postprocessor()
            return self._shared_postprocessor
