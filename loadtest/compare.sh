#!/usr/bin/env bash
# Measures servers side by side: the same workloads on each in turn, A B A B, every time on a server that was just
# started; then a table of medians and ratios on the standard output, and a page with the curves beside the results.
#
#   loadtest/compare.sh                      Fanwire and every peer that is installed
#   loadtest/compare.sh fanwire sockudo      these; what others are compared with comes first
#   loadtest/compare.sh -w lone -w idle      these workloads of those below; -w may also bring one of its own:
#   loadtest/compare.sh -w 'small: fanout --clients 100 --channels 10' fanwire soketi
#   loadtest/compare.sh -l                   which servers and workloads there are, and how to install what is missing
#
# A server is a file in loadtest/peers/; where its program is, if not in PATH, a variable says: SOCKUDO=/path/to/sockudo.
# REPEAT (3) is how often each is measured, PORT (7001) and the one above it are what the servers listen on,
# RUNS (loadtest/runs/DATE-MACHINE) is where results go, LOADTEST (target/release/loadtest) is what measures.
#
# Interrupting it ends what it started, and prints the table of what was measured until then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' loadtest/compare.sh >&2; }
say() { printf '%s\n' "$*" >&2; }

loadtest=${LOADTEST:-target/release/loadtest}
peers=loadtest/peers
repeat=${REPEAT:-3}
port=${PORT:-7001}
runs=${RUNS:-loadtest/runs/$(date -u +%F)-${MACHINE:-$(uname -n)}}

# name: scenario and its arguments
known_workloads=(
  'lone: fanout --clients 10000'
  'sixteen: sustain --clients 1000 --in-flight 16'
  'steady: sustain --clients 1000 --rate 500'
  'flood: sustain --clients 1000 --rate 4000'
  'crossed: fanout --clients 5000 --channels 50 --per-client 10 --at-once 50'
  'connect: connect --clients 10000'
  'presence: presence --members 1000 --joins 100'
  'churn: churn --clients 1000 --rate 100'
  'mixed: mixed --huge 18000'
  'idle: idle --clients 10000'
)

# What the files in loadtest/peers/ tell, by the server's name; Fanwire comes first.
known_servers=(fanwire)
declare -A program_of install_of lacking_of
for file in "$peers"/*.sh; do
  name=$(basename "$file" .sh) program='' install='' lacking=''
  # shellcheck source=/dev/null
  source "$file"
  program_of[$name]=$program install_of[$name]=$install lacking_of[$name]=$lacking
  [[ $name == fanwire ]] || known_servers+=("$name")
done

# Calls a function of a server's file, `version` or `start`. It has to be in a process of its own.
of() { # server, function, its arguments...
  # shellcheck source=/dev/null
  source "$peers/$1.sh"
  "${@:2}"
}

is_installed() { [[ -n $(type -P "${program_of[$1]}") ]]; }

list() {
  local server
  for server in "${known_servers[@]}"; do
    if is_installed "$server"; then
      say "$server: $(of "$server" version)"
    else
      say "$server is not installed: ${install_of[$server]}"
    fi
  done
  printf '%s\n' "${known_workloads[@]}" >&2
}

# The workload of that name, or the one that was spelled out.
workload() {
  local known
  for known in "${known_workloads[@]}"; do
    if [[ ${known%%:*} == "$1" ]]; then
      echo "$known"
      return
    fi
  done
  if [[ $1 != *:* ]]; then
    say "there is no workload $1, and it is none: 'NAME: SCENARIO ARGUMENTS'"
    return 1
  fi
  echo "$1"
}

workloads=()
while getopts 'w:lh' option; do
  case $option in
    w) workloads+=("$(workload "$OPTARG")") ;;
    l) list && exit ;;
    h) usage && exit ;;
    *) usage && exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[[ ${#workloads[@]} -gt 0 ]] || workloads=("${known_workloads[@]}")

if ! type -P "$loadtest" >/dev/null; then
  say "$loadtest is not there: cargo build --release -p loadtest"
  exit 1
fi

servers=()
[[ $# -gt 0 ]] || set -- "${known_servers[@]}"
for server; do
  if [[ -z ${program_of[$server]:-} ]]; then
    say "there is no server $server; known are: ${known_servers[*]}"
    exit 2
  elif is_installed "$server"; then
    servers+=("$server")
  else
    say "!! LEFT OUT: $server, which is not installed: ${install_of[$server]}"
  fi
done
[[ ${#servers[@]} -gt 0 ]] || exit 1

# What runs at the moment, ours alone to end.
server_pid='' loadtest_pid='' interrupted=''
logs=$(mktemp -d)

# Asks a child to end, and insists after five seconds.
end() { # pid
  [[ -n $1 ]] || return 0
  kill "$1" 2>/dev/null || true
  local tenth
  for tenth in {1..50}; do
    kill -0 "$1" 2>/dev/null || break
    sleep 0.1
    [[ $tenth != 50 ]] || kill -KILL "$1" 2>/dev/null || true
  done
  wait "$1" 2>/dev/null || true
}

clean_up() {
  end "$loadtest_pid"
  end "$server_pid"
  rm -rf "$logs"
}
trap clean_up EXIT
# At the terminal the interrupt has reached the load generator as well: it reports what it has and ends.
trap 'interrupted=yes' INT
trap 'interrupted=yes; [[ -z $loadtest_pid ]] || kill -INT "$loadtest_pid"' TERM

# Whether an HTTP request to the port gets any answer.
answers() {
  local line=''
  {
    printf 'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&3
    read -r -t 2 line <&3
  } 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$port"
  [[ $line == HTTP/* ]]
}

# Starts a server and waits until it answers, half a minute at most.
start_server() { # server
  if answers; then
    say "something else answers on port $port; PORT=... chooses another"
    exit 1
  fi
  # In a group of its own: an interrupt at the terminal must not end it before the load generator has looked at it.
  set -m
  (of "$1" start "$port" $((port + 1))) >"$logs/$1" 2>&1 </dev/null &
  server_pid=$!
  set +m
  local tenth
  for tenth in {1..300}; do
    ! answers || return 0
    if [[ -n $interrupted ]]; then return 1; fi
    kill -0 "$server_pid" 2>/dev/null || break
    sleep 0.1
  done
  say "$1 did not start:" "$(tail -n 5 "$logs/$1")"
  return 1
}

stop_server() {
  end "$server_pid"
  server_pid=''
}

# Runs the load generator until it ends by itself, which it also does when interrupted.
measure() { # arguments...
  "$loadtest" "$@" --port "$port" --pid "$server_pid" >&2 &
  loadtest_pid=$!
  local status=0
  while kill -0 "$loadtest_pid" 2>/dev/null; do
    status=0
    wait "$loadtest_pid" || status=$?
  done
  loadtest_pid=''
  return "$status"
}

# Every server inherits it.
ulimit -n "$(ulimit -Hn)"
mkdir -p "$runs"
for server in "${servers[@]}"; do
  echo "$server: $(of "$server" version)"
done | tee "$runs/servers.txt" >&2

results=()
for line in "${workloads[@]}"; do
  name=${line%%:*}
  read -ra arguments <<<"${line#*:}"
  for round in $(seq "$repeat"); do
    for server in "${servers[@]}"; do
      [[ -z $interrupted ]] || break 3
      if [[ " ${lacking_of[$server]} " == *" ${arguments[0]} "* ]]; then
        [[ $round != 1 ]] || say "!! LEFT OUT: $server in $name, as it knows nothing of ${arguments[0]}"
        continue
      fi
      say "== $name, $server, $round of $repeat"
      result=$runs/$name.$server.$round.json
      if start_server "$server" && measure "${arguments[@]}" --label "$server" --json "$result"; then
        results+=("$result")
      elif [[ -z $interrupted ]]; then
        say "!! NOT MEASURED: $name, $server, $round of $repeat"
      fi
      stop_server
    done
  done
done

[[ ${#results[@]} -gt 0 ]] || exit 1
"$loadtest" report "${results[@]}" --out "$runs/report.html" >&2
"$loadtest" table "${results[@]}" | tee "$runs/table.txt"
[[ -z $interrupted ]] || exit 130
