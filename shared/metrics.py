"""The catalog of metrics: every one with its meaning and unit. Served at ``/metrics`` in the Prometheus text format."""

from prometheus_client import Counter, Gauge, Histogram

_FINE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class metrics:  # noqa: N801 - reads as a word at its call sites
    """Names are ``mesh_<what>_<unit>``; labels never hold a tenant, a person or an id."""

    changes_applied = Counter("mesh_changes_applied_total", "Changes of other services applied", ["reader"])
    change_delay = Histogram("mesh_change_delay_seconds", "From a change's commit until its effect is committed here", ["source"], buckets=_FINE)
    reactions_run = Counter("mesh_reactions_run_total", "Reactions run", ["reaction"])
    parked = Counter("mesh_parked_total", "Times a reaction was parked for a stream", ["reaction"])
    undecodable = Counter("mesh_undecodable_total", "Records that were kept raw because they are no change records", ["topic"])
    gaps = Counter("mesh_gaps_total", "Holes found in streams of other services", ["source"])
    resends = Counter("mesh_resends_total", "Requests of other services to send changes again that were served")
    transient_retries = Counter("mesh_transient_retries_total", "Batches tried again because the database was away or busy")
    readings_begun_anew = Counter("mesh_readings_begun_anew_total", "Times the Kafka client gave up and reading began anew")
    left_behind = Counter("mesh_streams_left_behind_total", "Times a stream could not be applied at all and waits to be sent again")
    requests = Histogram("mesh_http_request_seconds", "Time to answer a request", ["method", "route", "status"], buckets=_FINE)
    work_done = Counter("mesh_work_done_total", "Pieces of leased work done", ["kind", "outcome"])
    parked_now = Gauge("mesh_parked_now", "Pairs of reaction and stream that are parked", ["state"])
    fuses_now = Gauge("mesh_fuses_now", "Reactions that are held because they fail for everybody")
    gap_alarms = Gauge("mesh_gap_alarms", "Holes that three requests did not close")
    oldest_change = Gauge("mesh_oldest_unsent_seconds", "Age of the oldest change that Debezium has not read")
    slot_held = Gauge("mesh_slot_held_ratio", "Part of the write-ahead log that the slot may hold back which it holds back; at 1 the slot is given up")
    heard = Gauge("mesh_heard_timestamp_seconds", "When the newest announcement of heads that came of a service was made there (Unix time)", ["source"])
    agent_heard = Gauge("mesh_agent_heard_timestamp_seconds", "When a data plane's agent said hello last (Unix time)", ["data_plane"])
    flows_now = Gauge(
        "mesh_flows_now", "Flows before a step, in a state; waits_for says who has to act there: mesh, person or timer", ["flow", "step", "state", "waits_for"]
    )
    flows_ended = Counter("mesh_flows_ended_total", "Flows that ended", ["flow", "state"])
    flow_deviations = Counter(
        "mesh_flow_deviations_total", "Times a flow went otherwise than it is defined: skipped, repeated, or after its end", ["flow", "kind"]
    )
    flow_time = Histogram("mesh_flow_seconds", "From a flow's start to its end, when it was done", ["flow"], buckets=_FINE)
    step_time = Histogram("mesh_step_seconds", "From the step before until a step was met, for flows that were done", ["flow", "step"], buckets=_FINE)
    step_queued = Histogram(
        "mesh_step_queued_seconds",
        "From the commit of the change that caused a step until it was met, for flows that were done",
        ["flow", "step"],
        buckets=_FINE,
    )
