#!/bin/sh
# Configures a broker from the variables KAFKA_*, formats its storage unless it is
# formatted, and runs it.
set -eu
export CLUSTER_ID="${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}" # that of upstream's image
if ! setup=$(java -cp '/opt/kafka/libs/*' kafka.docker.KafkaDockerWrapper setup --default-configs-dir /etc/kafka/docker \
	--mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config 2>&1); then
	case $setup in
	*"already formatted"*) ;;
	*)
		echo "$setup"
		exit 1
		;;
	esac
fi
exec java -Xmx1G -cp '/opt/kafka/libs/*' kafka.Kafka /opt/kafka/config/server.properties
