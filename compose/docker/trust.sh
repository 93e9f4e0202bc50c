#!/bin/sh
# The key ceremony of the demonstration federation: what the access committee, each custodian, the operator and the
# researcher would do on hosts of their own. Every party's secrets go to a volume that only its own service mounts.
# Does nothing where it was done before.
set -eu
umask 077

committee=/trust/authority
if [ -e /trust/researcher/grant.jwt ]; then # which is made last
    echo "keys, manifest and grant are there already"
    exit 0
fi

# What an interrupted run left is of no use: nobody has seen it.
rm -rf "$committee/keys" /trust/*/identity

insitu-authority init "$committee/keys" --federation demo

insitu-authority cert "$committee/keys" --role gateway --id gateway --out /trust/gateway/identity \
    --address gateway:8443 --operator demonstration --jurisdiction FR
insitu-authority cert "$committee/keys" --role node --id chu-lille --out /trust/chu-lille/identity \
    --organisation "CHU de Lille" --jurisdiction FR
insitu-authority cert "$committee/keys" --role node --id chu-rennes --out /trust/chu-rennes/identity \
    --organisation "CHU de Rennes" --jurisdiction FR
insitu-authority cert "$committee/keys" --role node --id uz-leuven --out /trust/uz-leuven/identity \
    --organisation "UZ Leuven" --jurisdiction BE
insitu-authority cert "$committee/keys" --role researcher --id researcher --out /trust/researcher/identity

insitu-authority manifest "$committee/keys" --dataset /opt/insitu/compose/demo/omop/dataset.toml \
    --jurisdiction EU --out "$committee/manifest.jws"
cp "$committee/manifest.jws" /trust/gateway/manifest.jws

insitu-authority grant "$committee/keys" --project "NSAIDs and gastrointestinal bleeding" \
    --purpose "demonstration on synthetic persons" --reference demo \
    --researcher /trust/researcher/identity --dataset omop \
    --node chu-lille --node chu-rennes --node uz-leuven \
    --epsilon 10 --delta 1e-6 --accounting zcdp --days 90 --out /trust/researcher/grant.jwt
