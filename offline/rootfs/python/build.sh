# Runs once while the image is made, as root, without network; the packages lie in /tmp.
install_packages
ln -s /usr/bin/python3 /usr/local/bin/python
# The image is the environment, as with the official one: `pip install` goes into it.
rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
mkdir -p /wheels
