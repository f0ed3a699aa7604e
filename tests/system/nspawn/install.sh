#!/bin/sh
# Runs inside the booted tree: installs Paprika by hand, as docs/install.md tells people to, on one host that is
# manager and agent at once. /opt/paprika holds the programs and the units.
set -eu

install -m 0755 /opt/paprika/bin/paprika /opt/paprika/bin/paprika-agent /usr/bin/
install -m 0644 /opt/paprika/systemd/*.service /etc/systemd/system/
install -D -m 0644 /opt/paprika/systemd/paprika.sysusers.conf /usr/lib/sysusers.d/paprika.conf
systemd-sysusers /usr/lib/sysusers.d/paprika.conf
systemctl daemon-reload

install -d -m 0755 /etc/paprika
cat >/etc/paprika/manager.yml <<'END'
dir: /var/lib/paprika-manager
api:
  socket: /run/paprika/api.sock
link:
  advertise: ["127.0.0.1:7051"]
END
systemctl start paprika-manager.service

paprika join-token new | paprika-agent join - --name host1
