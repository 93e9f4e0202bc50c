"""A small dataset with the legal rules of SNDS, for tests: beneficiaries, their care, their deaths. No real data.

The five potential identifiers of French law, at most one in a query; a column that is never released; two purposes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from insitu_privacy.dataset import Dataset, DatasetBundle
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.plan import PrivacyPlan

from tests.testkit import care

RULES = """
[dataset.rules]
at_most_identifiers = 1

[[dataset.identifiers]]
name = "commune of residence"
french = "commune de résidence"
columns = ["ir_ben_r.ben_res_com", "er_prs_f.ben_res_com"]

[[dataset.identifiers]]
name = "month and year of birth"
french = "mois et année de naissance"
together = [["ir_ben_r.ben_nai_ann", "er_prs_f.ben_nai_ann"], ["ir_ben_r.ben_nai_moi"]]

[[dataset.identifiers]]
name = "month and year of birth"
french = "mois et année de naissance"
columns = ["ir_ben_r.ben_nai_dte"]
finer_than = "year"

[[dataset.identifiers]]
name = "exact date of care"
french = "date exacte des soins"
columns = ["er_prs_f.exe_soi_dtd", "er_prs_f.exe_soi_dtf", "er_prs_f.flx_dis"]
finer_than = "month"

[[dataset.identifiers]]
name = "exact date of death"
french = "date exacte du décès"
columns = ["ir_ben_r.ben_dcd_dte"]
finer_than = "month"

[[dataset.identifiers]]
name = "commune of death"
french = "commune de décès"
columns = ["ir_ben_r.ben_dcd_com"]
"""

TABLES = """
[tables.ir_ben_r]
unit = ["ben_nir_psa", "ben_rng_gem"]
one_row_per_unit = true
[tables.ir_ben_r.columns]
ben_nir_psa = { type = "text" }
ben_rng_gem = { type = "integer" }
ben_sex_cod = { type = "integer", values = [1, 2] }
ben_nai_ann = { type = "integer", min = 1900, max = 2026 }
ben_nai_moi = { type = "integer", min = 1, max = 12 }
ben_nai_dte = { type = "date", min = 1900-01-01, max = 2026-12-31 }
ben_res_dpt = { type = "text", nullable = true }
ben_res_com = { type = "text", nullable = true }
ben_dcd_dte = { type = "date", min = 2006-01-01, max = 2026-12-31, nullable = true }
ben_dcd_com = { type = "text", nullable = true }
ben_hid_sco = { type = "decimal", min = 0, max = 100, release = "never" }
ben_hid_cod = { type = "integer", min = 0, max = 9, release = "never" }

[tables.er_prs_f]
unit = ["ben_nir_psa", "ben_rng_gem"]
entity_keys = [["prs_id"]]
max_rows_per_group = 20
max_groups = 10
[tables.er_prs_f.columns]
ben_nir_psa = { type = "text" }
ben_rng_gem = { type = "integer" }
prs_id      = { type = "integer" }
ben_nai_ann = { type = "integer", min = 1900, max = 2026 }
ben_res_com = { type = "text", nullable = true }
exe_soi_dtd = { type = "date", min = 2006-01-01, max = 2026-12-31 }
exe_soi_dtf = { type = "date", min = 2006-01-01, max = 2026-12-31, nullable = true }
flx_dis     = { type = "timestamp", min = 2006-01-01, max = 2027-01-01 }
prs_nat_ref = { type = "integer", values = [1111, 1112, 3313] }
prs_pai_mnt = { type = "decimal", min = 0, max = 10000 }

[tables.communes]
public = true
key = ["code"]
source = "communes.csv"
[tables.communes.columns]
code   = { type = "text" }
region = { type = "text", values_from = "communes.region" }
number = { type = "integer", min = 0, max = 9 }
"""

HEAD = (
    '[dataset]\nname = "snds"\nversion = 1\nmin_units = 0\npurposes = ["public-health-research", "quality-of-care"]\n'
)
TOML = HEAD + RULES + TABLES
_FILES = {"communes.csv": b"code,region,number\n59350,north,1\n75056,centre,2\n"}


def bundle(toml: str = TOML) -> DatasetBundle:
    """The dataset's bytes."""
    return DatasetBundle(toml=toml.encode(), files=_FILES)


@cache
def snds(toml: str = TOML) -> Dataset:
    """The dataset."""
    return parse_dataset(bundle(toml))


def plan(sql: str, *, dataset: Dataset | None = None, **asked: Any) -> PrivacyPlan:
    """The plan of a query over it."""
    return care.plan(sql, dataset=dataset or snds(), **asked)
