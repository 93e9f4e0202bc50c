#!/bin/sh
# Writes the researcher's profile, from the identity and the grant that the init job made. Does nothing the second time.
set -eu
umask 077

if [ -e /profile/profile.toml ]; then
    echo "the profile is there already"
    exit 0
fi
exec insitu connect /profile --gateway gateway:8443 --identity /trust/identity --grant /trust/grant.jwt
