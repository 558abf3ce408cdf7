# Runs once while the image is made, as root, without network, on the PostgreSQL image; the packages lie in /tmp.
install_packages
rm -rf /etc/redis /var/log/redis /var/lib/redis # here Redis only reads copies
mkdir -p /wheels
