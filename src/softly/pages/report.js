// Tables that can be sorted: each header becomes a button; numbers begin with the largest.
"use strict";

for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const compare = new Intl.Collator(document.documentElement.lang, { numeric: true }).compare;

  headers.forEach((header, column) => {
    const isNumber = header.classList.contains("number");
    const cell = (row) => row.cells[column].textContent.trim();
    const number = (row) => Number(cell(row).replaceAll(",", ""));

    // Cells without a number ("–") stay at the end, whichever way it goes.
    const order = (a, b, sign) => {
      if (!isNumber) return sign * compare(cell(a), cell(b));
      const [x, y] = [number(a), number(b)];
      return Number.isNaN(x) - Number.isNaN(y) || sign * (x - y) || 0;
    };

    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const before = header.getAttribute("aria-sort");
      const first = isNumber ? "descending" : "ascending";
      const second = isNumber ? "ascending" : "descending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      const now = before === first ? second : first;
      header.setAttribute("aria-sort", now);
      const sign = now === "ascending" ? 1 : -1;
      body.append(...rows.toSorted((a, b) => order(a, b, sign)));
    });
  });
}
