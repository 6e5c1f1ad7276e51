// Sorts a table by the column whose heading is pressed: numbers as numbers, empty cells last, a second press reverses.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: row.cells[column].dataset.value }));
    const numeric = rows.every(({ key }) => key === "" || Number.isFinite(Number(key)));
    rows.sort((a, b) => {
      if (a.key === "" || b.key === "") return (a.key === "") - (b.key === "");
      const order = numeric ? a.key - b.key : a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows.map(({ row }) => row));
  }));
}
