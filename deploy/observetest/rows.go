package observetest

// Labels of the queries: of a process, of its integrations, and of their topics.
const (
	process = `namespace=~"$namespace", job=~"$job", instance=~"$instance"`
	member  = process + `, integration=~"$integration"`
	topics  = member + `, topic=~"$topic"`
)

func rows() []row {
	return []row{healthy(), integrations(), keepingUp(), losing(), sink(), partitions(), processes()}
}

func healthy() row {
	return row{"Is it healthy?", []panel{
		stat("Delivering", "Whether every member delivers. If not, /readyz of the member and `bridge status` show the reason and the remedy.",
			"none", `min(bridge_ready{`+member+`})`).words(word{0, "no", "red"}, word{1, "yes", "green"}),
		stat("Members", "Members of the group that Prometheus scrapes. Fewer than you run: check the pods. None: no events are delivered.",
			"none", `count(bridge_group_info{`+member+`}) or vector(0)`).words(word{0, "none", "red"}),
		stat("Sink", "The worst state of any member's sink. retrying: a transient error, which resolves automatically. blocked: a configuration error; /readyz shows the remedy.",
			"none", `max(2 * bridge_sink_state{`+member+`, state="blocked"} + ignoring (state) bridge_sink_state{`+member+`, state="retrying"})`).
			words(word{0, "ready", "green"}, word{1, "retrying", "orange"}, word{2, "blocked", "red"}),
		stat("Blocked partitions", "Partitions on which someone has to act: most rows are refused, or dead letters cannot be written. Compare blueprint and table with `bridge check`.",
			"none", `sum(bridge_assigned_partitions{`+member+`, state="blocked"})`, step{1, "red"}),
		stat("Oldest unacknowledged", "Age of the oldest event read and not yet acknowledged. Above five minutes: check below whether the sink is slow, and which partition it is.",
			"s", `max(bridge_oldest_unacked_age_seconds{`+topics+`})`, step{60, "orange"}, step{300, "red"}),
		stat("Time to catch up", "Lag divided by the present rate. If it rises, add members, up to the number of partitions.",
			"s", `sum(bridge_lag_events{`+topics+`}) / (sum(`+completed+`) > 0) or sum(bridge_lag_events{`+topics+`}) == 0`, step{300, "orange"}, step{3600, "red"}).empty("no progress"),
		stat("Unaccounted for", "Events read that the ledger does not account for. Any other value than 0 is a bug in the bridge: keep the log and report it.",
			"none", `sum(bridge_ledger_unaccounted_events{`+member+`})`, step{1, "red"}),
		stat("Rejected", "Share of events rejected in the last hour. Run `bridge dlq list` for the reasons.",
			"percentunit", `sum(increase(bridge_events_rejected_total{`+topics+`}[1h])) / (sum(increase(bridge_partition_ledger_events_total{`+topics+`, outcome=~"delivered|dead_lettered|skipped|filtered"}[1h])) > 0)`,
			step{0.001, "orange"}, step{0.05, "red"}).empty("no event in an hour"),
		timeline("Alerts", "Firing alerts of deploy/prometheus/rules.yaml about these members. Each has a section in docs/operations.md.",
			`max by (integration, alertname) (ALERTS{alertname=~"Bridge.+", alertstate="firing", namespace=~"$namespace", job=~"$job|", integration=~"$integration|"})`, "{{integration}} {{alertname}}", word{1, "firing", "red"}).empty("no alert fires"),
		timeline("Members", "When each member delivered. A gap is a member that was down; the same gap at all members is Kafka or the workspace.",
			`bridge_ready{`+member+`}`, "{{integration}} {{instance}}", word{0, "not ready", "red"}, word{1, "ready", "green"}),
	}}
}

func integrations() row {
	return row{"Which integration?", []panel{
		table("Integrations", "One line for each integration. Choose one above to see the other rows for it alone. Failed: `bridge status` shows the reason and the next try.",
			"Seconds behind", map[string]string{"integration": "Integration", "Value #A": "Members that deliver", "Value #B": "Members that do not", "Value #C": "Members on which it failed", "Value #D": "Seconds behind",
				"Value #E": "Lag", "Value #F": "Oldest unacknowledged, s", "Value #G": "Rows per second", "Value #H": "Rejected in an hour", "Value #I": "Dead letters in an hour"},
			q(`sum by (integration) (bridge_ready{`+member+`})`, ""),
			q(`sum by (integration) (1 - bridge_ready{`+member+`})`, ""),
			q(`sum by (integration) (bridge_integration_state{`+member+`, state="failed"})`, ""),
			q(`max by (integration) (bridge_seconds_behind{`+member+`})`, ""),
			q(`sum by (integration) (bridge_lag_events{`+topics+`})`, ""),
			q(`max by (integration) (bridge_oldest_unacked_age_seconds{`+topics+`})`, ""),
			q(`sum by (integration) (rate(bridge_rows_delivered_total{`+topics+`}[$__rate_interval]))`, ""),
			q(`sum by (integration) (increase(bridge_events_rejected_total{`+topics+`}[1h]))`, ""),
			q(`sum by (integration) (increase(bridge_dead_letters_total{`+topics+`}[1h]))`, "")),
		graph("Seconds behind", "What autoscalers scale by; blocked integrations are left out. If it stays above a minute, see `Is it keeping up?` for that integration.",
			"s", q(`max by (integration) (bridge_seconds_behind{`+member+`})`, "{{integration}}")).empty("all are blocked, or none has read anything"),
		graph("Members by state", "failed: the integration ended with an error and is started again after a pause; /status shows the reason.",
			"short", q(`sum by (integration, state) (bridge_integration_state{`+member+`}) > 0`, "{{integration}} {{state}}")).empty("no integration"),
		graph("Integrations by state", "The most that any member has. Members differ while a change of the configuration reaches them; if that lasts, see Configuration.",
			"short", q(`max by (state) (bridge_integrations{`+process+`}) > 0`, "{{state}}")).empty("no integration"),
	}}
}

// completed is the rate of events with a final outcome, rows or not.
const completed = `rate(bridge_partition_ledger_events_total{` + topics + `, outcome=~"delivered|dead_lettered|skipped|filtered"}[$__rate_interval])`

func keepingUp() row {
	return row{"Is it keeping up?", []panel{
		graph("Events per second", "read and delivered should be equal. read above delivered for long: the sink is the bottleneck; see its row.",
			"eps",
			q(`sum(rate(bridge_events_read_total{`+topics+`}[$__rate_interval]))`, "read"),
			q(`sum(rate(bridge_rows_delivered_total{`+topics+`}[$__rate_interval]))`, "delivered"),
			q(`sum(rate(bridge_events_filtered_total{`+topics+`}[$__rate_interval]))`, "filtered"),
			q(`sum(rate(bridge_events_rejected_total{`+topics+`}[$__rate_interval]))`, "rejected")),
		graph("Lag", "Events from the last delivered one to the end of the log. Steady growth: too few members or a slow sink. Growth on one partition: see the row Partitions.",
			"short", q(`sum by (integration, topic) (bridge_lag_events{`+topics+`})`, "{{integration}} {{topic}}")),
		graph("Time to catch up", "Lag divided by the present rate. If it rises, add members up to the number of partitions, or find out why the sink is slow.",
			"s", q(`sum by (integration, topic) (bridge_lag_events{`+topics+`}) / (sum by (integration, topic) (`+completed+`) > 0) or sum by (integration, topic) (bridge_lag_events{`+topics+`}) == 0`, "{{integration}} {{topic}}")).empty("no progress"),
		graph("Oldest unacknowledged event", "How long an event waits for its acknowledgement. An alert fires above five minutes.",
			"s", q(`max by (integration, topic) (bridge_oldest_unacked_age_seconds{`+topics+`})`, "{{integration}} {{topic}}")),
		graph("Buffer", "Share of delivery.max_buffered in use. Full while catching up is normal; full for long means that the sink is slower than the topics.",
			"percentunit", q(`sum without (integration) (bridge_buffered_bytes{`+member+`}) / bridge_buffered_limit_bytes{`+process+`}`, "{{instance}}")),
		graph("Bytes per second", "Bytes of events as read and of rows as encoded. Use it to size networks and to estimate cost.",
			"Bps",
			q(`sum(rate(bridge_events_read_bytes_total{`+topics+`}[$__rate_interval]))`, "read"),
			q(`sum(rate(bridge_rows_delivered_bytes_total{`+topics+`}[$__rate_interval]))`, "delivered")),
	}}
}

func losing() row {
	return row{"Is it losing?", []panel{
		graph("Ledger", "Events per second, by outcome. read equals the sum of the others while the number in flight is constant. released events are redelivered after a rebalance.",
			"eps",
			q(`sum(rate(bridge_ledger_events_read_total{`+member+`}[$__rate_interval]))`, "read"),
			q(`sum by (outcome) (rate(bridge_ledger_events_total{`+member+`}[$__rate_interval]))`, "{{outcome}}")),
		graph("Unaccounted for", "Always 0. Any other value is a bug in the bridge: keep the log and report it.",
			"short",
			q(`bridge_ledger_unaccounted_events{`+member+`}`, "{{integration}} {{instance}}"),
			q(`bridge_partition_ledger_unaccounted_events{`+topics+`} != 0`, "{{integration}} {{topic}}/{{partition}}")),
		graph("Lost by Kafka", "Offsets removed before the group had passed them, per hour. Above 0: raise the retention of the topic. The members' logs list the ranges.",
			"short", q(`sum by (integration, topic) (increase(bridge_lost_offsets_total{`+topics+`}[1h]))`, "{{integration}} {{topic}}")),
		graph("Offsets without an event", "Transaction markers, aborted events and compacted offsets passed, per hour. They are no loss. Without transactions and compaction there are none.",
			"short", q(`sum by (integration, topic) (increase(bridge_skipped_offsets_total{`+topics+`}[1h]))`, "{{integration}} {{topic}}")),
		graph("In flight", "Events read without an outcome, and events waiting for an acknowledgement. If only the first rises, look at Unaccounted for.",
			"short",
			q(`sum(bridge_ledger_in_flight_events{`+member+`})`, "in flight"),
			q(`sum(bridge_pending_events{`+member+`})`, "pending")),
		graph("Rejected, by code", "Events that can never become a row. A step up means that a producer, the blueprint or the table changed: run `bridge dlq list`, then `bridge dlq redrive`.",
			"eps", q(`sum by (code) (rate(bridge_events_rejected_total{`+topics+`}[$__rate_interval])) > 0`, "{{code}}")).empty("no event is rejected"),
		graph("Dead letters", "Dead letters acknowledged by the dead-letter topic, per hour. Redrive them within that topic's retention.",
			"short", q(`sum by (integration, topic) (increase(bridge_dead_letters_total{`+topics+`}[1h]))`, "{{integration}} {{topic}}")),
		graph("Filtered, by reason", "Events dropped by a filter rule. If a reason is unexpected, check filter in the blueprint with `bridge map`.",
			"eps", q(`sum by (reason) (rate(bridge_events_filtered_total{`+topics+`}[$__rate_interval])) > 0`, "{{reason}}")).empty("no event is filtered"),
		graph("Commits", "Offset commits per second. Errors without successes for minutes: a restart would redeliver the rows since. Check brokers and ACLs.",
			"ops", q(`sum by (result) (rate(bridge_commits_total{`+member+`}[$__rate_interval]))`, "{{result}}")),
		graph("Since the last commit", "A crash now would redeliver the events of this time. It also grows, harmlessly, while no events arrive.",
			"s", q(`time() - (bridge_last_commit_timestamp_seconds{`+member+`} > 0)`, "{{integration}} {{instance}}")).empty("no commit yet"),
		graph("Batch splits", "The table refused a row, and its batch was split to find it. Many: most rows are refused; compare blueprint and table.",
			"ops", q(`sum by (integration, topic) (rate(bridge_batch_splits_total{`+topics+`}[$__rate_interval]))`, "{{integration}} {{topic}}")),
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
		timeline("Sink", "retrying resolves automatically. blocked needs someone to act; /readyz shows the remedy.",
			`2 * bridge_sink_state{`+member+`, state="blocked"} + ignoring (state) bridge_sink_state{`+member+`, state="retrying"}`, "{{integration}} {{instance}}",
			word{0, "ready", "green"}, word{1, "retrying", "orange"}, word{2, "blocked", "red"}),
		graph("Retries, by reason", "throttled: request a higher quota or lower zerobus.rate_limit. timeout, network: check the network path. unavailable: wait for the workspace.",
			"ops", q(`sum by (reason) (rate(bridge_sink_retries_total{`+member+`}[$__rate_interval])) > 0`, "{{reason}}")).empty("no retries").sized(12, 7),
		graph("Acknowledgement", "From the start of a write to its acknowledgement, retries included. It limits the rate of a partition. Far above Request: see the retries.",
			"s",
			q(quantile("0.5", "bridge_ack_latency_seconds"), "p50"),
			q(quantile("0.9", "bridge_ack_latency_seconds"), "p90"),
			q(quantile("0.99", "bridge_ack_latency_seconds"), "p99")).empty("no writes"),
		heat("Acknowledgement, all", "Two bands: some partitions or members are slower than others. One rising band: the workspace is slow.",
			"s", `sum by (le) (increase(bridge_ack_latency_seconds_bucket{`+member+`}[$__rate_interval]))`).empty("no writes"),
		graph("Request", "One request up to the last byte of its response. If it is slow, check the network and the workspace, not the bridge.",
			"s",
			q(quantile("0.5", "bridge_sink_request_duration_seconds"), "p50"),
			q(quantile("0.99", "bridge_sink_request_duration_seconds"), "p99")).empty("no requests"),
		graph("Requests, by outcome", "blocked: a configuration error stops delivery until it is fixed. refused: single rows are rejected.",
			"ops", q(`sum by (outcome) (rate(bridge_sink_requests_total{`+member+`}[$__rate_interval])) > 0`, "{{outcome}}")).empty("no requests"),
		graph("Rows per batch", "Small batches mean that the bridge keeps up easily. At delivery.max_rows or delivery.max_bytes with lag: raise that, or add partitions.",
			"short", q(mean("bridge_batch_rows"), "mean"), q(quantile("0.99", "bridge_batch_rows"), "p99")).empty("no writes"),
		graph("Bytes per batch", "At delivery.max_bytes with lag: raise delivery.max_bytes.",
			"bytes", q(mean("bridge_batch_bytes"), "mean"), q(quantile("0.99", "bridge_batch_bytes"), "p99")).empty("no writes"),
		graph("Token", "Time until it expires, and since it was issued. It is refreshed five minutes before expiry; lower means that requests fail. An idle bridge lets it expire.",
			"s",
			q(`min(bridge_token_expires_in_seconds{`+member+`})`, "expires in"),
			q(`max(bridge_token_age_seconds{`+member+`})`, "age")).empty("no token"),
		graph("Token requests", "Errors: client id, secret, or the network path to the workspace. `bridge check` shows which.",
			"ops", q(`sum by (result) (rate(bridge_token_mints_total{`+member+`}[$__rate_interval]))`, "{{result}}")),
		graph("Streams", "Open streams, and streams opened and ended per minute. announced: the service closes a stream about every 15 minutes. failed: check the network.",
			"short",
			q(`count(bridge_sink_stream_info{`+member+`})`, "open"),
			q(`60 * sum(rate(bridge_sink_streams_opened_total{`+member+`}[$__rate_interval]))`, "opened"),
			q(`60 * sum by (reason) (rate(bridge_sink_streams_ended_total{`+member+`}[$__rate_interval])) > 0`, "{{reason}}")),
	}}
}

func partitions() row {
	return row{"Partitions", []panel{
		table("Partitions", "Sort by age to find a stuck partition, by lag to find one that is behind. One far above the others is a hot key or a slow member.",
			"Lag", map[string]string{"integration": "Integration", "topic": "Topic", "partition": "Partition", "instance": "Instance", "Value #A": "Lag", "Value #B": "Oldest unacknowledged, s", "Value #C": "Completed per second", "Value #D": "In flight", "Value #E": "Read per second"},
			q(`bridge_lag_events{`+topics+`}`, ""),
			q(`bridge_oldest_unacked_age_seconds{`+topics+`}`, ""),
			q(`sum without (outcome) (`+completed+`)`, ""),
			q(`bridge_partition_ledger_in_flight_events{`+topics+`}`, ""),
			q(`rate(bridge_partition_ledger_events_read_total{`+topics+`}[$__rate_interval])`, "")),
		graph("Greatest lag", "The ten furthest behind. One alone: a hot key or a stuck partition. All: check the sink.",
			"short", q(`topk(10, bridge_lag_events{`+topics+`})`, "{{integration}} {{topic}}/{{partition}}")),
		graph("Oldest unacknowledged", "The ten oldest. A slope of one second per second is a stuck partition; /readyz shows its offset.",
			"s", q(`topk(10, bridge_oldest_unacked_age_seconds{`+topics+`})`, "{{integration}} {{topic}}/{{partition}}")),
		graph("States", "blocked: someone has to act. rejecting for long: the dead-letter topic is slow.",
			"short", q(`sum by (state) (bridge_assigned_partitions{`+member+`})`, "{{state}}")),
		graph("Paused", "Partitions whose fetches are paused by the buffer budget. Normal while catching up.",
			"short", q(`bridge_paused_partitions{`+member+`}`, "{{integration}} {{instance}}")),
		graph("Rebalances", "Rebalances in ten minutes. Without a rollout or scaling: members that restart. lost: members evicted after the session timeout.",
			"short", q(`sum by (kind) (increase(bridge_rebalances_total{`+member+`}[10m]))`, "{{kind}}")),
		graph("Partitions moved", "Partitions assigned or revoked in ten minutes. If all of them move in each rollout, set kafka.instance_id.",
			"short", q(`sum by (kind) (increase(bridge_rebalanced_partitions_total{`+member+`}[10m]))`, "{{kind}}")),
	}}
}

func processes() row {
	return row{"Process", []panel{
		graph("CPU", "Cores in use. At the container's limit members miss heartbeats: set no CPU limit or a higher one.",
			"short", q(`rate(process_cpu_seconds_total{`+process+`}[$__rate_interval])`, "{{instance}}")),
		graph("CPU per million rows", "It rises when batches are small, which is normal at low traffic, or when rows are larger.",
			"s", q(`1e6 * sum(rate(process_cpu_seconds_total{`+process+`}[$__rate_interval])) / (sum(rate(bridge_rows_delivered_total{`+member+`}[$__rate_interval])) > 0)`, "CPU")).empty("no rows delivered"),
		graph("Memory", "Resident memory and the soft limit of the Go runtime. For sizing see Memory in docs/operations.md.",
			"bytes",
			q(`process_resident_memory_bytes{`+process+`}`, "{{instance}}"),
			q(`min(go_gc_gomemlimit_bytes{`+process+`} < 1e15)`, "soft limit")),
		graph("GC pauses", "Share of time in which the garbage collector stopped the process. Above 1 %: raise GOMEMLIMIT.",
			"percentunit", q(`rate(go_gc_duration_seconds_sum{`+process+`}[$__rate_interval])`, "{{instance}}")),
		graph("Goroutines", "A few per partition and connection. It should not grow without more of those.",
			"short", q(`go_goroutines{`+process+`}`, "{{instance}}")),
		graph("File descriptors", "Share of the process's limit. Near 1: raise the limit (ulimit -n).",
			"percentunit", q(`process_open_fds{`+process+`} / process_max_fds{`+process+`}`, "{{instance}}")),
		graph("Poll loop", "Time since its last iteration. It stops while the buffer is full; otherwise /livez fails after two minutes.",
			"s",
			q(`bridge_poll_age_seconds{`+member+`}`, "{{integration}} {{instance}}"),
			q(`120 * (1 - bridge_live{`+member+`})`, "{{integration}} {{instance}} stopped")),
		graph("Restarts", "Restarts per hour. Each one triggers a rebalance. If there are more than rollouts, check the last lines of the log.",
			"short", q(`changes(process_start_time_seconds{`+process+`}[1h])`, "{{instance}}")),
		graph("Dropped log lines", "Lines per hour. Standard error is not read in time or cannot be written: check the container's log driver and its disk.",
			"short", q(`increase(bridge_log_lines_dropped_total{`+process+`}[1h])`, "{{instance}}")),
		timeline("Configuration", "refused: the changed file on disk is invalid, and the previous configuration stays in force. /status shows the error.",
			`bridge_config_last_reload_successful{`+process+`}`, "{{instance}}", word{0, "refused", "red"}, word{1, "in force", "green"}).sized(8, 8),
		timeline("Store", "not usable: installed integrations run on as they were last read, and cannot be changed. /status shows the problem and the remedy.",
			`bridge_store_ok{`+process+`}`, "{{instance}}", word{0, "not usable", "red"}, word{1, "ok", "green"}).empty("no store").sized(8, 8),
		stat("Installed integrations", "Records of the store. Members differ only while a change reaches them.",
			"none", `max(bridge_store_integrations{`+process+`})`).empty("no store").sized(4, 8),
		stat("Ignored records", "Records of the store that are foreign, malformed or of a newer format. /status shows why. During a rolling upgrade, wait for its end.",
			"none", `max(bridge_store_ignored_records{`+process+`})`, step{1, "orange"}).empty("no store").sized(4, 8),
		graph("Webhook", "Requests per hour, by result, and messages given up. For errors see the log and /status.",
			"short", q(`sum by (result) (increase(bridge_webhook_requests_total{`+process+`}[1h]))`, "{{result}}"),
			q(`sum(increase(bridge_webhook_dropped_total{`+process+`}[1h]))`, "dropped")).empty("no webhook").sized(8, 8),
		graph("Reloads", "Reloads of configuration and blueprint per hour, by result. For errors see Configuration.",
			"short", q(`sum by (result) (increase(bridge_config_reloads_total{`+process+`}[1h]))`, "{{result}}")),
		stat("Last load", "Time since a member last loaded its configuration. After a change of a ConfigMap, wait about a minute for the kubelet to update all members.",
			"s", `max(time() - (bridge_config_last_reload_success_timestamp_seconds{`+process+`} > 0))`).sized(8, 8),
		table("Versions", "Builds in use. Several outside a rollout: update the remaining members.",
			"Members", map[string]string{"version": "Version", "revision": "Revision", "goversion": "Go", "Value": "Members"},
			q(`count by (version, revision, goversion) (bridge_build_info{`+process+`})`, "")).sized(8, 8),
	}}
}
