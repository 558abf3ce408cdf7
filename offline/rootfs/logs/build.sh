# Alpine has it, and it is where a user other than root may keep data: a new volume takes over its mode.
mkdir -p -m 1777 /var/tmp
