"""Where rank 0 is, from Slurm's variables; every other answer than the right one hangs a run or starts several."""

from __future__ import annotations

import socket

import pytest

from pipezoo.errors import ConfigError
from pipezoo.launch.slurm_address import address_of_first_host, hosts_of

SHOWN = "NodeName=n1 Arch=x86_64 NodeAddr={} NodeHostName=vm Port=17101 State=ALLOCATED"


@pytest.mark.parametrize(
    ("nodelist", "hosts"),
    [
        ("n1", ["n1"]),
        ("n[1-2]", ["n1", "n2"]),
        ("n[1-2,07],m3", ["n1", "n2", "n07", "m3"]),
        ("gpu[008-011]", ["gpu008", "gpu009", "gpu010", "gpu011"]),
        ("rack[1-2]node[3,5]", ["rack1node3", "rack1node5", "rack2node3", "rack2node5"]),
        ("c[1-2]-ib.cluster", ["c1-ib.cluster", "c2-ib.cluster"]),
        ("login.example.org,b[10]", ["login.example.org", "b10"]),
    ],
)
def test_a_list_of_nodes_is_expanded(nodelist: str, hosts: list[str]) -> None:
    assert hosts_of(nodelist) == hosts


@pytest.mark.parametrize("nodelist", ["", ",", "n[1-", "n[a-b]", "n[]", "n 1", "n[3-1]", "n[1-99999999]", "]"])
def test_what_is_no_list_is_refused_in_one_line(nodelist: str) -> None:
    with pytest.raises(ConfigError, match=r"^SLURM_STEP_NODELIST=.*: is no list of nodes; valid: ") as caught:
        hosts_of(nodelist)
    assert "\n" not in str(caught.value)


def test_the_address_is_the_one_that_slurm_knows_the_first_node_by() -> None:
    asked: list[str] = []

    def ask(host: str) -> str:
        asked.append(host)
        return SHOWN.format("10.1.2.3")

    login = {"SLURM_LAUNCH_NODE_IPADDR": "10.9.9.9", "SLURM_SRUN_COMM_HOST": "10.9.9.9"}
    assert address_of_first_host({"SLURM_STEP_NODELIST": "n[1-2]", **login}, ask) == "10.1.2.3"
    assert asked == ["n1"]


def test_without_scontrol_a_name_that_resolves_is_enough() -> None:
    address = address_of_first_host({"SLURM_STEP_NODELIST": "localhost"}, lambda host: "")
    assert socket.getaddrinfo("localhost", None)[0][4][0] == address


@pytest.mark.parametrize("shown", ["", SHOWN.format("(null)"), "slurm_load_node error: Unable to contact slurm"])
def test_a_node_without_an_address_is_never_this_machine(shown: str) -> None:
    with pytest.raises(ConfigError, match=r"^SLURM_STEP_NODELIST=nowhere\[1-2\]: nowhere1 has no address"):
        address_of_first_host({"SLURM_STEP_NODELIST": "nowhere[1-2]"}, lambda host: shown)


@pytest.mark.parametrize("environ", [{}, {"SLURM_STEP_NODELIST": ""}])
def test_without_a_list_nobody_guesses(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^SLURM_STEP_NODELIST: is not set"):
        address_of_first_host(environ)
