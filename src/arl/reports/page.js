
"use strict";
// Sorts and filters tables, saves them as CSV, and opens what is folded before printing. Pages are
// complete without.
for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0], rows = Array.from(body.rows), heads = Array.from(table.tHead.rows[0].cells);
  const names = heads.map(head => head.textContent.trim());
  if (rows.length > 1) heads.forEach((head, column) => {
    const key = row => row.cells[column].dataset.value === undefined
      ? row.cells[column].textContent.trim() : Number(row.cells[column].dataset.value);
    const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
      : typeof a !== typeof b ? (typeof a === "number" ? -1 : 1)
      : a.localeCompare(b, "en", {numeric: true});
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.setAttribute("aria-label", `Sort by ${head.textContent.trim() || "this column"}`);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = rows.slice().sort((a, b) => compare(key(a), key(b)) * (down ? -1 : 1));
      body.append(...sorted);
    });
  });
  if (table.dataset.filter !== undefined) {
    const label = document.createElement("label"), field = document.createElement("input");
    const status = document.createElement("span");
    label.className = "filter";
    field.type = "search";
    status.setAttribute("role", "status");
    label.append("Filter rows", field, " ", status);
    const save = document.createElement("button");
    save.type = "button";
    save.className = "save";
    save.textContent = "Save as CSV";
    table.parentNode.before(label, save);
    save.addEventListener("click", () => {
      const visible = Array.from(body.rows).filter(row => !row.hidden);
      const lines = visible.map(row => Array.from(row.cells, cell => cell.dataset.value ?? cell.textContent.trim()));
      // Spreadsheets run a text that begins like a formula.
      const quote = text => `"${text.replace(/^(?=[=+@-]\D)/, "'").replace(/"/g, '""')}"`;
      const csv = [names, ...lines].map(line => line.map(quote).join(",")).join("\r\n") + "\r\n";
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(["\ufeff", csv], {type: "text/csv"}));
      link.download = `${document.title.trim().toLowerCase().replace(/[^a-z0-9]+/g, "-")}.csv`;
      link.click();
      URL.revokeObjectURL(link.href);
    });
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every(word => text.includes(word));
        count += row.hidden ? 0 : 1;
      }
      status.textContent = words.length ? `${count} of ${rows.length}` : "";
    });
  }
}
const unfold = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const folded = target && target.closest("details");
  if (folded) { folded.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", unfold);
unfold();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => { one.open = true; }));
