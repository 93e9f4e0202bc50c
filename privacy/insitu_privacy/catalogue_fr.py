"""The French texts of the catalogue: by code, what was wrong and what to do. Others are shown in English.

Here are the codes that a data protection officer or a researcher meets where the law, or who may ask, is in question:
each ``legal`` and each ``access`` one, and those of profiles, which custodians decide about; a test says so. Fields
are those of the English texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from insitu_privacy.catalogue import CATALOGUE
from insitu_privacy.language import Phrase

FRENCH: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "INSITU-LEGAL-IDENTIFIERS": (
            "la requête croise {count} identifiants potentiels, et ce jeu de données en permet {limit} : {what}",
            "Retirez-en un, ou employez-le sous une forme qui n'en est pas un : l'année ou le mois d'une date, des "
            "intervalles qui commencent et finissent avec eux, l'année de naissance seule. Nommez les colonnes "
            "utiles : * et ORDER BY les emploient toutes.",
        ),
        "INSITU-LEGAL-NEVER-RELEASED": (
            "la colonne {name} n'est jamais restituée : une réponse ne peut ni être groupée par elle, ni en contenir "
            "des sommes, moyennes, quantiles ou extrêmes, ni ceux d'une colonne qu'une condition lui lie",
            "Ne l'employez que dans des conditions avec des constantes : dans WHERE, ON, FILTER.",
        ),
        "INSITU-KEY-ENROLMENT": (
            "l'élément {what} est refusé : {reason}",
            "Demandez une nouvelle invitation à l'autorité d'accès ; si un autre a employé celle-ci, dites-le.",
        ),
        "INSITU-KEY-FINGERPRINT": (
            "l'élément {what} porte l'empreinte {name}, qui n'est pas celle qui avait été confirmée",
            "N'allez pas plus loin : comparez les empreintes avec l'autre partie par téléphone.",
        ),
        "INSITU-ACCESS-MANIFEST": (
            "pas de manifeste valide : {reason}",
            "Demandez-en un nouveau à l'autorité d'accès.",
        ),
        "INSITU-ACCESS-MANIFEST-OLD": (
            "le manifeste de version {version} est plus ancien que la version {known}, déjà vue",
            "Récupérez le manifeste en vigueur ; si la passerelle envoie toujours celui-ci, prévenez l'autorité "
            "d'accès.",
        ),
        "INSITU-ACCESS-SIGNATURE": (
            "la signature de l'objet suivant n'est pas valide : {what}",
            "Utilisez la clé pour laquelle il a été émis.",
        ),
        "INSITU-ACCESS-MALFORMED": ("objet mal formé : {what} : {reason}", "Faites-le émettre de nouveau."),
        "INSITU-ACCESS-GRANT-EXPIRED": (
            "l'autorisation n'est pas valable maintenant : elle court du {start} au {end}",
            "Demandez une nouvelle autorisation à l'autorité d'accès.",
        ),
        "INSITU-ACCESS-GRANT-REVOKED": ("l'autorisation a été révoquée", "Adressez-vous à l'autorité d'accès."),
        "INSITU-ACCESS-GRANT-SUSPENDED": (
            "l'autorisation est suspendue",
            "Demandez à l'autorité d'accès quand elle reprendra.",
        ),
        "INSITU-ACCESS-GRANT-AMENDED": (
            "la révision {version} de l'autorisation a été remplacée par la révision {known}",
            "Demandez la plus récente à l'autorité d'accès et connectez-vous avec elle.",
        ),
        "INSITU-ACCESS-RESULTS": (
            "l'autorisation ne permet pas de résultats de cette sorte : {kind}",
            "Demandez {known}, ou faites modifier l'autorisation par l'autorité d'accès.",
        ),
        "INSITU-ACCESS-MIN-NODES": (
            "l'autorisation exige les réponses d'au moins {needed} nœuds, et la demande de {asked}",
            "Nommez plus de nœuds, et laissez --min-nodes à {needed} ou plus.",
        ),
        "INSITU-ACCESS-NOT-GRANTED": (
            "l'autorisation ne couvre pas : {what}",
            "Demandez à l'autorité d'accès une autorisation qui le couvre, ou passez-vous-en.",
        ),
        "INSITU-ACCESS-PURPOSE": (
            "le jeu de données {name} ne peut pas être utilisé pour la finalité de cette autorisation : {what}",
            "Il peut l'être pour : {known}. Demandez à l'autorité d'accès une autorisation pour l'une de ces "
            "finalités.",
        ),
        "INSITU-ACCESS-WRONG-KEY": (
            "la demande n'est pas signée par une clé de cette autorisation",
            "Signez avec la clé que l'autorisation nomme.",
        ),
        "INSITU-ACCESS-WRONG-NODE": (
            "la demande n'est pas adressée à ce nœud",
            "Envoyez-la aux nœuds auxquels elle s'adresse.",
        ),
        "INSITU-ACCESS-STALE": (
            "la demande a passé son échéance ou est datée du futur",
            "Mettez l'horloge à l'heure et demandez de nouveau.",
        ),
        "INSITU-ACCESS-REPLAY": (
            "cet identifiant de demande a déjà servi à une autre demande",
            "Demandez de nouveau avec un nouvel identifiant.",
        ),
        "INSITU-ACCESS-DATASET": (
            "le jeu de données {name} n'est pas ici celui pour lequel la demande a été planifiée",
            "Récupérez le catalogue de nouveau ; si rien ne change, la copie du dépositaire diffère du manifeste.",
        ),
        "INSITU-ACCESS-PLAN": (
            "le plan établi ici diffère de celui qui a été signé",
            "Utilisez la même version d'insitu que les nœuds ; récupérez le catalogue de nouveau.",
        ),
        "INSITU-ACCESS-PEER": (
            "le certificat du correspondant ne désigne personne de connu",
            "Faites émettre un certificat par l'autorité, et publier un manifeste qui le mentionne.",
        ),
        "INSITU-TRUST-JURISDICTION": (
            "la passerelle {name} n'est pas acceptée ici : {reason}",
            "Utilisez une passerelle relevant de ces juridictions ; l'autorité d'accès les nomme dans le manifeste, et "
            "le pays dans le certificat.",
        ),
        "INSITU-PROFILE-BUDGET": (
            "cela coûte plus que ce qui reste du budget des profils du jeu de données {name}",
            "Voyez `insitu-node ledger` ; donnez un --epsilon plus petit, ou augmentez profile_epsilon sous "
            "[datasets.{name}] dans node.toml : ce que les profils peuvent coûter à chaque personne en tout, toutes "
            "versions du jeu de données comprises.",
        ),
        "INSITU-PROFILE-NONE": (
            "aucun profil du jeu de données {name} ne peut être établi ici : le dépositaire n'a pas fixé de budget",
            "Écrivez profile_epsilon = 1.0 sous [datasets.{name}] dans node.toml : ce que les profils peuvent coûter à "
            "chaque personne en tout.",
        ),
        "INSITU-PROFILE-AGAIN": (
            "le jeu de données {name} a déjà été débité pour un profil de cette version : {reason}",
            "Donnez --refresh pour être débité de nouveau.",
        ),
        "INSITU-NODE-APPROVAL": (
            "ce projet attend l'approbation du dépositaire",
            "Le dépositaire le voit dans `insitu-node projects list` ; demandez de nouveau quand il sera approuvé.",
        ),
        "INSITU-NODE-DENIED": (
            "le dépositaire a refusé ce projet",
            "Adressez-vous au dépositaire ; d'autres nœuds peuvent encore répondre.",
        ),
        "INSITU-NODE-WITHDRAWN": (
            "le dépositaire a retiré son approbation de ce projet",
            "Adressez-vous au dépositaire ; ce qui a été restitué auparavant reste valable.",
        ),
        "INSITU-NODE-HALTED": (
            "le dépositaire a arrêté ce nœud",
            "Demandez de nouveau plus tard ; rien n'a été dépensé.",
        ),
        "INSITU-NODE-QUIET": (
            "ce nœud ne répond pas maintenant : heures de silence de {start} à {end}",
            "Demandez de nouveau après {end} ; rien n'a été dépensé.",
        ),
        "INSITU-NODE-RATE": (
            "ce projet a posé {limit} nouvelles requêtes dans la dernière heure, et ce nœud n'en prend pas plus",
            "Demandez de nouveau plus tard ; les requêtes déjà traitées sont rendues de nouveau sans limite.",
        ),
    }
)

_FIELD = re.compile(r"{(\w+)}")


def in_french(code: str, fields: Mapping[str, object]) -> tuple[str, str] | None:
    """Both texts of a code in French; None where the catalogue has none."""
    if code not in FRENCH:
        return None
    said = {name: value.french if isinstance(value, Phrase) else value for name, value in fields.items()}
    text, remedy = FRENCH[code]
    return text.format(**said), remedy.format(**said)


def read_back(code: str, text: str, remedy: str) -> dict[str, object] | None:
    """What the English texts of a code were filled in with; None where they are not these texts."""
    entry = CATALOGUE.get(code)
    if entry is None:
        return None
    first, second = _fields_of(entry.text, text), _fields_of(entry.remedy, remedy)
    return None if first is None or second is None else {**first, **second}


def _fields_of(template: str, filled: str) -> dict[str, object] | None:
    """The fields of one text, each up to where the words after it first stand: one look, whatever a peer sends."""
    start, *pieces = _FIELD.split(template)
    if not filled.startswith(start):
        return None
    found: dict[str, object] = {}
    at, end = len(start), len(filled)
    for place in range(0, len(pieces), 2):
        name, after = pieces[place], pieces[place + 1]
        last = place + 2 == len(pieces)
        upto = end - len(after) if last else filled.find(after, at)
        if upto < at or not filled.startswith(after, upto):
            return None
        found[name] = filled[at:upto]
        at = upto + len(after)
    return found if at == end else None
