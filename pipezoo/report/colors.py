"""One colour per op, in every picture.

            F  blue     B  rust     I  orange     W  yellow
    grey    ####        +++         ::            .             each a clear step lighter than the one before

Blue against warm colours holds for every kind of colour blindness, and within the warm ones, all of the backward, the
lightness tells them apart. A test computes both.
"""

from __future__ import annotations

from pipezoo.schedule.action import Op

COLOURS = {Op.F: "#245a9c", Op.B: "#bf5b17", Op.I: "#ef9f4a", Op.W: "#fbe39b"}
INKS = {Op.F: "#ffffff", Op.B: "#ffffff", Op.I: "#000000", Op.W: "#000000"}  # what is written on them
OTHER = "#8a8f98"  # messages and whatever else is not one of the four
MEANING = {
    Op.F: "forward",
    Op.B: "backward",
    Op.I: "input gradient",
    Op.W: "weight gradient",
    Op.REDUCE_GRAD: "gradients of replicas added up",
    Op.UNSHARD: "parameters gathered",
    Op.RESHARD: "parameters freed",
}
