#!/bin/sh
# Fetch the libraries of the page anew, at the versions named here, with their licenses.
set -eu
cd "$(dirname "$0")"
renew() { # package version file
    folder=$(mktemp -d)
    npm pack --silent --pack-destination "$folder" "$1@$2" >/dev/null
    tar -xzf "$folder"/*.tgz -C "$folder"
    grep -v sourceMappingURL "$folder/package/$3" >"$(basename "$3")"
    cp "$folder/package/LICENSE" "$1.LICENSE"
    rm -r "$folder"
}
renew lit-html 3.3.3 lit-html.js
