"""What a flow has come to, from its changes alone: in any order, with any of them late."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from schemas.flows import FLOWS
from services.console.folding import Fold, Judgement, definition_of
from services.console.history import Seen, matters_to_flows
from services.console.sources import Age
from services.console.troubles import Trouble
from shared.changes import Change, Context

START = datetime(2026, 1, 1, tzinfo=UTC)
ORG = str(uuid4())


class Story:
    """Changes of one organization, a hundred milliseconds apart."""

    def __init__(self) -> None:
        self.changes: list[Seen] = []

    def tell(self, flow_id: UUID, table: str, key: str = ORG, op: Any = "update", by: str = "user:1", cause: Seen | None = None, **facts: Any) -> Seen:
        source, _, name = table.partition(".")
        n = len(self.changes) + 1
        before = None if op == "insert" else facts if op == "delete" else dict.fromkeys(facts)
        context = Context(by, flow_id, cause.change.name if cause else None)
        at = START + timedelta(milliseconds=100 * n)
        change = Change(source, f"org:{ORG}", n, 1, name, op, at, context, before, None if op == "delete" else facts, "")
        seen = Seen(change, key, cause.at if cause else None, cause.flow_id if cause else None)
        self.changes.append(seen)
        return seen


def folded(flow_id: UUID, changes: Iterable[Seen], troubles: Iterable[Trouble] = (), *, now: timedelta = timedelta(0), complete: bool = True) -> dict[str, Any]:
    """The flow's row as it is judged ``now`` after the start."""
    seen = list(changes)
    defined = definition_of(c for c in seen if c.flow_id == flow_id)
    assert defined, "no flow was recognized"
    age = Age(START + now, START + now if complete else None)
    return Judgement(Fold(flow_id, *defined).add(seen), list(troubles), age).document()


@pytest.fixture
def suspension() -> tuple[Story, UUID, Seen]:
    """A story in which an organization was suspended, with the flow's id."""
    story, flow = Story(), uuid4()
    return story, flow, story.tell(flow, "org.organizations", state="suspended", suspended_by="owner")


@pytest.mark.parametrize("table", sorted({step.row.table for flow in FLOWS.values() for step in flow.steps}))
def test_every_row_of_a_step_matters_to_flows_also_where_no_value_of_it_is_asked_for(table: str) -> None:
    assert matters_to_flows(Story().tell(uuid4(), table).change)
    assert not matters_to_flows(Story().tell(uuid4(), f"{table}_of_nobody").change)


def test_a_flow_is_done_when_every_step_is_met(suspension: tuple[Story, UUID, Seen]) -> None:
    story, flow, first = suspension
    closing = story.tell(flow, "provisioning.tenants", cause=first, state="suspending", error=None)
    story.tell(flow, "provisioning.tenants", by="agent:local", state="suspended", error=None)
    document = folded(flow, story.changes)
    assert (document["flow"], document["state"], document["finished_at"]) == ("suspend an organization", "done", story.changes[-1].at)
    told = document["steps"][1]
    assert (told["in_step_ms"], told["queued_ms"], told["cause"]) == (100, 100, closing.change.context.cause)


def test_the_order_in_which_changes_are_seen_makes_no_difference(suspension: tuple[Story, UUID, Seen]) -> None:
    story, flow, first = suspension
    resumed = uuid4()
    second = story.tell(resumed, "org.organizations", state="active", suspended_by=None)
    story.tell(flow, "provisioning.tenants", cause=first, state="suspending", error=None)
    story.tell(resumed, "provisioning.tenants", cause=second, state="resuming", error=None)
    documents = []
    for seed in range(20):
        shuffled = list(story.changes)
        random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, no secret
        documents.append(folded(flow, shuffled))
    assert all(d == documents[0] for d in documents)


def test_an_effect_seen_before_its_cause_makes_no_flow_of_its_own(suspension: tuple[Story, UUID, Seen]) -> None:
    story, made = suspension[0], uuid4()
    unseen = Story().tell(made, "org.organizations", op="insert", origin="sign_up")
    effect = story.tell(made, "provisioning.databases", op="insert", cause=unseen, state="requested")
    assert definition_of([effect]) is None
    assert definition_of([Seen(effect.change, effect.key)]) is None, "its cause may belong to the same flow"


def test_a_report_of_an_agent_starts_no_flow() -> None:
    seen = Story().tell(uuid4(), "provisioning.databases", by="agent:local", state="ready")
    assert definition_of([seen]) is None


def test_of_two_definitions_the_more_particular_one_is_meant() -> None:
    deleted = Story().tell(uuid4(), "provisioning.databases", wanted="deleted", state="deleting")
    defined = definition_of([deleted])
    assert defined
    assert defined[0].name == "delete a database"


def test_suspend_then_resume_at_once_ends_the_first_superseded(suspension: tuple[Story, UUID, Seen]) -> None:
    story, flow, _ = suspension
    resumed = story.tell(uuid4(), "org.organizations", state="active", suspended_by=None)
    document = folded(flow, story.changes, now=timedelta(hours=1))
    assert (document["state"], document["finished_at"]) == ("superseded", resumed.at)


def test_a_step_is_met_by_another_flow_on_a_row_that_this_one_wrote() -> None:
    story, flow = Story(), uuid4()
    story.tell(flow, "provisioning.databases", key="a", op="insert", state="requested")
    story.tell(uuid4(), "provisioning.databases", key="b", state="ready")
    assert folded(flow, story.changes)["state"] == "running", "that is another row"
    story.tell(uuid4(), "provisioning.databases", key="a", state="ready")
    assert folded(flow, story.changes)["state"] == "done"


def test_an_intermediate_state_that_was_never_written_is_skipped(suspension: tuple[Story, UUID, Seen]) -> None:
    story, flow, first = suspension
    story.tell(flow, "provisioning.tenants", cause=first, state="suspended", error=None)
    document = folded(flow, story.changes)
    assert document["state"] == "done"
    assert [s["state"] for s in document["steps"]] == ["met", "skipped", "met"]


def test_a_withdrawn_invitation_ends_its_flow_cancelled() -> None:
    story, flow = Story(), uuid4()
    story.tell(flow, "org.invitations", op="insert", state="pending")
    story.tell(flow, "org.invitations", state="withdrawn")
    assert folded(flow, story.changes)["state"] == "cancelled"


def test_waiting_for_a_person_is_told_apart_from_being_late() -> None:
    story, flow = Story(), uuid4()
    story.tell(flow, "org.invitations", op="insert", state="pending")
    for state in ("queued", "sent"):
        story.tell(flow, "notification.messages", op="insert" if state == "queued" else "update", template="invitation", state=state)
    assert folded(flow, story.changes, now=timedelta(days=6))["state"] == "waiting_person"
    assert folded(flow, story.changes, now=timedelta(days=8))["state"] == "overdue"


def test_waiting_for_a_timer_is_told_apart_from_waiting_for_a_person_and_from_being_late() -> None:
    story, flow = Story(), uuid4()
    story.tell(flow, "provisioning.databases", wanted="deleted", state="deleting")
    story.tell(flow, "provisioning.databases", by="agent:local", wanted="deleted", state="deleted")
    document = folded(flow, story.changes, now=timedelta(hours=24))
    assert (document["state"], document["step"]) == ("waiting_timer", "data dropped")
    assert document["check_at"] > START + timedelta(hours=25), "it is looked at again when time alone makes a difference"
    late = folded(flow, story.changes, now=timedelta(hours=26))
    assert (late["state"], late["steps"][2]["owner"]) == ("overdue", "provisioning")


def test_a_step_is_overdue_at_the_data_s_time_and_lost_when_nothing_can_still_come(suspension: tuple[Story, UUID, Seen]) -> None:
    story, flow, _ = suspension
    on_time = folded(flow, story.changes, now=timedelta(seconds=9))
    assert (on_time["state"], on_time["step"]) == ("running", "data plane told")
    assert on_time["check_at"] > START + timedelta(seconds=10), "it is looked at again when time alone makes a difference"
    assert folded(flow, story.changes, now=timedelta(seconds=12))["state"] == "overdue"
    assert folded(flow, story.changes, now=timedelta(minutes=5), complete=False)["state"] == "overdue", "something may be missing here"
    assert folded(flow, story.changes, now=timedelta(minutes=5))["state"] == "lost"


@pytest.mark.parametrize(("trouble", "state"), [("retrying", "failing"), ("dead", "parked"), ("waiting", "running")])
def test_what_is_parked_is_shown_at_its_step(suspension: tuple[Story, UUID, Seen], trouble: Any, state: str) -> None:
    story, flow, _ = suspension
    parked = Trouble("provisioning.suspend_or_resume", f"org:{ORG}", uuid4(), trouble, 3, "ValueError: no")
    document = folded(flow, story.changes, [parked])
    assert document["state"] == state
    assert (document["steps"][1]["attempt"], document["steps"][1]["error"]) == (3, "ValueError: no")
    assert folded(flow, story.changes, [parked], now=timedelta(minutes=5))["state"] != "lost"


def test_a_row_that_says_it_failed_makes_its_step_failing() -> None:
    story, flow = Story(), uuid4()
    story.tell(flow, "provisioning.databases", op="insert", state="requested")
    story.tell(flow, "provisioning.databases", by="agent:local", state="failed", error="no room on the server")
    document = folded(flow, story.changes)
    assert (document["state"], document["steps"][1]["error"]) == ("failing", "no room on the server")


def test_an_invitation_that_is_accepted_before_its_mail_was_marked_sent_is_done() -> None:
    """The mail server had it and was not heard; whoever got it was faster than the next attempt, which is taken back."""
    story, flow = Story(), uuid4()
    invited = story.tell(flow, "org.invitations", op="insert", state="pending")
    story.tell(flow, "notification.messages", key="m", op="insert", cause=invited, template="invitation", state="queued", error=None)
    accepted = story.tell(flow, "org.invitations", state="accepted")
    member = story.tell(flow, "org.memberships", key="u", op="insert", role="member")
    story.tell(flow, "notification.messages", key="m", cause=accepted, template="invitation", state="cancelled", error=None)
    story.tell(flow, "provisioning.grants", key="u", op="insert", cause=member, state="pending")
    assert folded(flow, story.changes)["state"] == "running"
    story.tell(flow, "provisioning.grants", key="u", by="agent:local", state="applied")
    assert folded(flow, story.changes)["state"] == "done"


def test_what_an_operator_skipped_is_not_waited_for(suspension: tuple[Story, UUID, Seen]) -> None:
    story, flow, first = suspension
    tried = story.tell(flow, "provisioning.order_results", op="insert", by="operator", act="retry", actor="provisioning.suspend_or_resume", did=True)
    assert folded(flow, [first, tried])["step"] == "data plane told"
    for did, step in ((False, "data plane told"), (True, "databases closed")):
        skipped = story.tell(flow, "provisioning.order_results", op="insert", by="operator", act="skip", actor="provisioning.suspend_or_resume", did=did)
        assert folded(flow, [first, skipped])["step"] == step


def test_a_flow_that_an_operator_cancelled_is_over_whatever_is_parked_for_it(suspension: tuple[Story, UUID, Seen]) -> None:
    story, flow, _ = suspension
    order = story.tell(flow, "console.orders", op="insert", by="operator", act="cancel", actors=[])
    parked = Trouble("provisioning.suspend_or_resume", f"org:{ORG}", flow, "dead", 3, "ValueError: no")
    document = folded(flow, story.changes, [parked], now=timedelta(hours=1))
    assert (document["state"], document["finished_at"], document["step"]) == ("cancelled", order.at, None)


def test_a_trouble_tells_whom_to_ask_and_since_when(suspension: tuple[Story, UUID, Seen]) -> None:
    story, flow, _ = suspension
    parked = Trouble("provisioning.suspend_or_resume", f"org:{ORG}", flow, "dead", 3, "ValueError: no", since=START + timedelta(seconds=2))
    step = folded(flow, story.changes, [parked])["steps"][1]
    assert (step["owner"], step["since"]) == ("org", START + timedelta(seconds=2))
    late = folded(flow, story.changes, now=timedelta(seconds=12))["steps"][1]
    assert late["since"] == late["due_at"], "when it should have been met"
