"""The one table of public error texts: stable code, category, what was wrong, what to do.

Fields in braces are filled with names, limits and positions that the reader wrote or may know, never with a data
value. Codes are never reused or renamed. The exceptions that carry them stand in ``errors``, French texts in
``catalogue_fr``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Category = Literal["sql", "legal", "parameter", "budget", "access", "config", "unavailable", "execution", "integrity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One stable code: its category, what was wrong, and what to do."""

    category: Category
    text: str
    remedy: str


_ROWS: tuple[tuple[str, Category, str, str], ...] = (
    # the SQL
    ("INSITU-SQL-SYNTAX", "sql", "the SQL does not parse: {reason}", "Correct it at the mark."),
    ("INSITU-SQL-TOO-LONG", "sql", "the SQL is longer than {limit}", "Send a shorter query."),
    (
        "INSITU-SQL-TOO-MANY-ROWS",
        "sql",
        "the answer has more than {limit}",
        "Add a LIMIT, or join released results on their keys.",
    ),
    ("INSITU-SQL-TOO-DEEP", "sql", "the SQL is nested deeper than {limit} levels", "Flatten the query."),
    ("INSITU-SQL-NOT-ONE", "sql", "expected one statement, found {count}", "Send one SELECT at a time."),
    ("INSITU-SQL-NOT-SELECT", "sql", "{kind} is not a query", "Write a SELECT."),
    ("INSITU-SQL-UNKNOWN-DIALECT", "sql", "unknown SQL dialect {name}", "Use one of: {known}."),
    ("INSITU-SQL-UNKNOWN-TABLE", "sql", "no table {name} in this dataset", "Tables are: {known}."),
    ("INSITU-SQL-UNKNOWN-COLUMN", "sql", "no column {name} here", "Columns are: {known}."),
    (
        "INSITU-SQL-AMBIGUOUS-COLUMN",
        "sql",
        "column {name} stands in more than one table",
        "Put the table's name before it.",
    ),
    (
        "INSITU-SQL-FORBIDDEN-FUNCTION",
        "sql",
        "function {name} is not on the list of functions that may reach a database",
        "Use the functions listed in docs/sql.md.",
    ),
    ("INSITU-SQL-FORBIDDEN-CONSTRUCT", "sql", "{name} is not supported", "{hint}"),
    ("INSITU-SQL-ROW-OUTPUT", "sql", "this would return rows of persons", "Select aggregates and group keys only."),
    (
        "INSITU-SQL-GROUP-BY-UNIT",
        "sql",
        "grouping by {name} would return one row per person or per entity",
        "Group by something that many persons share, or count persons with {count}.",
    ),
    (
        "INSITU-SQL-UNGROUPED",
        "sql",
        "{name} is neither aggregated nor a group key",
        "Add it to GROUP BY or aggregate it.",
    ),
    (
        "INSITU-SQL-JOIN",
        "sql",
        "this join of protected tables is not on the privacy unit or an entity key",
        "Join on {hint}.",
    ),
    (
        "INSITU-SQL-JOIN-PUBLIC",
        "sql",
        "nothing ties public table {name} to the rows it is joined to",
        "Join on equality of {hint}.",
    ),
    (
        "INSITU-SQL-JOIN-KIND",
        "sql",
        "{name} joins are not supported",
        "Use JOIN or LEFT JOIN, from persons' rows to other tables.",
    ),
    (
        "INSITU-SQL-NO-PROTECTED",
        "sql",
        "the query reads no table",
        "Name a table of the dataset in FROM.",
    ),
    ("INSITU-SQL-AGGREGATE", "sql", "{name} is not available as a differentially private aggregate", "{hint}"),
    (
        "INSITU-SQL-UNBOUNDED",
        "sql",
        "the values of {name} have no public bounds",
        "Bound them in SQL, for example {hint}.",
    ),
    ("INSITU-SQL-NOT-TOTAL", "sql", "{name} can fail on some rows", "{hint}"),
    ("INSITU-SQL-TYPE", "sql", "{name} does not apply to {type}", "{hint}"),
    # the dataset's legal rules
    (
        "INSITU-LEGAL-IDENTIFIERS",
        "legal",
        "the query uses {count} potential identifiers together, and this dataset allows {limit}: {what}",
        "Leave one out, or use it more coarsely where that is none: the year or the month of a date, ranges that begin "
        "and end with these, the year of birth alone. Name the columns that you need: * and ORDER BY use all.",
    ),
    (
        "INSITU-LEGAL-NEVER-RELEASED",
        "legal",
        "column {name} is never released: an answer may not be grouped by it, nor hold sums, averages, quantiles or "
        "extremes of it, nor of a column that a condition ties to it",
        "Use it only in conditions with literals: in WHERE, ON, FILTER.",
    ),
    # parameters of a request
    (
        "INSITU-PARAM-EPSILON",
        "parameter",
        "epsilon must be a number from 1e-9 to 1e30, not {value}",
        "Pass --epsilon 1.",
    ),
    (
        "INSITU-PARAM-DELTA",
        "parameter",
        "delta must be 0 or from 1e-30 to below 1, not {value}",
        "Pass --delta 1e-7.",
    ),
    (
        "INSITU-PARAM-DELTA-NEEDED",
        "parameter",
        "this plan needs a delta above zero: {reason}",
        "Pass --delta 1e-7, or group by columns with public values.",
    ),
    (
        "INSITU-PARAM-BOUND",
        "parameter",
        "{name} must be a whole number from 1 to {limit}, not {value}",
        "Pass a value in that range.",
    ),
    (
        "INSITU-PARAM-BOUND-NEEDED",
        "parameter",
        "table {name} declares no contribution bounds",
        "Pass --max-rows-per-group and --max-groups.",
    ),
    (
        "INSITU-PARAM-FITS",
        "parameter",
        "the bounds that the request names for its releases are not those of this query",
        "Ask again; with the same SDK at the node and here they agree.",
    ),
    (
        "INSITU-PARAM-MECHANISM",
        "parameter",
        "mechanism {value} is not possible here: {reason}",
        "Use --mechanism auto.",
    ),
    ("INSITU-PARAM-ACCURACY", "parameter", "{reason}", "{hint}"),
    (
        "INSITU-PARAM-IMPROVE",
        "parameter",
        "there is no improvement {name}",
        "Improvements are: {known}; several are parted by commas.",
    ),
    ("INSITU-PARAM-NODES", "parameter", "{reason}", "Nodes of this grant are: {known}."),
    ("INSITU-PARAM-DATASET", "parameter", "{reason}", "Pass --dataset with one of: {known}."),
    (
        "INSITU-PARAM-TIMEOUT",
        "parameter",
        "the timeout must be from 1 to {limit} seconds, not {value}",
        "Pass --timeout 60.",
    ),
    # the privacy budget
    (
        "INSITU-BUDGET-EXCEEDED",
        "budget",
        "this query costs more than what is left of the grant's budget",
        "See `insitu budget`; ask with a smaller --epsilon or --delta, or ask the access authority for more.",
    ),
    (
        "INSITU-PROFILE-BUDGET",
        "budget",
        "this costs more than what is left of the budget for profiles of dataset {name}",
        "See `insitu-node ledger`; pass a smaller --epsilon, or raise profile_epsilon under [datasets.{name}] in "
        "node.toml: it is what profiles may cost each person in all, over all versions of the dataset.",
    ),
    (
        "INSITU-PROFILE-NONE",
        "budget",
        "no profile of dataset {name} may be made here: its custodian has set no budget for it",
        "Write profile_epsilon = 1.0 under [datasets.{name}] in node.toml: what profiles may cost each person in all.",
    ),
    (
        "INSITU-PROFILE-AGAIN",
        "budget",
        "dataset {name} was charged for a profile of this version before: {reason}",
        "Pass --refresh to be charged again.",
    ),
    # the chain of trust, as a node's admission checks it
    ("INSITU-ACCESS-MANIFEST", "access", "no valid manifest: {reason}", "Ask the access authority for a new one."),
    (
        "INSITU-ACCESS-MANIFEST-OLD",
        "access",
        "manifest version {version} is older than version {known}, seen before",
        "Fetch the current manifest; if the gateway keeps sending this one, tell the access authority.",
    ),
    (
        "INSITU-ACCESS-SIGNATURE",
        "access",
        "the signature of the {what} does not verify",
        "Use the key that it was issued for.",
    ),
    ("INSITU-ACCESS-MALFORMED", "access", "the {what} is malformed: {reason}", "Have it issued again."),
    (
        "INSITU-ACCESS-GRANT-EXPIRED",
        "access",
        "the grant is not valid now: it runs from {start} to {end}",
        "Ask the access authority for a new grant.",
    ),
    ("INSITU-ACCESS-GRANT-REVOKED", "access", "the grant has been revoked", "Ask the access authority."),
    (
        "INSITU-ACCESS-GRANT-SUSPENDED",
        "access",
        "the grant is suspended",
        "Ask the access authority when it takes up again.",
    ),
    (
        "INSITU-ACCESS-GRANT-AMENDED",
        "access",
        "revision {version} of the grant was replaced by revision {known}",
        "Ask the access authority for the newest one and connect with it.",
    ),
    (
        "INSITU-ACCESS-RESULTS",
        "access",
        "the grant does not allow results of this kind: {kind}",
        "Ask for {known}, or ask the access authority to amend the grant.",
    ),
    (
        "INSITU-ACCESS-MIN-NODES",
        "access",
        "the grant asks for answers of at least {needed} nodes, and the request for {asked}",
        "Name more nodes, and leave --min-nodes at {needed} or above.",
    ),
    (
        "INSITU-ACCESS-NOT-GRANTED",
        "access",
        "the grant does not cover {what}",
        "Ask the access authority for a grant that does, or leave it out.",
    ),
    (
        "INSITU-ACCESS-PURPOSE",
        "access",
        "dataset {name} may not be used for the purpose of this grant: {what}",
        "It may be used for: {known}. Ask the access authority for a grant with one of these purposes.",
    ),
    (
        "INSITU-ACCESS-WRONG-KEY",
        "access",
        "the request is not signed by a key of this grant",
        "Sign with the key that the grant names.",
    ),
    ("INSITU-ACCESS-WRONG-NODE", "access", "the request is not addressed to this node", "Send it to its nodes."),
    (
        "INSITU-ACCESS-STALE",
        "access",
        "the request is past its deadline or dated in the future",
        "Set the clock right and ask again.",
    ),
    (
        "INSITU-ACCESS-REPLAY",
        "access",
        "this request id was used before for another request",
        "Ask again with a new request id.",
    ),
    (
        "INSITU-ACCESS-DATASET",
        "access",
        "dataset {name} here is not the one the request was planned for",
        "Fetch the catalog again; if it stays so, the custodian's copy differs from the manifest.",
    ),
    (
        "INSITU-ACCESS-PLAN",
        "access",
        "the plan made here differs from the one that was signed",
        "Use the same version of insitu as the nodes; fetch the catalog again.",
    ),
    (
        "INSITU-ACCESS-PEER",
        "access",
        "the peer's certificate does not name a known party",
        "Have the authority issue a certificate and publish a manifest that lists it.",
    ),
    (
        "INSITU-TRUST-JURISDICTION",
        "access",
        "gateway {name} is not accepted here: {reason}",
        "Use a gateway within these jurisdictions; the access authority names them in the manifest, and the country in "
        "the certificate.",
    ),
    # what a custodian decides
    (
        "INSITU-NODE-APPROVAL",
        "access",
        "this project waits for the custodian's approval",
        "The custodian sees it in `insitu-node projects list`; ask again once it is approved.",
    ),
    (
        "INSITU-NODE-DENIED",
        "access",
        "the custodian has denied this project",
        "Ask the custodian; other nodes may still answer.",
    ),
    (
        "INSITU-NODE-WITHDRAWN",
        "access",
        "the custodian has withdrawn the approval of this project",
        "Ask the custodian; what was released before stays valid.",
    ),
    (
        "INSITU-NODE-HALTED",
        "access",
        "the custodian has halted this node",
        "Ask again later; nothing was spent.",
    ),
    (
        "INSITU-NODE-QUIET",
        "access",
        "this node does not answer now: quiet hours from {start} to {end}",
        "Ask again after {end}; nothing was spent.",
    ),
    (
        "INSITU-NODE-RATE",
        "access",
        "this project has asked {limit} new queries in the last hour, which is as many as this node takes",
        "Ask again later; queries that were answered before are given again without limit.",
    ),
    # files and command lines
    ("INSITU-CONFIG-FILE", "config", "cannot read {path}: {reason}", "Correct the path or its permissions."),
    ("INSITU-CONFIG-INVALID", "config", "{path} is not valid: {reason}", "Correct the file."),
    ("INSITU-CONFIG-USAGE", "config", "{reason}", "{hint}"),
    (
        "INSITU-CONFIG-DATABASE",
        "config",
        "the database of dataset {name} does not fit its contract: {reason}",
        "Correct the mapping in the node's configuration, then run `insitu-node check`.",
    ),
    ("INSITU-CONFIG-STATE", "config", "{reason}", "{hint}"),
    # keys and how they change hands
    (
        "INSITU-KEY-LOCKED",
        "config",
        "{path} is under a passphrase, and there is no terminal to ask for it",
        "Put it in a file of mode 0600 and set INSITU_PASSPHRASE_FILE to its path.",
    ),
    ("INSITU-KEY-PASSPHRASE", "config", "the passphrase does not open {path}", "Try again."),
    (
        "INSITU-KEY-ENROLMENT",
        "access",
        "the {what} is refused: {reason}",
        "Ask the access authority for a new invitation; if somebody else used this one, tell them so.",
    ),
    (
        "INSITU-KEY-FINGERPRINT",
        "access",
        "the {what} has the thumbprint {name}, which is not the one that was confirmed",
        "Do not go on: compare thumbprints with the other side by telephone.",
    ),
    # other parties
    (
        "INSITU-GATEWAY-UNREACHABLE",
        "unavailable",
        "no gateway answers at {address}",
        "Check the address and the network, then ask again.",
    ),
    (
        "INSITU-GATEWAY-FAILED",
        "unavailable",
        "the gateway failed: {reason}",
        "Ask again; the same request is charged once.",
    ),
    (
        "INSITU-NODE-ABSENT",
        "unavailable",
        "the node is not connected or did not answer in time",
        "Ask again later; the same request is charged once.",
    ),
    (
        "INSITU-NODES-TOO-FEW",
        "unavailable",
        "{released} of {asked} nodes answered, {needed} are needed",
        "See the nodes' own codes. Those that answered have charged it and give it again for nothing: ask again later, "
        "or accept fewer with --min-nodes {released}.",
    ),
    (
        "INSITU-NODE-TABLE",
        "unavailable",
        "this node does not serve table {name}",
        "Ask the other nodes with --nodes, or leave the table out.",
    ),
    ("INSITU-NODE-BUSY", "unavailable", "the node has too many requests waiting", "Ask again later."),
    (
        "INSITU-NODE-DATABASE",
        "unavailable",
        "the node cannot reach its database",
        "Ask again later; nothing was spent.",
    ),
    ("INSITU-NODE-STOPPED", "unavailable", "the node is stopping", "Ask again later."),
    ("INSITU-REQUEST-UNKNOWN", "unavailable", "no such request is known here", "Check the request id."),
    # after private data was read: constant, so that it is not a channel
    ("INSITU-NODE-FAILED", "execution", "the query failed at the node", "The custodian's log says more."),
    # what others signed
    (
        "INSITU-VERIFY-RELEASE",
        "integrity",
        "the release of node {node} does not verify: {reason}",
        "Do not use this answer; tell the custodian and the access authority.",
    ),
    (
        "INSITU-VERIFY-RESULT",
        "integrity",
        "the result does not follow from the nodes' releases: {reason}",
        "Do not use this answer; tell the access authority.",
    ),
    (
        "INSITU-AUDIT-BROKEN",
        "integrity",
        "the audit log {path} does not verify: {reason}",
        "Keep it unchanged as evidence and see docs/operating/audit.md; a log that was broken is not continued.",
    ),
    ("INSITU-MECHANISM-CLAIM", "execution", "the query failed at the node", "The custodian's log says more."),
)

CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    {code: Entry(category=category, text=text, remedy=remedy) for code, category, text, remedy in _ROWS}
)
