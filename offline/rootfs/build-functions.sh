# Goes before every build script.
set -eu
export DEBIAN_FRONTEND=noninteractive # here and not in the container: a commit keeps its environment

# Installs the packages in /tmp. apt knows the order (python3 needs its minimal part configured first), dpkg does not.
install_packages() {
  apt-get install -y -q --no-install-recommends -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 \
    -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Options::=--force-confold /tmp/packages/*.deb
  rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/*
}
