"""The group's offsets as a sign to others: whose they are, and who may write them.

The metadata of each offset names the space, the term and the run that wrote it. Positions are
the manifest's, so the group decides nothing; but two daemons on one group would each move what
the dashboards of the other show, and of two that went on from copies of one state, one is wrong.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple, Self

import structlog

from state.offsets import Offsets, Partition
from streamer.errors import BrokerError
from streamer.sources.contract import Claim
from streamer.sources.kafka_cluster import Cluster, GroupOffset

log = structlog.get_logger()

_METADATA = re.compile(r"livevec space=(\S+) term=(\d+) run=(\S+)", re.ASCII)


class Writer(NamedTuple):
    """Who wrote an offset of the group.

    >>> Writer.parse(str(Writer("a1b2", 3, "c4")))
    Writer(space_id='a1b2', term=3, run='c4')
    """

    space_id: str
    term: int
    run: str

    def __str__(self) -> str:
        return f"livevec space={self.space_id} term={self.term} run={self.run}"

    @classmethod
    def parse(cls, metadata: str) -> Self | None:
        """Invert `str`; None for what livevec has not written."""
        match = _METADATA.fullmatch(metadata)
        return None if match is None else cls(match[1], int(match[2]), match[3])


class Group:
    """The offsets of one group under one claim.

    A foreign offset is one of another space, or of a run that is none of our directory's: that
    daemon lives, or its state was copied. What an earlier term of ours wrote is void, whenever it
    arrives, and is written over. An offset without a name of ours (an administrator's, a
    consumer's) is foreign to a fresh start only.
    """

    def __init__(self, cluster: Cluster, group_id: str, claim: Claim) -> None:
        self._cluster = cluster
        self._group_id = group_id
        self._claim = claim
        tenure = claim.tenure
        self._metadata = str(Writer(claim.space_id, tenure.term, tenure.run))
        self._accepted: dict[Partition, str] = {}
        self._has_told = False

    def begin(self, partitions: tuple[Partition, ...], *, take: bool) -> None:
        """Look who has written before us; with `take`, what is there now is accepted.

        Raises `BrokerError` for an offset that is foreign, `KafkaError`.
        """
        found = self._cluster.group(self._group_id, partitions)
        for partition, one in found.items():
            writer = Writer.parse(one.metadata)
            is_strange = self._claim.is_fresh and writer is None
            if not take and (is_strange or self._is_foreign(writer)):
                msg = (
                    f"{self._fault(partition, one)}; if nobody else uses the group any more, "
                    "start once with --take-group, else set source.kafka.group_id to another"
                )
                raise BrokerError(msg)
            self._accepted[partition] = one.metadata

    def commit(self, offsets: Offsets) -> None:
        """Commit `offsets` under our name, unless somebody else has written since.

        Raises `BrokerError` when one has, `Superseded` when our directory has a newer term,
        `KafkaError`.
        """
        self._claim.tenure.check()
        self._check(self._cluster.group(self._group_id, offsets))
        named = {p: GroupOffset(offset, self._metadata) for p, offset in offsets.items()}
        self._cluster.set_group(self._group_id, named)
        self._accepted = dict.fromkeys(offsets, self._metadata)

    def _check(self, found: Mapping[Partition, GroupOffset]) -> None:
        for partition, one in found.items():
            if one.metadata == self._accepted.get(partition):
                continue
            writer = Writer.parse(one.metadata)
            if self._is_foreign(writer):
                msg = f"{self._fault(partition, one)}; stop one of the two"
                raise BrokerError(msg)
            if writer is None and not self._has_told:
                self._has_told = True
                log.warning(
                    "group_offsets_moved_by_others",
                    group=self._group_id,
                    partition=str(partition),
                    offset=one.offset,
                    hint="positions are the manifest's: the group's offsets are written over",
                )

    def _is_foreign(self, writer: Writer | None) -> bool:
        if writer is None:
            return False
        is_ours = self._claim.tenure.wrote(writer.term, writer.run)
        return writer.space_id != self._claim.space_id or not is_ours

    def _fault(self, partition: Partition, found: GroupOffset) -> str:
        return (
            f"source.kafka.group_id: expected group {self._group_id!r} to be ours "
            f"({self._metadata}), found offset {found.offset} of {partition} written by "
            f"{found.metadata or 'somebody without a name'!r}: another daemon or consumer"
        )
