#!/bin/bash
# Turns a fresh Amazon Linux 2023 into an instance of the cluster. Run by cloud-init, from the bundle that stands in /opt/proctorwire,
# with /etc/proctorwire/deployment.json beside it. May be run again. Tells CloudFormation how it went.
set -euo pipefail

home=/opt/proctorwire
here=$home/app/deploy/ec2_cluster/instance
setting() { python3 -c 'import json, sys; print(json.load(open("/etc/proctorwire/deployment.json"))[sys.argv[1]])' "$1"; }

signal() {
    /opt/aws/bin/cfn-signal --success "$1" --stack "$(setting stack)" --resource Instances --region "$(setting region)" || true
}
trap 'signal false' ERR

packages=(python3.11 amazon-cloudwatch-agent)
if [ -z "$(setting cache)" ]; then
    packages+=(redis6)
fi
dnf install -y --setopt=install_weak_deps=False "${packages[@]}"
if command -v redis6-server >/dev/null; then
    ln -sf "$(command -v redis6-server)" /usr/local/bin/redis-server
fi

id -u proctorwire >/dev/null 2>&1 || useradd --system --home-dir /var/lib/proctorwire --shell /usr/sbin/nologin proctorwire
install -d -o proctorwire -g proctorwire -m 0750 /var/lib/proctorwire /var/log/proctorwire

python3.11 -m venv $home/venv
$home/venv/bin/pip install --quiet --no-index --find-links $home/wheels --require-hashes --no-deps -r $home/requirements.txt
$home/venv/bin/python -m compileall -q $home/app

install -m 0644 "$here"/*.service /etc/systemd/system/
install -m 0644 "$here/proctorwire.logrotate" /etc/logrotate.d/proctorwire
install -m 0644 "$here/90-proctorwire.conf" /etc/sysctl.d/
sysctl --quiet --system
sed "s/@STAGE@/$(setting stage)/" "$here/cloudwatch-agent.json" > /opt/aws/amazon-cloudwatch-agent/etc/proctorwire.json
/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl -a fetch-config -m ec2 -s \
    -c file:/opt/aws/amazon-cloudwatch-agent/etc/proctorwire.json

systemctl daemon-reload
systemctl enable --now proctorwire-drain.service proctorwire.service proctorwire-web.service proctorwire-bridge.service

scheme=http
if [ -n "$(setting tls_secret)" ]; then
    scheme=https
fi
curl --silent --show-error --fail --insecure --output /dev/null --retry 60 --retry-delay 2 --retry-all-errors \
    "$scheme://127.0.0.1:8080/readyz"
signal true
