#!/usr/bin/env bash
# Apache Kafka (KRaft mode) and a schema registry on this machine, without docker.
#
# usage: compose/kafka/kafka.sh COMMAND
#   start                    fetch what is missing, start all, wait until ready, print the settings
#   stop                     stop all, keep the data
#   clean                    stop all, delete the data
#   status                   what runs
#   env [--sasl]             the settings as shell exports (--sasl: the authenticated listener)
#   kill-broker N            SIGKILL broker N; stop-broker N and start-broker N are gentle
#   kill-registry            SIGKILL the registry; stop-registry and start-registry are gentle
#   tool NAME [ARGS...]      run a Kafka tool, e.g. tool kafka-consumer-groups --list
#   fetch                    only fetch
#
# Settings come from the environment; README.md beside this file lists them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${KAFKA_ROOT:-$(cd "$here/../.." && pwd)/.kafka}
dist=${KAFKA_DIST:-$root/dist}
instance=${KAFKA_INSTANCE:-default}
home=$root/$instance
settings=$home/settings

registry_version=3.0.9
kafka_version=$(sed -n 's/.*<kafka.version>\(.*\)<.*/\1/p' "$here/pom.xml")
jars=$dist/kafka-$kafka_version
registry_dist=$dist/apicurio-$registry_version

say() { echo "kafka: $*" >&2; }
die() {
    echo "kafka: $*" >&2
    exit 1
}

# --- fetch -------------------------------------------------------------------

need_java() {
    command -v java >/dev/null || die "java is missing: install Java 17 or newer (apt-get install openjdk-17-jre-headless)"
    local version
    version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
    [ "${version:-0}" -ge 17 ] || die "Java 17 or newer is needed, found ${version:-an unknown version}"
}

# fetch goes through a temporary directory, so that an interrupted one leaves
# nothing that looks complete.
fetch() {
    need_java
    [ -d "$jars" ] || fetch_kafka
    [ -d "$registry_dist" ] || fetch_registry
}

maven() {
    command -v mvn >/dev/null || die "mvn is missing: install Maven (apt-get install maven); it fetches Kafka and the registry"
    local log=$dist/maven.log
    mvn -B -q "$@" >"$log" 2>&1 || {
        tail -20 "$log" >&2
        die "Maven could not fetch what is needed; all it said is in $log"
    }
}

fetch_kafka() {
    say "fetching Apache Kafka $kafka_version (once)"
    mkdir -p "$dist"
    local temporary
    temporary=$(mktemp -d "$dist/fetch.XXXXXX")
    maven -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$temporary"
    mv "$temporary" "$jars" 2>/dev/null || rm -rf "$temporary"
}

fetch_registry() {
    say "fetching Apicurio Registry $registry_version (once)"
    mkdir -p "$dist"
    local temporary
    temporary=$(mktemp -d "$dist/fetch.XXXXXX")
    maven -f "$here/pom.xml" dependency:copy -DoutputDirectory="$temporary" \
        -Dartifact="io.apicurio:apicurio-registry-app:$registry_version:tar.gz:all"
    tar -xzf "$temporary"/*.tar.gz -C "$temporary"
    rm "$temporary"/*.tar.gz
    mv "$temporary" "$registry_dist" 2>/dev/null || rm -rf "$temporary"
}

# --- settings ----------------------------------------------------------------

# An instance remembers its settings, so that stop, env and tool need none.
load() { [ -f "$settings" ] && . "$settings"; }
need() { load || die "instance '$instance' was never started: run $0 start"; }

create_instance() {
    local brokers=${BROKERS:-1} port=${KAFKA_PORT:-9092} registry_port=${REGISTRY_PORT:-8081} i
    case $brokers in 1 | 3) ;; *) die "BROKERS must be 1 or 3, not '$brokers'" ;; esac
    [ "$port" != auto ] || port=$(free_ports 30)
    [ "$registry_port" != auto ] || registry_port=$((port + 29))

    # Before anything is made, so that a second try can name other ports.
    host=${KAFKA_HOST:-127.0.0.1}
    for ((i = 0; i < brokers * 3; i++)); do
        port_is_free $((port + i)) ||
            die "port $((port + i)) is taken: set KAFKA_PORT to the first of $((brokers * 3)) free ports, or to auto"
    done
    port_is_free "$registry_port" || die "port $registry_port is taken: set REGISTRY_PORT (and KAFKA_PORT) to free ones, or both to auto"

    mkdir -p "$home"
    make_certificates
    local ids=()
    for ((i = 1; i <= brokers; i++)); do ids+=("$(uuid)"); done
    (
        umask 077
        cat >"$settings" <<SETTINGS
brokers=$brokers
host=${KAFKA_HOST:-127.0.0.1}
port=$port
registry_port=$registry_port
cluster_id=$(uuid)
directory_ids=(${ids[*]})
sasl_username=hogstream
sasl_password=$(openssl rand -hex 12)
SETTINGS
    )
}

# A Kafka UUID is 16 bytes in URL-safe base64; one that begins with a dash
# would be read as an option.
uuid() {
    local id
    id=$(openssl rand 16 | base64 | tr '+/' '-_' | tr -d '=\n')
    case $id in -*) uuid ;; *) echo "$id" ;; esac
}

listening() { (exec 3<>"/dev/tcp/${host:-127.0.0.1}/$1") 2>/dev/null; }

# A process that was killed may hold its ports for a moment after it is gone
# from the list of processes.
port_is_free() {
    local deadline=$((SECONDS + 5))
    while listening "$1"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

free_ports() {
    local base i
    for _ in $(seq 50); do
        base=$((20000 + RANDOM % 300 * 30))
        for ((i = 0; i < $1; i++)); do
            if listening $((base + i)); then continue 2; fi
        done
        echo "$base"
        return
    done
    die "no free range of $1 ports found between 20000 and 29000"
}

plain_port() { echo $((port + ($1 - 1) * 3)); }
sasl_port() { echo $((port + ($1 - 1) * 3 + 1)); }
controller_port() { echo $((port + ($1 - 1) * 3 + 2)); }

# addresses plain_port|sasl_port|controller_port
addresses() {
    local i list=
    for ((i = 1; i <= brokers; i++)); do list+=,$host:$("$1" "$i"); done
    echo "${list#,}"
}

print_env() {
    if [ "${1:-}" = --sasl ]; then
        echo "export KAFKA_BROKERS=$(addresses sasl_port)"
        echo "export KAFKA_SASL_MECHANISM=SCRAM-SHA-256"
        echo "export KAFKA_SASL_USERNAME=$sasl_username"
        echo "export KAFKA_SASL_PASSWORD=$sasl_password"
        echo "export KAFKA_TLS=true"
        echo "export KAFKA_TLS_CA=$home/tls/ca.crt"
    else
        echo "export KAFKA_BROKERS=$(addresses plain_port)"
    fi
    echo "export SCHEMA_REGISTRY_URL=http://$host:$registry_port/apis/ccompat/v7"
}

# --- TLS ---------------------------------------------------------------------

# One CA and one certificate for all brokers, which all run on this machine.
make_certificates() {
    local tls=$home/tls name=${KAFKA_HOST:-127.0.0.1} san=DNS:localhost,IP:127.0.0.1
    [ ! -f "$tls/broker.pem" ] || return 0
    case $name in 127.0.0.1 | localhost) ;; *[!0-9.]*) san+=,DNS:$name ;; *) san+=,IP:$name ;; esac
    (
        umask 077
        mkdir -p "$tls"
        cd "$tls"
        openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=Hogstream local CA" \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
            -keyout ca.key -out ca.crt
        openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout broker.key -out broker.csr
        openssl x509 -req -in broker.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out broker.crt \
            -extfile <(echo "subjectAltName=$san")
        cat broker.key broker.crt ca.crt >broker.pem
    ) >"$home/tls.log" 2>&1 || {
        cat "$home/tls.log" >&2
        die "openssl could not make the certificates"
    }
}

# --- brokers -----------------------------------------------------------------

broker_home() { echo "$home/broker-$1"; }

write_broker_config() {
    local id=$1 copies=1 in_sync=1
    [ "$brokers" -lt 3 ] || { copies=3 in_sync=2; }
    cat >"$(broker_home "$id")/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$id
log.dirs=$(broker_home "$id")/data
controller.quorum.bootstrap.servers=$(addresses controller_port)

listeners=PLAINTEXT://$host:$(plain_port "$id"),SASL_SSL://$host:$(sasl_port "$id"),CONTROLLER://$host:$(controller_port "$id")
advertised.listeners=PLAINTEXT://$host:$(plain_port "$id"),SASL_SSL://$host:$(sasl_port "$id")
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location=$home/tls/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$home/tls/ca.crt

# A topic that nobody created on purpose is a mistake.
auto.create.topics.enable=false
default.replication.factor=$copies
min.insync.replicas=$in_sync
offsets.topic.replication.factor=$copies
offsets.topic.num.partitions=12
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$in_sync
transaction.state.log.num.partitions=12
share.coordinator.state.topic.replication.factor=$copies
share.coordinator.state.topic.min.isr=$in_sync

# Tests wait for these.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.retention.minutes=${KAFKA_OFFSETS_RETENTION_MINUTES:-10080}
offsets.retention.check.interval.ms=5000
log.retention.check.interval.ms=${KAFKA_RETENTION_CHECK_MS:-1000}
log.segment.delete.delay.ms=1000
log.cleaner.backoff.ms=1000
log.initial.task.delay.ms=1000
PROPERTIES
    # KAFKA_PROPERTIES="name=value name=value" is last, so it wins.
    local property
    for property in ${KAFKA_PROPERTIES:-}; do
        echo "$property" >>"$(broker_home "$id")/server.properties"
    done
}

# --standalone makes one broker its own quorum; three must all be told the
# same first members.
format_broker() {
    local id=$1 quorum=(--standalone) i members=
    local data
    data=$(broker_home "$id")/data
    [ ! -f "$data/meta.properties" ] || return 0
    if [ "$brokers" -gt 1 ]; then
        for ((i = 1; i <= brokers; i++)); do
            members+=,$i@$host:$(controller_port "$i"):${directory_ids[i - 1]}
        done
        quorum=(--initial-controllers "${members#,}")
    fi
    rm -rf "$data"
    run_java 128m ERROR SYSTEM_ERR kafka.tools.StorageTool format --cluster-id "$cluster_id" \
        --config "$(broker_home "$id")/server.properties" "${quorum[@]}" \
        --add-scram "SCRAM-SHA-256=[name=$sasl_username,password=$sasl_password]" \
        --add-scram "SCRAM-SHA-512=[name=$sasl_username,password=$sasl_password]" \
        >"$(broker_home "$id")/format.log" 2>&1 || {
        cat "$(broker_home "$id")/format.log" >&2
        die "the storage of broker $id could not be formatted"
    }
}

# run_java HEAP LEVEL TARGET CLASS ARGS... runs something short.
run_java() {
    local heap=$1 level=$2 target=$3
    shift 3
    java "-Xmx$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto \
        "-Dlog4j2.configurationFile=$here/log4j2.properties" \
        "-Dhogstream.log.level=$level" "-Dhogstream.log.target=$target" \
        -cp "$jars/*" "$@"
}

# detach PIDFILE LOGFILE COMMAND... runs it beyond this script and its terminal.
detach() {
    local pid_file=$1 log=$2
    shift 2
    if command -v setsid >/dev/null; then set -- setsid "$@"; fi
    nohup "$@" >"$log" 2>&1 </dev/null &
    echo $! >"$pid_file"
}

# alive PIDFILE MARK: the process exists and is the one we started, not a later
# one that got its number.
alive() {
    local pid
    pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && ps -p "$pid" -o args= 2>/dev/null | grep -qF -- "$2"
}

broker_alive() { alive "$(broker_home "$1")/pid" "$(broker_home "$1")/server.properties"; }

launch_broker() {
    local id=$1
    ! broker_alive "$id" || return 0
    mkdir -p "$(broker_home "$id")"
    write_broker_config "$id"
    format_broker "$id"
    if ! port_is_free "$(plain_port "$id")"; then
        die "port $(plain_port "$id") is taken by something else: set KAFKA_PORT to the first of $((brokers * 3)) free ports, or to auto (then: $0 clean, as the instance remembers its ports)"
    fi
    detach "$(broker_home "$id")/pid" "$(broker_home "$id")/log" \
        java "-Xmx${KAFKA_HEAP:-512m}" -Xms128m -XX:+UseG1GC ${KAFKA_JVM_OPTS:-} \
        "-Dlog4j2.configurationFile=$here/log4j2.properties" \
        -cp "$jars/*" kafka.Kafka "$(broker_home "$id")/server.properties"
}

# wait_for WHAT SECONDS LOG ALIVE... -- READY...
# Polls READY until it succeeds; fails at once when ALIVE does, with the end of LOG.
wait_for() {
    local what=$1 seconds=$2 log=$3 running=() deadline
    shift 3
    while [ "$1" != -- ]; do running+=("$1") && shift; done
    shift
    deadline=$((SECONDS + seconds))
    until "$@"; do
        if ! "${running[@]}"; then
            tail -25 "$log" >&2
            die "$what stopped while starting; its log is $log"
        fi
        if [ $SECONDS -ge $deadline ]; then
            tail -25 "$log" >&2
            die "$what is not ready after $seconds s; its log is $log"
        fi
        sleep 0.2
    done
}

# The broker says this once the controller has accepted it and it serves requests.
broker_started() {
    grep -qF 'Kafka Server started' "$(broker_home "$1")/log" && listening "$(plain_port "$1")"
}

wait_broker() {
    wait_for "broker $1" "${KAFKA_START_TIMEOUT:-120}" "$(broker_home "$1")/log" broker_alive "$1" -- broker_started "$1"
}

# --- registry ----------------------------------------------------------------

registry_home() { echo "$home/registry"; }
registry_alive() { alive "$(registry_home)/pid" "$(registry_home)/data"; }

# Its schemas live in a file, so that ids survive a restart as those in the
# topics' records do.
launch_registry() {
    ! registry_alive || return 0
    if ! port_is_free "$registry_port"; then
        die "port $registry_port is taken by something else: set REGISTRY_PORT (then: $0 clean, as the instance remembers its ports)"
    fi
    mkdir -p "$(registry_home)"
    detach "$(registry_home)/pid" "$(registry_home)/log" \
        env APICURIO_STORAGE_KIND=sql APICURIO_STORAGE_SQL_KIND=h2 \
        java "-Xmx${REGISTRY_HEAP:-512m}" -Xms64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
        "-Dquarkus.http.host=$host" "-Dquarkus.http.port=$registry_port" \
        "-Dapicurio.datasource.url=jdbc:h2:file:$(registry_home)/data;DB_CLOSE_ON_EXIT=FALSE" \
        -jar "$registry_dist/apicurio-registry-app-$registry_version-runner.jar"
}

registry_answers() {
    curl -sf -m 5 -o /dev/null "http://$host:$registry_port/apis/ccompat/v7/subjects"
}

wait_registry() {
    wait_for "the schema registry" "${KAFKA_START_TIMEOUT:-120}" "$(registry_home)/log" registry_alive -- registry_answers
}

# --- stopping ----------------------------------------------------------------

# end PIDFILE MARK SIGNAL SECONDS
end() {
    local pid_file=$1 mark=$2 signal=$3 seconds=$4 pid deadline
    if alive "$pid_file" "$mark"; then
        pid=$(cat "$pid_file")
        kill "-$signal" "$pid" 2>/dev/null || true
        deadline=$((SECONDS + seconds))
        while alive "$pid_file" "$mark"; do
            if [ $SECONDS -ge $deadline ]; then
                kill -KILL "$pid" 2>/dev/null || true
                deadline=$((SECONDS + seconds))
            fi
            sleep 0.1
        done
    fi
    rm -f "$pid_file"
}

end_broker() { end "$(broker_home "$1")/pid" "$(broker_home "$1")/server.properties" "$2" 15; }
end_registry() { end "$(registry_home)/pid" "$(registry_home)/data" "$1" 10; }

# --- tools -------------------------------------------------------------------

tool_class() {
    case ${1%.sh} in
    kafka-topics) echo org.apache.kafka.tools.TopicCommand ;;
    kafka-consumer-groups) echo org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
    kafka-console-producer) echo org.apache.kafka.tools.ConsoleProducer ;;
    kafka-console-consumer) echo org.apache.kafka.tools.consumer.ConsoleConsumer ;;
    kafka-configs) echo kafka.admin.ConfigCommand ;;
    kafka-get-offsets) echo org.apache.kafka.tools.GetOffsetShell ;;
    kafka-delete-records) echo org.apache.kafka.tools.DeleteRecordsCommand ;;
    kafka-transactions) echo org.apache.kafka.tools.TransactionsCommand ;;
    kafka-metadata-quorum) echo org.apache.kafka.tools.MetadataQuorumCommand ;;
    kafka-broker-api-versions) echo org.apache.kafka.tools.BrokerApiVersionsCommand ;;
    kafka-leader-election) echo org.apache.kafka.tools.LeaderElectionCommand ;;
    kafka-reassign-partitions) echo org.apache.kafka.tools.reassign.ReassignPartitionsCommand ;;
    kafka-groups) echo org.apache.kafka.tools.GroupsCommand ;;
    kafka-producer-perf-test) echo org.apache.kafka.tools.ProducerPerformance ;;
    kafka-consumer-perf-test) echo org.apache.kafka.tools.ConsumerPerformance ;;
    kafka-dump-log) echo kafka.tools.DumpLogSegments ;;
    *.*) echo "$1" ;;
    *) die "unknown tool '$1': known are $(sed -n 's/^    \(kafka-[a-z-]*\)) echo.*/\1/p' "${BASH_SOURCE[0]}" | tr '\n' ' ')or a class name" ;;
    esac
}

# tool adds --bootstrap-server, so that it is not typed each time.
tool() {
    [ $# -gt 0 ] || die "which tool? for example: $0 tool kafka-topics --list"
    local name=${1%.sh} class
    class=$(tool_class "$1")
    shift
    # A class name knows its own options; the arguments may hold dots, as names of groups do.
    case "$name" in
    kafka-dump-log | *perf-test | *.*) ;;
    *) case " $* " in
        *" --bootstrap-server "* | *" --bootstrap-server="*) ;;
        *) set -- --bootstrap-server "$(addresses plain_port)" "$@" ;;
        esac ;;
    esac
    run_java 256m WARN SYSTEM_ERR "$class" "$@"
}

# --- commands ----------------------------------------------------------------

start() {
    fetch
    if load; then
        [ "${BROKERS:-$brokers}" = "$brokers" ] ||
            die "instance '$instance' has $brokers broker(s), not $BROKERS: run $0 clean first, or name another with KAFKA_INSTANCE"
    else
        create_instance
        load
    fi
    local i formatters=()
    # Formatting starts a JVM for each, so they go side by side.
    for ((i = 1; i <= brokers; i++)); do
        mkdir -p "$(broker_home "$i")"
        broker_alive "$i" || { write_broker_config "$i"; format_broker "$i" & formatters+=($!); }
    done
    launch_registry
    for i in ${formatters[@]+"${formatters[@]}"}; do wait "$i" || die "formatting failed"; done
    for ((i = 1; i <= brokers; i++)); do launch_broker "$i"; done
    for ((i = 1; i <= brokers; i++)); do wait_broker "$i"; done
    wait_registry
    print_env >"$home/env"
    (umask 077 && print_env --sasl >"$home/env.sasl")
    say "$brokers broker(s) and the schema registry are ready"
    sed 's/^export //' "$home/env"
    echo
    echo "# with SASL/SCRAM and TLS:"
    sed 's/^export //' "$home/env.sasl"
    echo
    echo "# for a shell:  eval \"\$(${BASH_SOURCE[0]} env)\"   or with authentication:  eval \"\$(${BASH_SOURCE[0]} env --sasl)\""
}

# All are told at once: a broker that leaves in good order needs the quorum,
# which the last ones have not.
stop() {
    load || return 0
    local i jobs=()
    for ((i = 1; i <= brokers; i++)); do end_broker "$i" TERM & jobs+=($!); done
    end_registry TERM & jobs+=($!)
    wait "${jobs[@]}"
    say "instance '$instance' is stopped"
}

clean() {
    stop
    rm -rf "$home"
    say "instance '$instance' is deleted"
}

status() {
    load || die "instance '$instance' was never started"
    local i
    for ((i = 1; i <= brokers; i++)); do
        if broker_alive "$i"; then
            echo "broker $i    running  pid $(cat "$(broker_home "$i")/pid")  $host:$(plain_port "$i")  sasl $host:$(sasl_port "$i")"
        else
            echo "broker $i    stopped"
        fi
    done
    if registry_alive; then
        echo "registry    running  pid $(cat "$(registry_home)/pid")  http://$host:$registry_port"
    else
        echo "registry    stopped"
    fi
}

broker_number() {
    [[ ${1:-} =~ ^[1-9]$ ]] && [ "$1" -le "$brokers" ] || die "which broker? 1 to $brokers"
}

command=${1:-help}
[ $# -eq 0 ] || shift
case $command in
start | stop | clean | status | fetch) ;;
env | tool) need ;;
start-broker | stop-broker | kill-broker) need && broker_number "$@" ;;
start-registry | stop-registry | kill-registry) need ;;
*)
    sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac

case $command in
start) start ;;
stop) stop ;;
clean) clean ;;
status) status ;;
fetch) fetch ;;
env) print_env "$@" ;;
tool) tool "$@" ;;
start-broker)
    launch_broker "$1"
    wait_broker "$1"
    ;;
stop-broker) end_broker "$1" TERM ;;
kill-broker) end_broker "$1" KILL ;;
start-registry)
    launch_registry
    wait_registry
    ;;
stop-registry) end_registry TERM ;;
kill-registry) end_registry KILL ;;
esac
