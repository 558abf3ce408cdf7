# Makes a debootstrap tree small. $1 is its root. What is removed here stays away from later packages too.
root=${1:?the root of the tree, never this machine}
cat >"$root/etc/dpkg/dpkg.cfg.d/slim" <<'CFG'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/locale/*
CFG
# No service is started while a package is installed.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"

chroot "$root" sh -c 'if ls /upgrades/*.deb >/dev/null 2>&1; then
  DEBIAN_FRONTEND=noninteractive dpkg --force-unsafe-io --force-confold --install /upgrades/*.deb; fi'

find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -type l -delete
find "$root/usr/share/doc" -mindepth 1 -type d -empty -delete
rm -rf "$root/upgrades" "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/lintian/* \
  "$root"/usr/share/locale/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old \
  "$root"/var/lib/dpkg/*-old "$root"/var/log/* "$root"/tmp/* "$root"/var/tmp/* "$root"/var/cache/ldconfig/aux-cache
# What belongs to the building machine, not to the image.
: >"$root/etc/machine-id"
: >"$root/etc/hostname"
: >"$root/etc/resolv.conf"
: >"$root/etc/apt/sources.list"
