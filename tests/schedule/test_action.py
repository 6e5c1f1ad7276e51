from __future__ import annotations

import pytest

from pipezoo.schedule.action import Action, Op

SPELLINGS = [
    *(f"{stage}{op}{microbatch}" for stage in (0, 7, 123) for op in "FBIW" for microbatch in (0, 12)),
    *("2SEND_F0", "3RECV_F10", "3SEND_B0", "2RECV_B0"),
    *("2UNSHARD", "2RESHARD", "11REDUCE_GRAD"),
    *("(0F4;7B2)OVERLAP_F_B", "(1F0;1I3)OVERLAP_F_B"),
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_spelling_is_read_and_written_back(text):
    assert str(Action.parse(text)) == text


def test_an_action_is_its_parts():
    assert Action.parse("2F0") == Action(2, Op.F, 0)
    assert Action.parse(" 3REDUCE_GRAD ") == Action(3, Op.REDUCE_GRAD, None)
    assert Action.parse("(0F4;7B2)OVERLAP_F_B").parts == (Action(0, Op.F, 4), Action(7, Op.B, 2))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("F0", "'F0' is not an action; write <stage><op><microbatch>, like 2F0"),
        (
            "2f0",
            "'2f0' is not an action; write <stage><op><microbatch>, "
            "like 2F0, 2B0, 2I0, 2W0, 2SEND_F0; did you mean 2F0?",
        ),
        ("2G0", "'2G0' is not an action"),
        ("-1F0", "'-1F0' is not an action"),
        ("2F0,", "'2F0,' is not an action"),
        ("2F", "'2F': F needs a microbatch, like 2F0"),
        ("2REDUCE_GRAD1", "'2REDUCE_GRAD1': REDUCE_GRAD names no microbatch"),
        ("(0F4)OVERLAP_F_B", "'(0F4)OVERLAP_F_B': OVERLAP_F_B joins exactly two computations"),
        ("(0F4;7SEND_B2)OVERLAP_F_B", "OVERLAP_F_B joins exactly two computations"),
        ("(0F4;7X2)OVERLAP_F_B", "'7X2' is not an action"),
        ("", "'' is not an action"),
        ("0F0;0F1;0F2;0F3;0F4;0F5;0F6;0F7;0F8;0F9;", "'0F0;0F1;0F2;0F3;0F4;0F5;0F6;0F7;0F8;0F9;' is not"),
        ("x" * 5000, "x..."),
    ],
)
def test_what_is_no_action_is_shown_with_what_is_wrong(text, said):
    with pytest.raises(ValueError, match=r"action|OVERLAP|microbatch") as error:
        Action.parse(text)
    assert said in str(error.value)
    assert len(str(error.value)) < 200
