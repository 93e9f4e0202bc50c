"""Dataset contracts for the schemas of the query collection, made from their column types.

Public facts are plausible ones, as a data dictionary would give them: calendar bounds of dates, ranges of numbers.
Which columns are the privacy unit and the entity keys is what each schema's documentation says. A table that reaches
its person by no column of the same name has one here all the same: a custodian maps it to a SELECT that joins it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_privacy.dataset_file import parse_dataset

Types = Mapping[str, str]
Schema = Mapping[str, Types]

_TYPES = {"BIGINT": "integer", "INTEGER": "integer", "SMALLINT": "integer", "DOUBLE": "decimal", "DECIMAL": "decimal"}
_TYPES |= {
    "VARCHAR": "text",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP_S": "timestamp",
    "BOOLEAN": "boolean",
}
_FACTS = {
    "integer": "min = -1000000, max = 1000000",
    "decimal": "min = -1000000, max = 1000000",
    "date": "min = 1880-01-01, max = 2030-12-31",
    "timestamp": "min = 1880-01-01, max = 2030-12-31",
}
_NAMED = ((r"year", "min = 1880, max = 2030"), (r"month", "min = 1, max = 12"), (r"\bage\b", "min = 0, max = 120"))


@dataclass(slots=True, kw_only=True)
class Contract:
    """One table's part of a contract."""

    public: bool = False
    key: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()
    through: str | None = None
    on: tuple[str, ...] = ()
    entities: list[tuple[str, ...]] = field(default_factory=list)
    references: dict[str, str] = field(default_factory=dict)
    required: str = "(?!)"
    """A pattern of columns that are never NULL, as the schema's documentation says."""
    one_row: bool = False
    more: dict[str, str] = field(default_factory=dict)
    """Columns that the custodian's mapping adds."""


Rules = Callable[[str, Types, Schema], Contract]


def dataset(name: str, schema: Schema) -> Dataset:
    """The contract of a schema, parsed as any dataset file is."""
    rules = _RULES[name]
    parts = [f'[dataset]\nname = "{name.replace("_", "-")}"\nversion = 1\nmin_units = 0\n']
    files: dict[str, bytes] = {}
    for table, types in schema.items():
        contract = rules(table, types, schema)
        parts.append(_written(table, types, contract))
        if contract.public:  # as vocabularies are: the dataset carries them; here without rows
            files[f"{table}.csv"] = (",".join(types) + "\n").encode()
    return parse_dataset(DatasetBundle(toml="\n".join(parts).encode(), files=files))


def _written(table: str, types: Types, contract: Contract) -> str:
    lines = [f"[tables.{table}]"]
    if contract.public:
        lines += ["public = true", f'source = "{table}.csv"', f"key = {json.dumps(list(contract.key))}"]
    else:
        if contract.through is not None:
            lines.append(f'unit_path = {{ through = "{contract.through}", on = {json.dumps(list(contract.on))} }}')
        else:
            lines.append(f"unit = {json.dumps(list(contract.unit))}")
        if contract.entities:
            lines.append(f"entity_keys = {json.dumps([list(key) for key in contract.entities])}")
        lines.append("one_row_per_unit = true" if contract.one_row else "max_rows_per_group = 50\nmax_groups = 20")
    lines.append(f"[tables.{table}.columns]")
    for column, kind in {**types, **contract.more}.items():
        lines.append(f"{column} = {{ {_column(column, kind, contract)} }}")
    return "\n".join(lines) + "\n"


def _column(column: str, kind: str, contract: Contract) -> str:
    base = _TYPES[re.sub(r"\(.*", "", kind)]
    keys = {*contract.unit, *contract.on, *contract.key, *(name for key in contract.entities for name in key)}
    parts = [f'type = "{base}"']
    if column in contract.references:
        parts.append(f'references = "{contract.references[column]}"')
    elif column not in keys and not column.endswith("_id"):
        named = next((facts for pattern, facts in _NAMED if base == "integer" and re.search(pattern, column)), None)
        parts += [named or _FACTS[base]] if base in _FACTS else []
    if column not in keys and not re.fullmatch(contract.required, column):
        parts.append("nullable = true")
    return ", ".join(parts)


# -- OMOP ------------------------------------------------------------------------------------------------------------

_OMOP_KEYS = {
    "concept": ("concept_id",),
    "vocabulary": ("vocabulary_id",),
    "domain": ("domain_id",),
    "relationship": ("relationship_id",),
    "concept_class": ("concept_class_id",),
    "care_site": ("care_site_id",),
    "provider": ("provider_id",),
    "location": ("location_id",),
}
_OMOP_ONE_ROW = ("person", "death")
_OMOP_REQUIRED = (
    r"year_of_birth|[a-z_]+_start_date|(observation_period|payer_plan_period|drug_exposure|visit|visit_detail|[a-z]+_era)"
    r"_end_date|(death|measurement|procedure|observation|note|specimen)_date"
)
"""Of the Common Data Model's fields that are marked as required."""


def _omop(table: str, types: Types, schema: Schema) -> Contract:
    own = f"{table}_id"
    if table in ("cohort", "cohort_ts"):
        return Contract(unit=("subject_id",))
    if table == "note_nlp":
        return Contract(through="note", on=("note_id",))
    if "person_id" not in types and table != "cost":
        return Contract(public=True, key=_OMOP_KEYS.get(table, ()))
    contract = Contract(unit=("person_id",), one_row=table in _OMOP_ONE_ROW, required=_OMOP_REQUIRED)
    if "person_id" not in types:
        contract.more["person_id"] = "BIGINT"
    if own in types and own != "person_id":
        contract.entities.append((own,))
    if table == "cost":  # of a drug, as its cost_domain_id says
        contract.references["cost_event_id"] = "drug_exposure.drug_exposure_id"
    for other in ("visit_occurrence", "visit_detail", "note", "episode"):
        if other != table and f"{other}_id" in types:
            contract.references[f"{other}_id"] = f"{other}.{other}_id"
    return contract


# -- MIMIC and eICU --------------------------------------------------------------------------------------------------


def _mimic(table: str, types: Types, schema: Schema) -> Contract:
    if "subject_id" not in types:
        keys = {"d_items": ("itemid",), "d_labitems": ("itemid",), "caregivers": ("cgid",)}
        code = next((name for name in ("icd9_code", "icd_code") if name in types), None)
        return Contract(public=True, key=keys.get(table, (code,) if code else ()))
    contract = Contract(unit=("subject_id",), one_row=table == "patients")
    stay = "icustay_id" if "icustay_id" in schema.get("icustays", {}) else "stay_id"
    owners = {"hadm_id": "admissions", stay: "icustays"}
    for column, owner in owners.items():
        if column not in types:
            continue
        if table == owner:
            contract.entities.append((column,))
        else:
            contract.references[column] = f"{owner}.{column}"
    return contract


def _eicu(table: str, types: Types, schema: Schema) -> Contract:
    if table == "patient":
        return Contract(unit=("uniquepid",), entities=[("patientunitstayid",), ("patienthealthsystemstayid",)])
    if "uniquepid" in types:
        return Contract(unit=("uniquepid",), references=_stays(types))
    if "patientunitstayid" in types:
        return Contract(through="patient", on=("patientunitstayid",))
    return Contract(public=True, key=("hospitalid",) if table == "hospital" else ())


def _stays(types: Types) -> dict[str, str]:
    keys = ("patientunitstayid", "patienthealthsystemstayid")
    return {name: f"patient.{name}" for name in keys if name in types}


# -- SNDS ------------------------------------------------------------------------------------------------------------

_PERSON = ("ben_nir_psa", "ben_rng_gem")
_PERSON_IN_HOSPITAL = ("nir_ano_17", "rng_nai")
_LINE = (
    "flx_dis_dtd", "flx_trt_dtd", "flx_emt_typ", "flx_emt_num", "flx_emt_ord", "org_cle_num", "dct_ord_num",
    "prs_ord_num", "rem_typ_aff",
)  # fmt: skip
_STAYS = (("eta_num", "rsa_num"), ("eta_num", "seq_num"), ("eta_num_epmsi", "rhs_num"), ("eta_num_epmsi", "rip_num"),
          ("eta_num_epmsi", "had_num"), ("eta_num_epmsi", "seq_num"))  # fmt: skip


def _snds(table: str, types: Types, schema: Schema) -> Contract:
    if all(name in types for name in _PERSON):
        entities = [_LINE] if table == "er_prs_f" and all(name in types for name in _LINE) else []
        return _known_by(Contract(unit=_PERSON, entities=list(entities)), table, schema)
    if table.startswith("er_") and all(name in types for name in _LINE):
        return Contract(through="er_prs_f", on=_LINE)
    stay = next((key for key in _STAYS if all(name in types for name in key)), None)
    text = dict.fromkeys(stay or (), "VARCHAR")  # hospitals write a number with zeros before it or without
    match = re.match(r"(t_[a-z]+\d\d)", table)
    if match and stay:
        for chain in (f"{match[1]}c", f"{match[1]}cstc"):
            if chain != table and {*stay, "nir_ano_17"} <= set(schema.get(chain, ())):
                return Contract(through=chain, on=stay, more=text)
    if "nir_ano_17" in types:
        more = text | {"rng_nai": "BIGINT"}  # some tables have it as text, some not at all
        contract = Contract(unit=_PERSON_IN_HOSPITAL, entities=[stay] if stay else [], more=more)
        return _known_by(contract, table, schema)
    if match or "ben_idt_ano" in types:
        return Contract(unit=("ben_idt_ano",), more={} if "ben_idt_ano" in types else {"ben_idt_ano": "VARCHAR"})
    return Contract(public=True)


def _known_by(contract: Contract, table: str, schema: Schema) -> Contract:
    """The pseudonym is a person's alone but for twins of one sex: a key that every register of persons shares."""
    pseudonym = contract.unit[0]
    if table == "ir_ben_r":
        contract.entities.append((pseudonym,))
    elif "ir_ben_r" in schema:
        contract.references[pseudonym] = "ir_ben_r.ben_nir_psa"
    return contract


_RULES: Mapping[str, Rules] = {
    "omop": _omop,
    "mimic": _mimic,
    "mimic_iv_ehrsql": _mimic,
    "eicu": _eicu,
    "eicu_ehrsql": _eicu,
    "snds": _snds,
}
