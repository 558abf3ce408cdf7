# Runs once while the image is made, as root, without network; the packages lie in /tmp.
groupadd --system --gid 999 redis
useradd --system --gid redis --uid 999 redis
install_packages
rm -rf /etc/redis /var/log/redis /var/lib/redis # a container is given its configuration and its volume
install -d -o redis -g redis /data
