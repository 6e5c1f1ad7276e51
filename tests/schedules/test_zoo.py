"""What holds for every schedule of the zoo, whatever it is."""

from __future__ import annotations

import inspect
import re

import pytest

from pipezoo.errors import ScheduleError
from pipezoo.schedule.schedule import Schedule
from tests.support import zoo


def accepted(name):
    """The schedules of a grid that the function accepts."""
    function = zoo.function(name)
    for num_ranks in (1, 2, 3, 4, 6):
        for num_microbatches in (1, 2, 3, 4, 6, 7, 8, 12, 15):
            for stages_per_rank in (1, 2, 3):
                try:
                    yield stages_per_rank, function(num_ranks, num_microbatches, stages_per_rank)
                except ScheduleError:
                    raise
                except ValueError:
                    continue


@pytest.mark.parametrize("name", zoo.GENERATED)
def test_what_a_generator_accepts_is_legal_and_of_the_size_asked_for(name):
    some = list(accepted(name))
    assert len(some) >= 10
    for stages_per_rank, schedule in some:
        assert schedule.name == name
        assert schedule.num_stages == schedule.num_ranks * stages_per_rank
        assert all(len(schedule.stages_of(rank)) == stages_per_rank for rank in range(schedule.num_ranks))


@pytest.mark.parametrize("name", zoo.GENERATED)
def test_a_generated_order_survives_a_file(name, tmp_path):
    for _, schedule in accepted(name):
        (tmp_path / "order.csv").write_text(schedule.to_csv())
        assert Schedule.from_csv(tmp_path / "order.csv") == schedule


@pytest.mark.parametrize("name", zoo.GENERATED)
@pytest.mark.parametrize("argument", ["num_ranks", "num_microbatches", "stages_per_rank"])
@pytest.mark.parametrize("value", [0, -1, 2.0, "4", True])
def test_a_count_that_is_no_count_is_refused_by_name_and_value(name, argument, value):
    counts = {"num_ranks": 2, "num_microbatches": 8, argument: value}
    with pytest.raises(ValueError, match=rf"^{argument}={re.escape(repr(value))}: "):
        zoo.function(name)(**counts)


@pytest.mark.parametrize("name", zoo.GENERATED)
def test_the_yaml_spells_the_arguments_of_the_function(name):
    parameters = inspect.signature(zoo.function(name)).parameters
    keys = {key: value for key, value in zoo.node(name).items() if key != "_target_"}
    assert set(keys) <= set(parameters) - {"num_ranks", "num_microbatches"}
    assert isinstance(parameters["stages_per_rank"].default, int)
    if "stages_per_rank" in keys:
        default = parameters["stages_per_rank"].default
        assert zoo.function(name)(2, 4, stages_per_rank=keys["stages_per_rank"]).num_stages == 2 * default


@pytest.mark.parametrize("name", zoo.NAMES)
def test_every_key_of_every_yaml_has_a_comment(name):
    lines = (zoo.CONF / "schedule" / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert all("  # " in line for line in lines[1:])
