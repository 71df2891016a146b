package board

// Labels of the queries: of a member, and of a topic at a member.
const (
	member = `namespace=~"$namespace", job=~"$job", instance=~"$instance"`
	topics = member + `, topic=~"$topic"`
)

func rows() []row {
	return []row{healthy(), keepingUp(), losing(), sink(), partitions(), process()}
}

func healthy() row {
	return row{"Is it healthy?", []panel{
		stat("Delivering", "Whether every member delivers. If not: /readyz of the member says why and what to do; so does bridge status.",
			"none", `min(bridge_ready{`+member+`})`).saying(word{0, "no", "red"}, word{1, "yes", "green"}),
		stat("Members", "Members of the group that Prometheus reaches. Fewer than you run: look at the pods; none: nothing is delivered.",
			"none", `count(bridge_group_info{`+member+`}) or vector(0)`).saying(word{0, "none", "red"}),
		stat("Sink", "The worst state of a member's sink. retrying mends itself; blocked is a fault of configuration, and /readyz holds the remedy.",
			"none", `max(2 * bridge_sink_state{`+member+`, state="blocked"} + ignoring (state) bridge_sink_state{`+member+`, state="retrying"})`).
			saying(word{0, "ready", "green"}, word{1, "retrying", "orange"}, word{2, "blocked", "red"}),
		stat("Blocked partitions", "Partitions that wait for a person: nearly every row is refused, or dead letters cannot be written. Compare blueprint and table with bridge check.",
			"none", `sum(bridge_assigned_partitions{`+member+`, state="blocked"})`, step{1, "red"}),
		stat("Oldest in hand", "Age of the oldest event read and not yet acknowledged. Above five minutes: see whether the sink is slow, and which partition it is, below.",
			"s", `max(bridge_oldest_unacked_age_seconds{`+topics+`})`, step{60, "orange"}, step{300, "red"}),
		stat("Time to catch up", "Lag divided by the present pace. It should fall; if it rises, add members up to the number of partitions.",
			"s", `sum(bridge_lag_events{`+topics+`}) / (sum(`+settled+`) > 0) or sum(bridge_lag_events{`+topics+`}) == 0`, step{300, "orange"}, step{3600, "red"}).empty("nothing moves"),
		stat("Unaccounted for", "Events that were read and are in no account. Anything but 0 is a fault of the bridge: keep the log and report it.",
			"none", `sum(bridge_conservation_imbalance_events{`+member+`})`, step{1, "red"}),
		stat("Rejected", "Share of events that became no row in the last hour. bridge dlq list says why.",
			"percentunit", `sum(increase(bridge_events_rejected_total{`+topics+`}[1h])) / (sum(increase(bridge_partition_conservation_events_total{`+topics+`, account=~"delivered|dead_lettered|skipped|filtered"}[1h])) > 0)`,
			step{0.001, "orange"}, step{0.05, "red"}).empty("no event in an hour"),
		timeline("Alerts", "Alerts of deploy/prometheus/rules.yaml about these members. Each has a section in docs/operations.md.",
			`max by (alertname) (ALERTS{alertname=~"Bridge.+", alertstate="firing", namespace=~"$namespace", job=~"$job|"})`, "{{alertname}}", word{1, "firing", "red"}).empty("no alert fires"),
		timeline("Members", "When each member delivered. A gap is a member that was not there; the same gap at all of them is Kafka or the workspace.",
			`bridge_ready{`+member+`}`, "{{instance}}", word{0, "not ready", "red"}, word{1, "ready", "green"}),
	}}
}

// settled is the pace: what got to its end in a second, be it a row or not.
const settled = `rate(bridge_partition_conservation_events_total{` + topics + `, account=~"delivered|dead_lettered|skipped|filtered"}[$__rate_interval])`

func keepingUp() row {
	return row{"Is it keeping up?", []panel{
		graph("Events per second", "Read and delivered should lie on each other. Read above delivered for long: the sink is the bottleneck, see its row.",
			"eps",
			q(`sum(rate(bridge_events_read_total{`+topics+`}[$__rate_interval]))`, "read"),
			q(`sum(rate(bridge_rows_delivered_total{`+topics+`}[$__rate_interval]))`, "delivered"),
			q(`sum(rate(bridge_events_filtered_total{`+topics+`}[$__rate_interval]))`, "filtered"),
			q(`sum(rate(bridge_events_rejected_total{`+topics+`}[$__rate_interval]))`, "rejected")),
		graph("Lag", "Events between the last one delivered and the end. It grows at a steady slope: too few members or a slow sink. It grows at one partition: see the row of partitions.",
			"short", q(`sum by (topic) (bridge_lag_events{`+topics+`})`, "{{topic}}")),
		graph("Time to catch up", "Lag divided by the present pace. Rising means falling behind: add members up to the number of partitions, or see why the sink is slow.",
			"s", q(`sum by (topic) (bridge_lag_events{`+topics+`}) / (sum by (topic) (`+settled+`) > 0) or sum by (topic) (bridge_lag_events{`+topics+`}) == 0`, "{{topic}}")).empty("nothing moves"),
		graph("Oldest event in hand", "How late an event is between Kafka and the table. Above five minutes an alert begins.",
			"s", q(`max by (topic) (bridge_oldest_unacked_age_seconds{`+topics+`})`, "{{topic}}")),
		graph("Buffer", "Share of delivery.max_buffered in use. Full while catching up is normal; full for long means the sink is slower than the topics.",
			"percentunit", q(`bridge_buffered_bytes{`+member+`} / bridge_buffered_limit_bytes{`+member+`}`, "{{instance}}")),
		graph("Bytes per second", "Events as read, and rows as encoded. For sizing networks and bills.",
			"Bps",
			q(`sum(rate(bridge_events_read_bytes_total{`+topics+`}[$__rate_interval]))`, "read"),
			q(`sum(rate(bridge_rows_delivered_bytes_total{`+topics+`}[$__rate_interval]))`, "delivered")),
	}}
}

func losing() row {
	return row{"Is it losing?", []panel{
		graph("Books", "What becomes of events, per second. read is the sum of the others once in flight is back to where it was. dropped is let go at a rebalance and read again.",
			"eps", q(`sum by (account) (rate(bridge_conservation_events_total{`+member+`}[$__rate_interval]))`, "{{account}}")),
		graph("Unaccounted for", "Always 0. Anything else is a fault of the bridge: keep the log and report it.",
			"short",
			q(`bridge_conservation_imbalance_events{`+member+`}`, "{{instance}}"),
			q(`bridge_partition_conservation_imbalance_events{`+topics+`} != 0`, "{{topic}}/{{partition}}")),
		graph("Lost by Kafka", "Offsets removed before the group had passed them, in an hour. Anything but 0: raise the topic's retention; the member's log has the ranges.",
			"short", q(`sum by (topic) (increase(bridge_lost_offsets_total{`+topics+`}[1h]))`, "{{topic}}")),
		graph("Offsets without an event", "Transaction markers, aborted events and compacted offsets passed, in an hour. They are no loss; with plain producers there are none.",
			"short", q(`sum by (topic) (increase(bridge_skipped_offsets_total{`+topics+`}[1h]))`, "{{topic}}")),
		graph("In flight", "Events read and in no account yet, and those that wait for an acknowledgement. They rise and fall together.",
			"short",
			q(`sum(bridge_conservation_in_flight_events{`+member+`})`, "in flight"),
			q(`sum(bridge_pending_events{`+member+`})`, "pending")),
		graph("Rejected, by code", "Events that can never be a row. A step up means that a producer, the blueprint or the table changed: bridge dlq list, then bridge dlq redrive.",
			"eps", q(`sum by (code) (rate(bridge_events_rejected_total{`+topics+`}[$__rate_interval])) > 0`, "{{code}}")).empty("no event is rejected"),
		graph("Dead letters", "Letters acknowledged by the dead-letter topic, in an hour. Redrive them within that topic's retention.",
			"short", q(`sum by (topic) (increase(bridge_dead_letters_total{`+topics+`}[1h]))`, "{{topic}}")),
		graph("Filtered, by reason", "Events dropped by rule. A reason you did not expect: see filter in the blueprint, with bridge map.",
			"eps", q(`sum by (reason) (rate(bridge_events_filtered_total{`+topics+`}[$__rate_interval])) > 0`, "{{reason}}")).empty("no event is filtered"),
		graph("Commits", "Offset commits per second. Errors without successes for minutes: a restart would deliver again what was delivered since; look at brokers and grants.",
			"ops", q(`sum by (result) (rate(bridge_commits_total{`+member+`}[$__rate_interval]))`, "{{result}}")),
		graph("Since the last commit", "How much a crash now would deliver again, in time. It grows while nothing arrives, which is harmless.",
			"s", q(`time() - (bridge_last_commit_timestamp_seconds{`+member+`} > 0)`, "{{instance}}")).empty("nothing is committed yet"),
		graph("Batches cut in two", "The table refused a row, and the batch was halved until it stood alone. Many: most rows are refused, compare blueprint and table.",
			"ops", q(`sum by (topic) (rate(bridge_batch_halvings_total{`+topics+`}[$__rate_interval]))`, "{{topic}}")),
	}}
}

func sink() row {
	quantile := func(p, name string) string {
		return `histogram_quantile(` + p + `, sum by (le) (rate(` + name + `_bucket{` + member + `}[$__rate_interval]))) >= 0`
	}
	mean := func(name string) string {
		return `sum(rate(` + name + `_sum{` + member + `}[$__rate_interval])) / (sum(rate(` + name + `_count{` + member + `}[$__rate_interval])) > 0)`
	}
	return row{"Is the sink slow?", []panel{
		timeline("Sink", "retrying mends itself. blocked waits for a person; /readyz holds the remedy.",
			`2 * bridge_sink_state{`+member+`, state="blocked"} + ignoring (state) bridge_sink_state{`+member+`, state="retrying"}`, "{{instance}}",
			word{0, "ready", "green"}, word{1, "retrying", "orange"}, word{2, "blocked", "red"}),
		graph("Retries, by reason", "throttled: ask for a higher quota or lower zerobus.rate_limit. timeout, network: the way there. unavailable: the workspace; wait.",
			"ops", q(`sum by (reason) (rate(bridge_sink_retries_total{`+member+`}[$__rate_interval])) > 0`, "{{reason}}")).empty("no request is repeated").sized(12, 7),
		graph("Acknowledgement", "From the start of a write to its acknowledgement, retries included: what bounds a partition's pace. Far above the request below: retries.",
			"s",
			q(quantile("0.5", "bridge_ack_latency_seconds"), "p50"),
			q(quantile("0.9", "bridge_ack_latency_seconds"), "p90"),
			q(quantile("0.99", "bridge_ack_latency_seconds"), "p99")).empty("nothing is written"),
		heat("Acknowledgement, all", "Two bands: some partitions or some members are slower than others. One band that rises: the workspace.",
			"s", `sum by (le) (increase(bridge_ack_latency_seconds_bucket{`+member+`}[$__rate_interval]))`).empty("nothing is written"),
		graph("Request", "One request until the last byte of its answer. Slow here is the network or the workspace, not the bridge.",
			"s",
			q(quantile("0.5", "bridge_sink_request_duration_seconds"), "p50"),
			q(quantile("0.99", "bridge_sink_request_duration_seconds"), "p99")).empty("nothing is asked"),
		graph("Requests, by outcome", "blocked and refused are told apart: blocked holds everything up until mended, refused rejects single rows.",
			"ops", q(`sum by (outcome) (rate(bridge_sink_requests_total{`+member+`}[$__rate_interval])) > 0`, "{{outcome}}")).empty("nothing is asked"),
		graph("Rows per batch", "Small batches mean it keeps up with ease. At delivery.max_rows with lag: raise that, or add partitions.",
			"short", q(mean("bridge_batch_rows"), "mean"), q(quantile("0.99", "bridge_batch_rows"), "p99")).empty("nothing is written"),
		graph("Bytes per batch", "At delivery.max_bytes with lag: raise that.",
			"bytes", q(mean("bridge_batch_bytes"), "mean"), q(quantile("0.99", "bridge_batch_bytes"), "p99")).empty("nothing is written"),
		graph("Token", "Left until it expires, and since it was minted. It is renewed five minutes ahead; lower means renewal fails. An idle bridge lets it lapse.",
			"s",
			q(`min(bridge_token_expires_in_seconds{`+member+`})`, "expires in"),
			q(`max(bridge_token_age_seconds{`+member+`})`, "age")).empty("no token is held"),
		graph("Token requests", "Errors: client id, secret, or the way to the workspace. bridge check tells which.",
			"ops", q(`sum by (result) (rate(bridge_token_mints_total{`+member+`}[$__rate_interval]))`, "{{result}}")),
		graph("Streams", "Open streams, opened and ended per minute. announced ends are the service's own, every quarter of an hour or so; failed ones are lost connections.",
			"short",
			q(`count(bridge_sink_stream_info{`+member+`})`, "open"),
			q(`60 * sum(rate(bridge_sink_streams_opened_total{`+member+`}[$__rate_interval]))`, "opened"),
			q(`60 * sum by (reason) (rate(bridge_sink_streams_ended_total{`+member+`}[$__rate_interval])) > 0`, "{{reason}}")),
	}}
}

func partitions() row {
	return row{"Partitions", []panel{
		table("Partitions", "Sort by oldest to find the one that is stuck, by lag for the one that is behind. One far above the others is a hot key, or a slow member.",
			"Lag", map[string]string{"topic": "Topic", "partition": "Partition", "instance": "Instance", "Value #A": "Lag", "Value #B": "Oldest in hand, s", "Value #C": "Settled per second", "Value #D": "In flight"},
			q(`bridge_lag_events{`+topics+`}`, ""),
			q(`bridge_oldest_unacked_age_seconds{`+topics+`}`, ""),
			q(`sum without (account) (`+settled+`)`, ""),
			q(`bridge_partition_conservation_in_flight_events{`+topics+`}`, "")),
		graph("Greatest lag", "The ten that are furthest behind. One alone: a hot key or a stuck partition; all: see the sink.",
			"short", q(`topk(10, bridge_lag_events{`+topics+`})`, "{{topic}}/{{partition}}")),
		graph("Oldest in hand", "The ten that wait longest. A straight slope of one second per second is a partition that does not move; /readyz names its offset.",
			"s", q(`topk(10, bridge_oldest_unacked_age_seconds{`+topics+`})`, "{{topic}}/{{partition}}")),
		graph("What they are doing", "blocked needs a person. rejecting for long: the dead-letter topic is slow.",
			"short", q(`sum by (state) (bridge_assigned_partitions{`+member+`})`, "{{state}}")),
		graph("Paused", "Fetches held back by the buffer budget. Normal while catching up.",
			"short", q(`bridge_paused_partitions{`+member+`}`, "{{instance}}")),
		graph("Rebalances", "Times partitions were given or taken, in ten minutes. Without a rollout or scaling they mean members that come and go; lost means expelled.",
			"short", q(`sum by (kind) (increase(bridge_rebalances_total{`+member+`}[10m]))`, "{{kind}}")),
		graph("Partitions moved", "Partitions given or taken, in ten minutes. All of them at each rollout: set kafka.instance_id.",
			"short", q(`sum by (kind) (increase(bridge_rebalanced_partitions_total{`+member+`}[10m]))`, "{{kind}}")),
	}}
}

func process() row {
	return row{"Process", []panel{
		graph("CPU", "Cores in use. At the container's limit members miss heartbeats: set no CPU limit, or a higher one.",
			"short", q(`rate(process_cpu_seconds_total{`+member+`}[$__rate_interval])`, "{{instance}}")),
		graph("CPU per million rows", "Rises when batches get small, which is fine at low traffic, or when rows got larger.",
			"s", q(`1e6 * sum(rate(process_cpu_seconds_total{`+member+`}[$__rate_interval])) / (sum(rate(bridge_rows_delivered_total{`+member+`}[$__rate_interval])) > 0)`, "CPU")).empty("no row is delivered"),
		graph("Memory", "Resident, against the soft limit of the Go runtime. What to plan with is in docs/operations.md under Memory.",
			"bytes",
			q(`process_resident_memory_bytes{`+member+`}`, "{{instance}}"),
			q(`min(go_gc_gomemlimit_bytes{`+member+`} < 1e15)`, "soft limit")),
		graph("Pauses of the collector", "Share of time the collector stopped the process. Above 1 %: raise GOMEMLIMIT.",
			"percentunit", q(`rate(go_gc_duration_seconds_sum{`+member+`}[$__rate_interval])`, "{{instance}}")),
		graph("Goroutines", "A few per partition and connection. It should not grow without them.",
			"short", q(`go_goroutines{`+member+`}`, "{{instance}}")),
		graph("File descriptors", "Share of the process's limit. Near 1: raise the limit (ulimit -n).",
			"percentunit", q(`process_open_fds{`+member+`} / process_max_fds{`+member+`}`, "{{instance}}")),
		graph("Poll loop", "Since its last turn. It stops while the buffer is full; with room, two minutes make /livez fail.",
			"s",
			q(`bridge_poll_age_seconds{`+member+`}`, "{{instance}}"),
			q(`120 * (1 - bridge_live{`+member+`})`, "{{instance}} is dead")),
		graph("Restarts", "In an hour. Each moves partitions; more than a rollout's need a look at the log's last lines.",
			"short", q(`changes(process_start_time_seconds{`+member+`}[1h])`, "{{instance}}")),
		graph("Dropped log lines", "In an hour. Standard error is not read in time or cannot be written: check the container's log driver and its disk.",
			"short", q(`increase(bridge_log_lines_dropped_total{`+member+`}[1h])`, "{{instance}}")),
		timeline("Configuration", "refused: the file on disk was changed and does not pass, and the one before stays in force. /status says what is wrong.",
			`bridge_config_reload_success{`+member+`}`, "{{instance}}", word{0, "refused", "red"}, word{1, "in force", "green"}).sized(8, 8),
		graph("Reloads", "Changed configurations and blueprints, in an hour. An error: see Configuration.",
			"short", q(`sum by (result) (increase(bridge_config_reloads_total{`+member+`}[1h]))`, "{{result}}")),
		stat("Last load", "Since a member last took its configuration. Members that differ after a change of a ConfigMap have not all seen it: wait for the kubelet, a minute or so.",
			"s", `max(time() - (bridge_config_reload_timestamp_seconds{`+member+`} > 0))`).sized(8, 8),
		table("Versions", "What is running. Several at once outside a rollout: one of them was forgotten.",
			"Members", map[string]string{"version": "Version", "revision": "Revision", "goversion": "Go", "Value": "Members"},
			q(`count by (version, revision, goversion) (bridge_build_info{`+member+`})`, "")).sized(8, 8),
	}}
}
