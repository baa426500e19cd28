"""All benchmarks, in the order in which they run."""

from tests.bench.cases import a_rest, b_sign_up, c_latency, d_drain, e_write, f_restate, g_flows, h_scale, i_poison, j_noisy, k_agents
from tests.bench.registry import CASES

__all__ = ["CASES", "a_rest", "b_sign_up", "c_latency", "d_drain", "e_write", "f_restate", "g_flows", "h_scale", "i_poison", "j_noisy", "k_agents"]
