#!/bin/sh
# Chromium for `make test-browser`: the one that is there, else Debian's where we may install it.
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null && exit 0
fi
echo "The tests of the explorer need Chromium or Chrome: install it, on Debian with 'apt-get install chromium'." >&2
exit 1
