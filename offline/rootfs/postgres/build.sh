# Runs once while the image is made, as root, without network; the packages lie in /tmp.
groupadd --system --gid 999 postgres
useradd --system --gid postgres --uid 999 --home-dir /var/lib/postgresql --shell /bin/bash postgres
mkdir -p /etc/postgresql-common
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf # the entrypoint makes it

install_packages

# en_US.utf8 is what databases made by the official image use; its sources are needed for this moment only.
localedef --inputfile=en_US --charmap=UTF-8 en_US.UTF-8
rm -rf /usr/share/i18n
# A key pair that a package makes at random has no place in an image.
rm -f /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem
rm -rf /var/lib/postgresql/15 /etc/postgresql/15
mkdir -p /docker-entrypoint-initdb.d
install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data
install -d -o postgres -g postgres -m 3777 /var/run/postgresql
sed -i "s/^#\?listen_addresses = .*/listen_addresses = '*'/" /usr/share/postgresql/15/postgresql.conf.sample
