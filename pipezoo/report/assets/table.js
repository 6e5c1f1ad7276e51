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
// Shows the rows of the table below in which every word of the field stands.
for (const field of document.querySelectorAll("input.filter")) {
  const section = field.closest("section"), rows = [...section.querySelector("table.sortable").tBodies[0].rows];
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => [...row.cells].some((cell) => cell.textContent.toLowerCase().includes(word)));
    section.querySelector(".filtered").textContent = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
  });
}
