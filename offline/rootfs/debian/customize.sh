# mmdebstrap feeds this to a shell inside the new tree, after all packages are installed.
set -eu
# No service is started while a later package is installed.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d

# libc and base-files were unpacked before dpkg knew what to leave out.
find /usr/share/doc -type f ! -name copyright -delete
find /usr/share/doc -type l -delete
find /usr/share/doc -mindepth 1 -type d -empty -delete
rm -rf /var/cache/debconf/*-old /var/log/*

# What belongs to the building machine, not to the image.
: >/etc/hostname
: >/etc/resolv.conf
: >/etc/apt/sources.list
rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/apt/sources.list.d/*
