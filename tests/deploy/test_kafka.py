"""What the broker is made with."""

from pathlib import Path

from deploy.kafka import _cluster_id
from deploy.state import State


def test_a_clusters_id_never_looks_like_an_option_of_the_tool_that_takes_it() -> None:
    ids = [_cluster_id(State(Path(f"/meshes/{n}"))) for n in range(500)]
    assert len(set(ids)) == 500
    assert not [one for one in ids if one.startswith("-")]
    assert {len(one) for one in ids} == {22}
